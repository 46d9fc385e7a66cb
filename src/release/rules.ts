/**
 * The rule book. `nextStep` looks at a position and names the one thing to do next; each rule below answers for one
 * concern, and their order is the order of a deploy. PURE.
 */
import type { Fleet, Intent, Release, ReleaseId, ReleaseStep, Route, World } from './model.ts';
import {
  findRelease,
  liveRelease,
  type Position,
  replicaKey,
  runningReplicas,
  sameRoutes,
  servedReplicas,
} from './position.ts';
import {
  backupStep,
  type Condemning,
  closeStep,
  commitStep,
  condemnStep,
  drainStep,
  forgetStep,
  migrateStep,
  type Opening,
  openStep,
  quiesceStep,
  readyStep,
  retireStep,
  schemaBackStep,
  startStep,
  switchStep,
  watchStep,
} from './steps.ts';
import { batchSize } from './strategy.ts';

/** What is asked of the planner beside the world. */
export interface Act {
  intent: Intent;
  /** Given when the act begins now; its first step writes it with the intent. */
  opening?: Opening;
  /** Given when the plan is to back out of the act. */
  condemning?: Condemning;
  /** False for a mere repair of the live release: no intent to open or close. */
  recorded: boolean;
}

export function nextStep(position: Position, act: Act): ReleaseStep | null {
  const { world } = position;
  if (isUnopened(world, act) && act.opening) return openStep(act.intent, act.opening);
  const intent = world.intent ?? act.intent;
  // `close` was the last step of a recorded act: no further step belongs to it.
  if (act.recorded && !world.intent) return null;

  if (
    act.condemning &&
    (intent.stage === 'open' || (intent.stage === 'committed' && act.condemning.handsBack))
  )
    return condemnStep(intent, act.condemning);
  const goal = intent.stage === 'condemned' ? intent.previous : intent.release;
  return (
    strays(position, goal, intent) ??
    schemaForward(world, intent) ??
    leavers(position, goal, intent) ??
    halfDrained(position, goal, intent) ??
    arrivals(position, goal, intent) ??
    commitment(position, goal, intent) ??
    (act.recorded ? (schemaBack(world, intent) ?? retention(world, intent) ?? closeStep(intent)) : null)
  );
}

/** Replicas that run but have no part in this act; no player was ever sent to them. First, because they take memory. */
function strays(position: Position, goal: ReleaseId | null, intent: Intent): ReleaseStep | null {
  const { world } = position;
  const known = new Set([goal, intent.release, intent.previous, liveRelease(world)?.id ?? null]);
  for (const fleet of world.fleets) {
    if (known.has(fleet.release) || servedReplicas(world, fleet.release).length > 0) continue;
    const replicas = runningReplicas(world, fleet.release);
    if (replicas.length > 0 && !position.dropped.has(fleet.release))
      return retireStep(fleet.release, replicas, 'left running by an interrupted act');
  }
  return null;
}

/** Replicas that lost their routes: prove the new ones, then drain the old ones, then stop them. One batch at a time. */
function leavers(position: Position, goal: ReleaseId | null, intent: Intent): ReleaseStep | null {
  const { world } = position;
  for (const fleet of world.fleets) {
    if (fleet.release === goal) continue;
    const served = servedReplicas(world, fleet.release);
    const leaving = runningReplicas(world, fleet.release).filter((n) => !served.includes(n));
    if (leaving.length === 0) continue;
    const metPlayers =
      intent.stage !== 'condemned' || position.dropped.has(fleet.release) || (fleet.players ?? 0) > 0;
    if (!metPlayers)
      return retireStep(fleet.release, leaving, 'never had a player; kept stopped for inspection');
    return (
      watchStep(position, goal, intent) ??
      quiesceStep(position, intent) ??
      // Before the last batch drains: from there on only a rollback goes back.
      (isArrived(world, goal) ? commitment(position, goal, intent) : null) ??
      drainStep(position, fleet.release, leaving, intent, playersOn(position, fleet, leaving), goal) ??
      retireStep(
        fleet.release,
        leaving,
        intent.stage === 'condemned' ? 'kept stopped for inspection' : 'kept stopped for rollback',
      )
    );
  }
  return null;
}

