/** The world: labels, record, Nginx's own answer and player counts, joined. Reads all of it, chooses nothing. */
import type { ObservedContainer } from '../engine/port.ts';
import { type ObservedTraffic, readTraffic } from '../proxy/traffic.ts';
import type { World } from '../release/model.ts';
import { runningReplicas } from '../release/position.ts';
import { fleetsOf } from './fleet.ts';
import type { Ports } from './ports.ts';
import type { ProjectRecord } from './record.ts';

export interface Observed {
  world: World;
  traffic: ObservedTraffic;
  containers: ObservedContainer[];
}

export async function observe(ports: Ports, record: ProjectRecord): Promise<Observed> {
  const { project } = record;
  const [containers, traffic, pendingMigrations] = await Promise.all([
    ports.engine.observe(project),
    readTraffic(ports, project),
    ports.schema.pending(),
  ]);
  const fleets = fleetsOf(containers, record.releases);
  const world: World = {
    releases: record.releases,
    fleets,
    traffic: { routes: traffic.routes, settled: traffic.settled },
    intent: record.intent,
    pendingMigrations,
  };
  const running = fleets.map(({ release }) => ({ release, replicas: runningReplicas(world, release) }));
  const players = await ports.players.online(running.filter((fleet) => fleet.replicas.length > 0));
  return {
    world: { ...world, fleets: fleets.map((fleet) => ({ ...fleet, players: players.get(fleet.release) ?? null })) },
    traffic,
    containers,
  };
}
