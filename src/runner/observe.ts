/** The world: labels, record, Nginx's own answer and player counts, joined. Reads all of it, chooses nothing. */
import type { ObservedContainer } from '../engine/port.ts';
import { type ObservedTraffic, readTraffic } from '../proxy/traffic.ts';
import type { ProjectRecord } from '../record/record.ts';
import type { SchemaWork, World } from '../release/model.ts';
import { runningReplicas } from '../release/position.ts';
import { fleetsOf, gameContainers, hasUnixSockets, reachOf, releaseOf, replicaOf } from './fleet.ts';
import type { Outside } from './outside.ts';

/** A replica, or Nginx, that was removed and made anew may be reached in another way than the one Nginx was told. */
function areThere({ targets }: ObservedTraffic, containers: readonly ObservedContainer[]): boolean {
  const unixSockets = hasUnixSockets(containers);
  return targets.every(({ release, replica, address, port, unixSocket }) =>
    gameContainers(containers).some((one) => {
      if (releaseOf(one) !== release || replicaOf(one) !== replica) return false;
      const reach = reachOf(one, port, unixSockets);
      return reach.address === address && reach.unixSocket === (unixSocket ?? null);
    }),
  );
}

export interface Observed {
  world: World;
  traffic: ObservedTraffic;
  containers: ObservedContainer[];
}

export const noSchemaWork: SchemaWork = { pending: [], contracts: [], isFilled: false, wish: null };

/** @param schema asked once per act by the caller: a lost database must not keep anybody from backing out */
export async function observe(
  outside: Pick<Outside, 'engine' | 'door' | 'players'>,
  record: ProjectRecord,
  schema: SchemaWork = noSchemaWork,
): Promise<Observed> {
  const { project } = record;
  const [containers, traffic] = await Promise.all([
    outside.engine.observe(project),
    readTraffic(outside, project),
  ]);
  const fleets = fleetsOf(containers, record.releases);
  const world: World = {
    releases: record.releases,
    fleets,
    traffic: { routes: traffic.routes, settled: traffic.settled && areThere(traffic, containers) },
    intent: record.intent,
    schema,
  };
  const running = fleets
    .map(({ release }) => [release, runningReplicas(world, release)] as const)
    .filter(([, replicas]) => replicas.length > 0);
  const players = await outside.players.online(new Map(running));
  return {
    world: {
      ...world,
      fleets: fleets.map((fleet) => ({ ...fleet, players: players.get(fleet.release) ?? null })),
    },
    traffic,
    containers,
  };
}