/** Their share of the players that the fleet had when it was observed: players are not counted for each replica. */
function playersOn(position: Position, fleet: Fleet, leaving: readonly number[]): number | null {
  const { release, replicas, players } = fleet;
  const had = replicas.filter(({ n, running }) => running || position.drained.has(replicaKey(release, n)));
  return players === null ? null : Math.round((players * leaving.length) / Math.max(1, had.length));
}

/**
 * Backing out of a rolling deploy: replicas that lost their routes are already draining, and a process that drains never
 * takes players again. They are stopped and started again.
 */
function halfDrained(position: Position, goal: ReleaseId | null, intent: Intent): ReleaseStep | null {
  if (intent.stage !== 'condemned' || intent.strategy !== 'rolling' || goal === null || position.isUndrained)
    return null;
  const served = servedReplicas(position.world, goal);
  const leaving = runningReplicas(position.world, goal).filter(
    (n) => !served.includes(n) && !position.started.has(replicaKey(goal, n)),
  );
  if (leaving.length === 0) return null;
  return quiesceStep(position, intent) ?? retireStep(goal, leaving, 'already draining; started again');
}

/** The next batch of the goal's replicas: started, proven, then given its share of the traffic. */
function arrivals(position: Position, goal: ReleaseId | null, intent: Intent): ReleaseStep | null {
  const { world } = position;
  const release = findRelease(world, goal);
  if (!release && goal !== null) throw new Error(`release ${goal} is not on record`);
  if (!release)
    return world.traffic.routes.length > 0
      ? switchStep(world, [], 'no release to serve; Nginx gives the maintenance answer')
      : null;

  const served = servedReplicas(world, release.id);
  const missing = wantedReplicas(release).filter((n) => !served.includes(n));
  const batch = missing.slice(0, batchSize(intent.strategy, release.replicas));
  const down = [...served, ...batch].filter((n) => !isUp(world, release.id, n));
  if (down.length > 0) return startStep(world, release, down);
  const revived = served.filter((n) => position.started.has(replicaKey(release.id, n)));
  // No gate delays the way back: replicas that have been running all the time were serving a moment ago.
  const gated =
    intent.stage === 'condemned'
      ? batch.filter((n) => position.started.has(replicaKey(release.id, n)))
      : batch;
  const unproven = [...revived, ...gated].filter((n) => !position.ready.has(replicaKey(release.id, n)));
  if (unproven.length > 0) return readyStep(release, unproven, intent);

  const routes = routesAfter(world, release, [...served, ...batch]);
  if (sameRoutes(routes, world.traffic.routes) && world.traffic.settled) return null;
  return switchStep(world, routes, switchCause(world, routes, release, intent));
}

/** True before the first step: no intent is on record, and the candidate has not become live in this trace. */
function isUnopened(world: World, act: Act): boolean {
  const candidate = act.opening?.candidate;
  if (!candidate || world.intent) return false;
  return findRelease(world, candidate.id)?.verdict !== 'live';
}

/** The schema that an image needs is there before the image starts. */
function schemaForward(world: World, intent: Intent): ReleaseStep | null {
  const { pending, isFilled } = world.schema;
  const isAsked = intent.verb === 'deploy' && intent.stage === 'open' && !intent.skipMigrations;
  if (!isAsked || pending.length === 0) return null;
  const hasBackup = (findRelease(world, intent.release)?.backup ?? null) !== null;
  if (isFilled && !hasBackup) return backupStep(intent.release, pending);
  return migrateStep(intent.release, world.schema);
}

