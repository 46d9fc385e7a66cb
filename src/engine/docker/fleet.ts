/**
 * Fleets: the replicas of one release, each at an address of its own for its container's life.
 * Promises that an address is never handed out while any container of the project, running or stopped, is labelled
 * with it, and that replicas which were not named are left alone.
 */
import type Docker from 'dockerode';
import { label, namesOf } from '../../contract.ts';
import { engineFailed, noAddress } from '../failures.ts';
import type { ContainerSpec, Engine, FleetSpec } from '../port.ts';
import { fleetLabel, identityLabels, replicaSpec } from '../spec.ts';
import { leaseAddress } from '../subnet.ts';
import { type Connection, inParallel, orDone, ownContainer, removeById } from './client.ts';
import { createAndStart, startExisting } from './containers.ts';
import { ownNetwork } from './network.ts';

/** More at once only makes the engine's own locks longer. */
const width = 10;

export function fleetVerbs(connection: Connection) {
  return {
    startFleet: (spec: FleetSpec) => startFleet(connection, spec),
    signalFleet: (project: string, release: number, replicas: readonly number[], signal: 'SIGTERM') =>
      inParallel(replicas, width, async (replica) => {
        const info = await ownContainer(connection, project, namesOf(project).game(release, replica));
        // 409: it is not running, so it is drained.
        if (info?.State.Running) await orDone(connection.docker.getContainer(info.Id).kill({ signal }), 409);
      }),
    retireFleet: (
      project: string,
      release: number,
      replicas: readonly number[],
      keep: 'stopped' | 'nothing',
      graceMs: number,
    ) =>
      // Every replica waits out its own grace: a narrow lane here would add the graces up.
      inParallel(replicas, 64, async (replica) => {
        const info = await ownContainer(connection, project, namesOf(project).game(release, replica));
        if (info === null) return;
        await orDone(connection.docker.getContainer(info.Id).stop({ t: Math.ceil(graceMs / 1000) }), 409);
        if (keep === 'nothing') await removeById(connection, info.Id);
      }),
  } satisfies Partial<Engine>;
}

async function startFleet(connection: Connection, fleet: FleetSpec): Promise<void> {
  const network = await ownNetwork(connection, fleet.project);
  if (network === null) throw engineFailed(`network ${fleet.network} does not exist`);
  const hash = fleetLabel(fleet);
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
    return { info, spec: replicaSpec(fleet, replica, addressOf(info)) };
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
  if (usable && existing.Config.Labels[label.spec] === hash) return startExisting(connection, existing);
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
