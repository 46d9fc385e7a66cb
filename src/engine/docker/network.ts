/**
 * The project's network and volumes.
 * Promises one network per project, also when two processes make it at once; never a subnet that the engine or, when
 * the engine is local, this host already routes.
 */
import { readFile } from 'node:fs/promises';
import { networkInterfaces } from 'node:os';
import type Docker from 'dockerode';
import { realClock, until } from '../../clock.ts';
import { label, namesOf, type Role } from '../../contract.ts';
import { foreign, noSubnet } from '../failures.ts';
import type { Engine, NetworkInfo } from '../port.ts';
import { labelsOf } from '../spec.ts';
import { divide, freeSubnets, notReplicas, type Range, rangeOf, routesOf } from '../subnet.ts';
import { type Connection, hasVolume, orDone } from './client.ts';
import { answerOf, isStatus } from './errors.ts';

const attemptsMax = 64;

export function networkVerbs(connection: Connection) {
  return {
    network: (project: string) => ownNetwork(connection, project),
    ensureNetwork: (project: string) => ensureNetwork(connection, project),
    async removeNetwork(project: string) {
      for (const { Id } of own(await listNetworks(connection), project)) {
        await orDone(connection.docker.getNetwork(Id).remove());
      }
    },
    async ensureVolume(project: string, name: string, role: Role, labels: Record<string, string> = {}) {
      if (await hasVolume(connection, project, name)) return;
      await connection.docker.createVolume({ Name: name, Labels: labelsOf(project, role, labels) });
    },
    async volumes(project: string) {
      const listed = await connection.docker.listVolumes({
        filters: { label: [`${label.project}=${project}`] } as never,
      });
      return (listed.Volumes ?? []).map(({ Name }) => Name).sort();
    },
  } satisfies Partial<Engine>;
}

export async function ownNetwork(connection: Connection, project: string): Promise<NetworkInfo | null> {
  const [first] = own(await listNetworks(connection), project);
  return first === undefined ? null : describe(first);
}

async function listNetworks({ docker }: Connection): Promise<Docker.NetworkInspectInfo[]> {
  return docker.listNetworks();
}

/** The project's networks, oldest first: Docker lets two networks have one name. @throws FOREIGN_CONTAINER */
function own(networks: readonly Docker.NetworkInspectInfo[], project: string): Docker.NetworkInspectInfo[] {
  const named = networks.filter(({ Name }) => Name === namesOf(project).network);
  const ours = named.filter(({ Labels }) => Labels?.[label.project] === project);
  if (named.length > 0 && ours.length === 0) throw foreign('network', namesOf(project).network, project);
  return ours.sort((a, b) => (`${a.Created}${a.Id}` < `${b.Created}${b.Id}` ? -1 : 1));
}

function describe(network: Docker.NetworkInspectInfo): NetworkInfo {
  const { Subnet: subnet = '', Gateway, IPRange } = network.IPAM?.Config?.[0] ?? {};
  const { gateway, dynamic } = divide(subnet);
  return {
    name: network.Name,
    subnet,
    notReplicas: notReplicas({ gateway: Gateway ?? gateway, dynamic: IPRange ?? dynamic }),
  };
}

async function ensureNetwork(connection: Connection, project: string): Promise<NetworkInfo> {
  const refused: Range[] = [];
  for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
    // One look for both questions: between two looks another process could make ours, and we would make a second.
    const networks = await listNetworks(connection);
    const [mine] = own(networks, project);
    if (mine !== undefined) return describe(mine);
    const [subnet] = freeSubnets(project, [...(await taken(connection, networks)), ...refused]);
    if (subnet === undefined) break;
    const outcome = await createNetwork(connection, project, subnet);
    if (outcome === 'made') return settle(connection, project);
    if (await appears(connection, project)) continue;
    if (outcome === 'overlap') refused.push(rangeOf(subnet));
  }
  throw noSubnet(project);
}

async function createNetwork(
  connection: Connection,
  project: string,
  subnet: string,
): Promise<'made' | 'overlap' | 'exists'> {
  const { gateway, dynamic } = divide(subnet);
  try {
    await connection.docker.createNetwork({
      Name: namesOf(project).network,
      CheckDuplicate: true,
      Driver: 'bridge',
      IPAM: { Driver: 'default', Config: [{ Subnet: subnet, IPRange: dynamic, Gateway: gateway }] },
      Labels: labelsOf(project, 'network'),
    });
    return 'made';
  } catch (error) {
    const { message } = answerOf(error);
    if (/overlap|conflicts with (?:an )?existing|address already in use|file exists/i.test(message))
      return 'overlap';
    if (isStatus(error, 409) || /already exists/i.test(message)) return 'exists';
    throw error;
  }
}

/** Another process of this project begins at the same subnet, so a refusal may only mean that it was first. */
async function appears(connection: Connection, project: string): Promise<boolean> {
  const seen = await until(realClock, { deadlineMs: 2_000, everyMs: 50 }, async () =>
    own(await listNetworks(connection), project).length > 0 ? true : null,
  );
  return seen === true;
}

/** Removes all but the oldest. The process that looks last sees all of them, and so all processes decide alike. */
async function settle(connection: Connection, project: string): Promise<NetworkInfo> {
  const [oldest, ...younger] = own(await listNetworks(connection), project);
  for (const { Id } of younger) await orDone(connection.docker.getNetwork(Id).remove(), 403);
  return describe(oldest as Docker.NetworkInspectInfo);
}

async function taken(
  connection: Connection,
  networks: readonly Docker.NetworkInspectInfo[],
): Promise<Range[]> {
  const subnets = networks
    .flatMap(({ IPAM }) => IPAM?.Config ?? [])
    .map((config) => config.Subnet)
    .filter((subnet): subnet is string => subnet?.includes('.') === true);
  if (!connection.isLocal) return subnets.map(rangeOf);
  const interfaces = Object.values(networkInterfaces())
    .flat()
    .flatMap((one) => (one?.family === 'IPv4' && one.cidr ? [one.cidr] : []));
  const routes = await readFile('/proc/net/route', 'utf8').catch(() => '');
  return [...[...subnets, ...interfaces].map(rangeOf), ...routesOf(routes)];
}