/** After the traffic: what is reverted was made for the release that was left, and no replica of it runs any more. */
function schemaBack({ schema }: World, intent: Intent): ReleaseStep | null {
  if (schema.wish === null || intent.schema === null || intent.stage !== 'committed') return null;
  return schemaBackStep(schema.wish, intent.previous ?? intent.release);
}

function commitment(position: Position, goal: ReleaseId | null, intent: Intent): ReleaseStep | null {
  if (intent.stage !== 'open' || goal === null) return null;
  return watchStep(position, goal, intent) ?? commitStep(goal, runningOthers(position.world, goal));
}

function retention(world: World, intent: Intent): ReleaseStep | null {
  if (intent.stage !== 'committed') return null;
  const kept = retained(world, intent.keep);
  const old = world.fleets.find((fleet) => !kept.has(fleet.release));
  return old ? forgetStep(old.release, intent.keep) : null;
}

/**
 * Releases whose fleets stay: those that run, those of the act under way, the newest `keep` that served (a rollback can
 * go back to them), and the newest that failed, for inspection.
 */
export function retained(world: World, keep: number): Set<ReleaseId> {
  const { intent } = world;
  const pinned = [liveRelease(world)?.id, intent?.release, intent?.previous];
  const running = world.fleets.filter((fleet) => runningReplicas(world, fleet.release).length > 0);
  const stopped = world.releases
    .filter((release) => world.fleets.some((fleet) => fleet.release === release.id))
    .filter((release) => !pinned.includes(release.id))
    .sort((a, b) => b.id - a.id);
  const served = stopped.filter(({ verdict }) => verdict === 'superseded' || verdict === 'rolled-back');
  const failed = stopped.filter((release) => !served.includes(release));
  const room = Math.max(0, keep - ((intent?.previous ?? null) === null ? 0 : 1));
  const ids = [
    ...pinned,
    ...running.map((fleet) => fleet.release),
    ...[...served.slice(0, room), ...failed.slice(0, 1)].map((release) => release.id),
  ];
  return new Set(ids.filter((id): id is ReleaseId => typeof id === 'number'));
}

const wantedReplicas = (release: Release) =>
  Array.from({ length: release.replicas }, (_, index) => index + 1);

function isUp(world: World, release: ReleaseId, n: number): boolean {
  const replica = world.fleets
    .find((fleet) => fleet.release === release)
    ?.replicas.find((one) => one.n === n);
  return replica?.running === true && replica.current;
}

function isArrived(world: World, goal: ReleaseId | null): boolean {
  const release = findRelease(world, goal);
  return release === undefined || servedReplicas(world, release.id).length >= release.replicas;
}

function runningOthers(world: World, goal: ReleaseId): ReleaseId[] {
  return world.fleets
    .filter((fleet) => fleet.release !== goal && runningReplicas(world, fleet.release).length > 0)
    .map((fleet) => fleet.release);
}

/** The goal's replicas that have arrived, and of every other release the share that has not been replaced yet. */
function routesAfter(world: World, goal: Release, arrived: number[]): Route[] {
  const share = 1 - arrived.length / goal.replicas;
  const others = world.traffic.routes
    .filter((route) => route.release !== goal.id)
    .map((route) => {
      const total = findRelease(world, route.release)?.replicas ?? route.replicas.length;
      const stays = Math.min(route.replicas.length, Math.ceil(total * share));
      return { release: route.release, replicas: stays === 0 ? [] : route.replicas.slice(-stays) };
    });
  const routes = [{ release: goal.id, replicas: [...arrived].sort((a, b) => a - b) }, ...others];
  return routes.filter((route) => route.replicas.length > 0);
}

function switchCause(world: World, routes: Route[], goal: Release, intent: Intent): string {
  if (!world.traffic.settled && sameRoutes(routes, world.traffic.routes))
    return 'Nginx has another configuration on disk than the one it serves';
  if (intent.stage === 'condemned') return `back to ${goal.id}`;
  return `${goal.id} is ready`;
}
