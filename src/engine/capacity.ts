/**
 * Whether there is room for two fleets beside everything else. It is asked before anything that runs is touched, because the
 * old fleet and the new one run side by side until the switch is proven. Reads figures of the engine and frees nothing.
 */
import { OpsError } from '../errors.ts';
import { formatBytes, megabyte } from '../units.ts';
import type { Engine } from './port.ts';

/** Kept free for Postgres, logs and the engine itself: a full disk takes everything down, not only the deploy. */
export const diskReserveBytes = 2048 * megabyte;
/** Kept for the engine, the kernel and people who log in. */
const memoryReserveBytes = 256 * megabyte;
/** Writable layer, settings volume and log files of one replica (5 log files of 4 MB, compressed). */
const diskPerReplicaBytes = 32 * megabyte;

/** Memory that Nginx, Postgres and Redis of a small project really use; their limits are higher. */
export const besideFleetsBytes = 768 * megabyte;

export interface Need {
  /** 2 while a deploy overlaps. */
  fleets: number;
  replicas: number;
  /** Memory limit of one replica. */
  memoryBytes: number;
  /** Memory limits of the containers beside the fleets: Nginx and the accessories. */
  besideBytes: number;
  /** Disk for images that are still to be built or pulled, and for a backup before a migration. */
  diskBytes: number;
}

export interface Room {
  freeDiskBytes: number;
  memoryBytes: number;
}

/** Pure: null when there is room. */
export function judgeRoom(need: Need, room: Room): OpsError | null {
  const wantedDisk = diskReserveBytes + need.diskBytes + need.fleets * need.replicas * diskPerReplicaBytes;
  if (room.freeDiskBytes < wantedDisk) {
    return new OpsError('DISK_TOO_FULL', {
      message: `The engine has ${formatBytes(room.freeDiskBytes)} of disk free; this deploy needs ${formatBytes(wantedDisk)} free. ${formatBytes(diskReserveBytes)} of that are a reserve. Nothing was changed; players are where they were.`,
      next: ['gameops prune', 'free space where the engine keeps its data, then run the command again'],
      facts: { freeDiskBytes: room.freeDiskBytes, wantedDiskBytes: wantedDisk },
    });
  }
  const wantedMemory = memoryReserveBytes + need.besideBytes + need.fleets * need.replicas * need.memoryBytes;
  if (room.memoryBytes >= wantedMemory) return null;
  const fits = Math.floor(
    (room.memoryBytes - memoryReserveBytes - need.besideBytes) / (need.fleets * need.memoryBytes),
  );
  return new OpsError('MEMORY_TOO_SMALL', {
    message: `The engine has ${formatBytes(room.memoryBytes)} of memory; ${need.fleets} fleets of ${need.replicas} × ${formatBytes(need.memoryBytes)} and the containers beside them may take ${formatBytes(wantedMemory)}. Nothing was changed; players are where they were.`,
    next: [
      fits >= 1
        ? `set server.replicas to ${fits} or less in gameops.yaml`
        : 'lower server.memory in gameops.yaml, or use a larger machine',
      ...(fits >= 1 ? ['or lower server.memory in gameops.yaml'] : []),
    ],
    facts: {
      memoryBytes: room.memoryBytes,
      wantedMemoryBytes: wantedMemory,
      replicasThatFit: Math.max(0, fits),
    },
  });
}

/**
 * @param image any image on the engine that holds `df`, to measure from inside
 * @throws DISK_TOO_FULL, MEMORY_TOO_SMALL
 */
export async function checkRoom(
  engine: Engine,
  asked: Pick<Need, 'replicas' | 'memoryBytes'> & Partial<Need> & { project: string; image: string },
): Promise<Room> {
  const [freeDiskBytes, info] = await Promise.all([
    engine.freeDiskBytes(asked.project, asked.image),
    engine.info(),
  ]);
  const room = { freeDiskBytes, memoryBytes: info.memoryBytes };
  const problem = judgeRoom(
    {
      fleets: asked.fleets ?? 2,
      replicas: asked.replicas,
      memoryBytes: asked.memoryBytes,
      besideBytes: asked.besideBytes ?? besideFleetsBytes,
      diskBytes: asked.diskBytes ?? 0,
    },
    room,
  );
  if (problem) throw problem;
  return room;
}
