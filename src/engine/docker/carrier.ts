/**
 * Files in and out of volumes through a carrier: a container that mounts volumes and is never started, so any image of
 * the engine will do. Nothing assumes a shared file system with the engine.
 *
 * Promises never to leave a volume that it brought into being by mounting it (Docker makes what is missing), to remove
 * what it made for one transfer, and to answer "empty" for what is not there. Writes are neither atomic nor fsynced.
 */
import { randomBytes } from 'node:crypto';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type Docker from 'dockerode';
import { label, namesOf } from '../../contract.ts';
import { imageMissing, volumeMissing } from '../failures.ts';
import type { Engine, FileEntry } from '../port.ts';
import { labelsOf } from '../spec.ts';
import { type Connection, hasVolume, orDone, orNull, ownContainer, removeById } from './client.ts';
import { answerOf, isStatus } from './errors.ts';
import { filesOf, tarOf } from './tar.ts';

/** Where a carrier mounts a volume: a folder that no image has, so that nothing is copied up into an empty volume. */
const mountOf = (volume: string) => `/gameops-volumes/${volume}`;

/** Volumes that the permanent carrier serves; the others change with releases and get a carrier for one transfer. */
function foundationVolumes(project: string): string[] {
  const { record, nginx, web, certificates, logs } = namesOf(project).volume;
  return [record, nginx, web, certificates, logs];
}

export function carrierVerbs(connection: Connection) {
  /** Volumes that a permanent carrier is known to mount: a record write is then one request. */
  const mounted = new Set<string>();

  /**
   * Runs `act` with the name of a carrier of that volume; null when there is no such volume. A volume that is removed under
   * a transfer fails it in words that differ with the moment ("error processing tar file"), so the volume itself is asked.
   */
  async function withCarrier<T>(
    project: string,
    volume: string,
    act: (carrier: string) => Promise<T>,
  ): Promise<T | null> {
    try {
      return await throughCarrier(project, volume, act);
    } catch (error) {
      if (await hasVolume(connection, project, volume).catch(() => true)) throw error;
      return null;
    }
  }

  async function throughCarrier<T>(
    project: string,
    volume: string,
    act: (carrier: string) => Promise<T>,
  ): Promise<T | null> {
    // Another write may replace the carrier, to mount one volume more, between our look and our transfer.
    for (let tries = 0; tries < 5; tries += 1) {
      if (mounted.has(volume)) {
        const done = await orNull(act(namesOf(project).carrier));
        if (done !== null) return done;
        mounted.delete(volume);
      }
      if (!(await hasVolume(connection, project, volume))) return null;
      if (!foundationVolumes(project).includes(volume))
        return withTemporary(connection, project, volume, act);
      for (const name of await ensurePermanent(connection, project, volume)) mounted.add(name);
    }
    return null;
  }

  return {
    async putFiles(project: string, volume: string, files: readonly FileEntry[]) {
      const put = async (carrier: string) => {
        await connection.docker
          .getContainer(carrier)
          .putArchive(tarOf(files) as never, { path: mountOf(volume) });
        return true;
      };
      if ((await withCarrier(project, volume, put)) === null) throw volumeMissing(volume);
    },
    async readFiles(project: string, volume: string, folder: string) {
      const read = async (carrier: string) => readFolder(connection, carrier, `${mountOf(volume)}/${folder}`);
      return (await withCarrier(project, volume, read)) ?? new Map<string, Uint8Array>();
    },
    async removeVolume(project: string, name: string) {
      mounted.delete(name);
      if (!(await hasVolume(connection, project, name))) return;
      // A carrier is our own means, never a reason to keep a volume; a reader may be making one just now.
      for (let tries = 0; ; tries += 1) {
        try {
          await orNull(connection.docker.getVolume(name).remove());
          return;
        } catch (error) {
          if (!isStatus(error, 409) || tries >= 20) throw error;
          await removeCarriersOf(connection, project, name);
          if (tries > 0) await sleep(50);
        }
      }
    },
  } satisfies Partial<Engine>;
}

/** The permanent carrier with every foundation volume there is so far; made anew when it lacks this one. */
async function ensurePermanent(connection: Connection, project: string, volume: string): Promise<string[]> {
  const name = namesOf(project).carrier;
  for (let tries = 0; ; tries += 1) {
    const existing = await ownContainer(connection, project, name);
    const mounts = (existing?.Mounts ?? []).flatMap((mount) => (mount.Name ? [mount.Name] : []));
    if (mounts.includes(volume)) return mounts.filter((one) => foundationVolumes(project).includes(one));
    if (existing !== null) await removeById(connection, existing.Id);
    const present: string[] = [];
    for (const one of foundationVolumes(project))
      if (await hasVolume(connection, project, one)) present.push(one);
    if (!present.includes(volume)) return [];
    try {
      if ((await createCarrier(connection, project, name, present)) !== null) return present;
    } catch (error) {
      // Another process made it between our look and our call.
      if (!isStatus(error, 409) || tries >= 3) throw error;
    }
  }
}

