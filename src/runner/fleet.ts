/** How a release becomes containers. Pure: the same release always gives the same specification, on any machine. */

import { gameUid, identityEnv, label, namesOf, path, unixSocketFile } from '../contract.ts';
import type { FileEntry, FleetSpec, ObservedContainer } from '../engine/port.ts';
import type { Reach } from '../proxy/generation.ts';
import type { Fleet, Release } from '../release/model.ts';
import { originOfRelease } from '../release/origin.ts';

/** A replica that is stopped after its drain is killed after this. */
export const stopGraceMs = 10_000;

export function fleetSpec(
  project: string,
  release: Release,
  replicas: readonly number[],
  settings: Record<string, string>,
  { unixSockets = false }: { unixSockets?: boolean } = {},
): FleetSpec {
  const { shape } = release;
  const { volume } = namesOf(project);
  const onSocket = unixSockets && release.unixSocket;
  const user = shape.user ?? (originOfRelease(release) === 'bundled' ? `${gameUid}:${gameUid}` : null);
  return {
    project,
    release: release.id,
    network: namesOf(project).network,
    replicas,
    image: { id: release.image, digestRef: release.digestRef },
    files: { folder: path.settings, entries: [settingsFile(release, settings)] },
    drainMs: release.drainMs,
    container: {
      ...(user === null ? {} : { user }),
      env: {
        ...(shape.settingsAs === 'env' ? settings : {}),
        [identityEnv.project]: project,
        [identityEnv.release]: String(release.id),
        [identityEnv.replica]: '{replica}',
        [identityEnv.drainMs]: String(release.drainMs),
        ...(onSocket ? { [identityEnv.unixSocket]: unixSocketFile(release.id, '{replica}') } : {}),
      },
      labels: {
        [label.fingerprint]: release.fingerprint,
        ...(onSocket ? { [label.onUnixSocket]: '1' } : {}),
      },
      mounts: onSocket ? [{ volume: volume.unixSockets, path: path.unixSockets, readOnly: false }] : [],
      tmpfs: ['/tmp'],
      memoryBytes: shape.memoryBytes,
      cpus: shape.cpus,
      readOnlyRoot: shape.readOnlyRoot,
      capabilities: shape.capabilities,
      restart: 'unless-stopped',
    },
  };
}

/** The settings as one file that only the server's user may read; an image user known by name only needs 0444. */
export function settingsFile(release: Release, settings: Record<string, string>): FileEntry {
  const uid =
    release.shape.user === null
      ? originOfRelease(release) === 'bundled'
        ? gameUid
        : null
      : Number.parseInt(release.shape.user, 10);
  const owner = uid === null || Number.isNaN(uid) ? { mode: 0o444 } : { mode: 0o400, uid, gid: uid };
  return { path: 'settings.json', content: JSON.stringify(settings), ...owner };
}

export function fleetsOf(containers: readonly ObservedContainer[], releases: readonly Release[]): Fleet[] {
  const fleets = new Map<number, Fleet>();
  for (const container of gameContainers(containers)) {
    const id = releaseOf(container);
    const release = releases.find((one) => one.id === id);
    const fleet = fleets.get(id) ?? { release: id, replicas: [], players: null };
    fleet.replicas.push({
      n: replicaOf(container),
      running: isRunning(container),
      current: container.labels[label.fingerprint] === release?.fingerprint,
    });
    fleets.set(id, fleet);
  }
  for (const fleet of fleets.values()) fleet.replicas.sort((a, b) => a.n - b.n);
  return [...fleets.values()].sort((a, b) => a.release - b.release);
}

export const gameContainers = (containers: readonly ObservedContainer[]) =>
  containers.filter((container) => container.role === 'game');
export const releaseOf = (container: ObservedContainer) => Number(container.labels[label.release]);
export const replicaOf = (container: ObservedContainer) => Number(container.labels[label.replica]);
/** An Nginx that is older than this, or on an engine that isolates containers, reaches servers by address alone. */
export const hasUnixSockets = (containers: readonly ObservedContainer[]) =>
  containers.some(({ role, labels }) => role === 'proxy' && labels[label.onUnixSocket] !== undefined);

/** How Nginx comes to a replica. @param unixSockets Nginx has them: it may have lost them since the replica was made */
export function reachOf(container: ObservedContainer, port: number, unixSockets: boolean): Reach {
  const onSocket = unixSockets && container.labels[label.onUnixSocket] !== undefined;
  const unixSocket = onSocket ? unixSocketFile(releaseOf(container), replicaOf(container)) : null;
  return { address: container.address ?? '', port, unixSocket };
}

/** A container that the engine keeps restarting takes memory and players as a running one does. */
export const isRunning = (container: ObservedContainer) =>
  container.state === 'running' || container.state === 'restarting' || container.state === 'paused';
