/**
 * Fleets: the replicas of one release, each at an address of its own for its container's life.
 * Promises that an address is never handed out while any container of the project, running or stopped, is labelled
 * with it, and that replicas which were not named are left alone.
 */
import type Docker from 'dockerode';
import { label, namesOf } from '../../contract.ts';
import { engineFailed, noAddress } from '../failures.ts';
import type { ContainerSpec, Engine, FleetFiles, FleetPart, FleetSpec } from '../port.ts';
import { drainSignal, fileMounts, fleetLabel, identityLabels, isSameFleet, replicaSpec } from '../spec.ts';
import { leaseAddress } from '../subnet.ts';
import { type Connection, inParallel, orDone, ownContainer, removeById } from './client.ts';
import { createAndStart, startExisting } from './containers.ts';
import { ownNetwork } from './network.ts';

/** More at once only makes the engine's own locks longer. */
const width = 10;

/** How a fleet's files get in: a volume of the release's own, written before any of its containers starts. */
type Volumes = Pick<Engine, 'ensureVolume' | 'putFiles' | 'readFiles' | 'removeVolume'>;

export function fleetVerbs(connection: Connection, volumes: Volumes) {
  const retireFleet = (fleet: FleetPart, keep: 'stopped' | 'nothing', graceMs: number) =>
    // Every replica waits out its own grace: a narrow lane here would add the graces up.
    inParallel(fleet.replicas, 64, (replica) => retireReplica(connection, fleet, replica, keep, graceMs));
  return {
    async startFleet(fleet: FleetSpec) {
      if (fleet.files) await putFleetFiles(volumes, fleet, fleet.files);
      await startFleet(connection, fleet);
    },
    fleetFiles: (project: string, release: number) =>
      volumes.readFiles(project, namesOf(project).volume.settings(release), ''),
    // The container has the deadline from its environment, and its grace from its making.
    beginDrain: ({ project, release, replicas }: FleetPart) =>
      inParallel(replicas, width, async (replica) => {
        const info = await ownContainer(connection, project, namesOf(project).game(release, replica));
        // 409: it is not running, so it is drained.
        if (info?.State.Running)
          await orDone(connection.docker.getContainer(info.Id).kill({ signal: drainSignal }), 409);
      }),
    retireFleet,
    async forgetFleet(project: string, release: number, graceMs: number) {
      const replicas = await replicasOf(connection, project, release);
      await retireFleet({ project, release, replicas }, 'nothing', graceMs);
      const volume = namesOf(project).volume.settings(release);
      await volumes.removeVolume(project, volume);
      return [...replicas.map((replica) => namesOf(project).game(release, replica)), volume];
    },
  } satisfies Partial<Engine>;
}

async function retireReplica(
  connection: Connection,
  { project, release }: FleetPart,
  replica: number,
  keep: 'stopped' | 'nothing',
  graceMs: number,
): Promise<void> {
  const info = await ownContainer(connection, project, namesOf(project).game(release, replica));
  if (info === null) return;
  await orDone(connection.docker.getContainer(info.Id).stop({ t: Math.ceil(graceMs / 1000) }), 409);
  if (keep === 'nothing') await removeById(connection, info.Id);
}

async function putFleetFiles(
  volumes: Volumes,
  { project, release }: FleetSpec,
  { entries }: FleetFiles,
): Promise<void> {
  const volume = namesOf(project).volume.settings(release);
  await volumes.ensureVolume(project, volume, 'settings', { [label.release]: String(release) });
  await volumes.putFiles(project, volume, entries);
}

/** Numbers of all replicas of a release, in whatever state. */
async function replicasOf({ docker }: Connection, project: string, release: number): Promise<number[]> {
  const filters = {
    label: [`${label.project}=${project}`, `${label.release}=${release}`, `${label.role}=game`],
  };
  const listed = await docker.listContainers({ all: true, filters });
  return listed.map(({ Labels }) => Number(Labels[label.replica])).sort((a, b) => a - b);
}

async function startFleet(connection: Connection, fleet: FleetSpec): Promise<void> {
  const network = await ownNetwork(connection, fleet.project);
  if (network === null) throw engineFailed(`network ${fleet.network} does not exist`);
  const mounts = fileMounts(fleet);
  const hash = fleetLabel(fleet, mounts);
  const taken = await leasedAddresses(connection, fleet.project);
  const existing = await Promise.all(
    fleet.replicas.map((replica) =>
      ownContainer(connection, fleet.project, namesOf(fleet.project).game(fleet.release, replica)),
    ),
  );
  const addressOf = (info: Docker.ContainerInspectInfo | null) => {
    const address = info?.Config.Labels[label.address] ?? leaseAddress(network.subnet, taken);
    if (address === null) throw noAddress(network.subnet);
    taken.add(address);
    return address;
  };
  // Addresses are leased before anything runs in parallel.
  const wanted = fleet.replicas.map((replica, index) => {
    const info = existing[index] ?? null;
    return { info, spec: replicaSpec(fleet, replica, addressOf(info), mounts) };
  });
  await inParallel(wanted, width, ({ info, spec }) => startReplica(connection, spec, hash, info));
}

async function startReplica(
  connection: Connection,
  spec: ContainerSpec,
  hash: string,
  existing: Docker.ContainerInspectInfo | null,
): Promise<void> {
  const usable =
    existing !== null && !existing.State.Dead && (existing.State.Status as string) !== 'removing';
  if (usable && isSameFleet(existing.Config.Labels[label.spec] ?? '', hash))
    return startExisting(connection, existing);
  if (existing !== null) await removeById(connection, existing.Id);
  await createAndStart(connection, spec, identityLabels(spec, hash));
}

async function leasedAddresses(connection: Connection, project: string): Promise<Set<string>> {
  const filters = { label: [`${label.project}=${project}`] };
  const listed = await connection.docker.listContainers({ all: true, filters });
  const addresses = listed.flatMap(({ Labels, NetworkSettings }) => [
    Labels[label.address] ?? '',
    ...Object.values(NetworkSettings?.Networks ?? {}).map((endpoint) => endpoint.IPAddress ?? ''),
  ]);
  return new Set(addresses.filter((address) => address !== ''));
}