async function withTemporary<T>(
  connection: Connection,
  project: string,
  volume: string,
  act: (carrier: string) => Promise<T>,
): Promise<T | null> {
  const name = `${namesOf(project).carrier}-${randomBytes(4).toString('hex')}`;
  const made = await createCarrier(connection, project, name, [volume]);
  if (made === null) return null;
  try {
    return await orNull(act(name));
  } finally {
    await removeById(connection, made.id);
  }
}

/** On a volume that came into being by mounting it: for which carrier. */
const mountedForLabel = 'gameops.mounted-for';

/** null when a volume was gone by then: a reader without the lock may be overtaken by `down --volumes`. */
async function createCarrier(
  connection: Connection,
  project: string,
  name: string,
  volumes: readonly string[],
): Promise<Docker.Container | null> {
  const mountedFor = randomBytes(8).toString('hex');
  const made = await createMounting(connection, project, name, volumes, mountedFor);
  const found = await Promise.all(
    volumes.map((volume) => orNull(connection.docker.getVolume(volume).inspect())),
  );
  const revived = found.filter((info) => info?.Labels?.[mountedForLabel] === mountedFor);
  if (revived.length === 0) return made;
  await removeById(connection, made.id);
  for (const info of revived) {
    if (info !== null) await orDone(connection.docker.getVolume(info.Name).remove(), 409);
  }
  return null;
}

async function createMounting(
  connection: Connection,
  project: string,
  name: string,
  volumes: readonly string[],
  mountedFor: string,
): Promise<Docker.Container> {
  // Labels are taken up only by a volume that Docker has to make.
  const VolumeOptions = {
    Labels: { ...labelsOf(project, 'data'), [mountedForLabel]: mountedFor },
  } as unknown as Docker.MountSettings['VolumeOptions'];
  let last: unknown;
  for (const image of await carrierImages(connection, project)) {
    try {
      return await connection.docker.createContainer({
        name,
        Image: image,
        Entrypoint: ['/never-started'],
        Labels: labelsOf(project, 'carrier'),
        NetworkDisabled: true,
        HostConfig: {
          NetworkMode: 'none',
          CapDrop: ['ALL'],
          SecurityOpt: ['no-new-privileges'],
          Mounts: volumes.map((volume) => ({
            Type: 'volume',
            Source: volume,
            Target: mountOf(volume),
            VolumeOptions,
          })),
        },
      });
    } catch (error) {
      // An image may be removed between our look and our call; the next one does as well.
      if (!isStatus(error, 404)) throw error;
      last = error;
    }
  }
  throw imageMissing('any', last === undefined ? 'the engine has no image at all' : answerOf(last).message);
}

/**
 * Images a carrier could be made from, the project's own first. Those that declare volumes come last: each carrier of
 * such an image brings an anonymous volume along.
 */
async function carrierImages({ docker }: Connection, project: string): Promise<string[]> {
  const filters = { label: [`${label.project}=${project}`] };
  const [containers, images] = await Promise.all([
    docker.listContainers({ all: true, filters }),
    docker.listImages(),
  ]);
  // The oldest first: a young one is rather somebody's who is about to remove it.
  const others = images.map(({ Id }) => Id).reverse();
  const candidates = [...new Set([...containers.map(({ ImageID }) => ImageID), ...others])];
  const withVolumes: string[] = [];
  for (const id of candidates) {
    const info = await orNull(docker.getImage(id).inspect());
    if (info === null) continue;
    if (Object.keys(info.Config?.Volumes ?? {}).length === 0) return [id, ...withVolumes, ...candidates];
    withVolumes.push(id);
  }
  return withVolumes;
}

async function readFolder(
  connection: Connection,
  carrier: string,
  path: string,
): Promise<Map<string, Uint8Array>> {
  const container = connection.docker.getContainer(carrier);
  try {
    // The last "/." makes Docker follow a link to a folder, and refuse a file.
    const folder = `${path.replace(/\/+$/, '')}/.`;
    return await filesOf((await container.getArchive({ path: folder })) as Readable, 0);
  } catch (error) {
    const noFolder = isStatus(error, 404) && !/no such container/i.test(answerOf(error).message);
    if (noFolder || /not a directory/i.test(answerOf(error).message)) return new Map();
    throw error;
  }
}

async function removeCarriersOf(connection: Connection, project: string, volume: string): Promise<void> {
  const filters = { label: [`${label.project}=${project}`, `${label.role}=carrier`], volume: [volume] };
  for (const { Id } of await connection.docker.listContainers({ all: true, filters }))
    await removeById(connection, Id);
}
