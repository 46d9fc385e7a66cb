/**
 * The planners. Decide; never perform: anything that awaits belongs in the runner.
 *
 * One rule book serves blue-green (one batch of all replicas) and rolling (several), deploy and rollback, the first
 * run and every resumed one, going forward and backing out: `nextStep` looks at a position and names the one thing to
 * do; a plan is its trace. So nothing has to remember where it was, and a world that needs nothing plans to nothing.
 */
import type { Intent, Plan, Release, ReleaseId, ReleaseStep, Route, World } from './model.ts';
import {
  apply,
  findRelease,
  liveRelease,
  type Position,
  replicaKey,
  runningReplicas,
  sameRoutes,
  servedReplicas,
  startPosition,
} from './position.ts';

/**
 * How long old Nginx workers may still use a keep-alive connection after a reload (`keepalive_min_timeout 5s` in
 * templates/nginx), and a little more. A replica must not go before that.
 */
export const quiesceMs = 5_500;

const deadline = {
  bookkeepingMs: 20_000,
  startMs: 60_000,
  switchMs: 20_000,
  retireMs: 30_000,
  migrateMs: 600_000,
};

/** What is asked of the planner beside the world. */
interface Act {
  intent: Intent;
  /** Given when the act begins now: written with the intent by its first step. */
  opening?: Opening;
  /** Given when the act is to be backed out of. */
  condemning?: { verdict: 'failed' | 'abandoned'; reason: string };
  /** False for a mere repair of the live release: no intent to open or close. */
  recorded: boolean;
}

/** Bounds the trace: a plan that long means that some step does not change the position, which is a bug. */
const stepsMax = 1_000;

function trace(start: Position, act: Act): { steps: ReleaseStep[]; end: Position } {
  const steps: ReleaseStep[] = [];
  let position = start;
  for (let step = nextStep(position, act); step !== null; step = nextStep(position, act)) {
    steps.push(step);
    position = apply(position, step);
    if (steps.length > stepsMax)
      throw new Error(`planner does not end: ${steps.slice(-6).map((one) => one.kind)}`);
  }
  return { steps, end: position };
}

export interface Opening {
  candidate: Release;
  cause: string;
  /** Deploy even when the live release is the same. */
  again: boolean;
}

/** Deploys the candidate, or rolls back to it; finishes or gives up first what an earlier act left unfinished. */
export function planAct(world: World, intent: Intent, opening: Opening): Plan<ReleaseStep> {
  const before = planUnfinished(world, supersededBy(world, opening.candidate));
  const live = liveRelease(before.end);
  const previous = live?.id ?? null;
  if (live && isSameRelease(live, opening.candidate) && !opening.again) {
    const steps = [...before.steps, ...planRepair(before.end)];
    return { verb: intent.verb, release: live.id, previous, steps };
  }
  const act: Act = { intent: { ...intent, previous }, opening, recorded: true };
  const { steps } = trace(startPosition(before.end), act);
  return { verb: intent.verb, release: intent.release, previous, steps: [...before.steps, ...steps] };
}

export function isSameRelease(a: Release, b: Release): boolean {
  return a.fingerprint === b.fingerprint && a.replicas === b.replicas;
}

/** Finishes what the record says is under way; without that, repairs what the live release lacks. */
export function planResume(world: World): Plan<ReleaseStep> {
  const steps = world.intent ? planUnfinished(world, null).steps : planRepair(world);
  const live = liveRelease(world)?.id ?? null;
  const goesForward = world.intent !== null && world.intent.stage !== 'condemned';
  const release = goesForward ? (world.intent?.release ?? null) : (world.intent?.previous ?? live);
  return { verb: 'resume', release, previous: live, steps };
}

/** Backs out of the unfinished act: after a failure, or because the operator said `abort`. */
export function planBackOut(
  world: World,
  condemning: { verdict: 'failed' | 'abandoned'; reason: string },
): Plan<ReleaseStep> {
  const steps = world.intent ? planUnfinished(world, condemning).steps : [];
  return {
    verb: 'back out',
    release: world.intent?.previous ?? null,
    previous: world.intent?.release ?? null,
    steps,
  };
}

/** What the live release lacks: dead replicas, unsettled traffic, strays. Empty when all is as it should be. */
export function planRepair(world: World): ReleaseStep[] {
  const live = liveRelease(world);
  if (!live)
    return unservedFleets(world).map(({ release, replicas }) =>
      retireStep(release, replicas, 'nothing is live'),
    );
  const intent = settledIntent(live);
  return trace(startPosition(world), { intent, recorded: false }).steps;
}

function planUnfinished(
  world: World,
  condemning: Act['condemning'] | null,
): { steps: ReleaseStep[]; end: World } {
  if (!world.intent) return { steps: [], end: world };
  const act: Act = { intent: world.intent, recorded: true, ...(condemning ? { condemning } : {}) };
  const { steps, end } = trace(startPosition(world), act);
  return { steps, end: end.world };
}

/** A new act gives up an unfinished one only while no player ever met its release; else it is finished first. */
function supersededBy(world: World, candidate: Release): Act['condemning'] | null {
  const unfinished = world.intent;
  if (unfinished?.stage !== 'open') return null;
  const begun = findRelease(world, unfinished.release);
  if (begun && isSameRelease(begun, candidate)) return null;
  if (servedReplicas(world, unfinished.release).length > 0 || !world.traffic.settled) return null;
  return {
    verdict: 'abandoned',
    reason: `interrupted before the switch, then superseded by ${candidate.id}`,
  };
}

function unservedFleets(world: World): Route[] {
  return world.fleets
    .filter((fleet) => servedReplicas(world, fleet.release).length === 0)
    .map((fleet) => ({ release: fleet.release, replicas: runningReplicas(world, fleet.release) }))
    .filter((fleet) => fleet.replicas.length > 0);
}

function settledIntent(live: Release): Intent {
  return {
    verb: 'deploy',
    strategy: 'blue-green',
    release: live.id,
    previous: null,
    readyMs: 60_000,
    watchMs: 0,
    drainMs: 300_000,
    keep: Number.POSITIVE_INFINITY,
    stage: 'committed',
    verdict: 'failed',
    reason: null,
    startedAt: '',
    by: '',
  };
}

// The rule book ---------------------------------------------------------------------------------------------------

function nextStep(position: Position, act: Act): ReleaseStep | null {
  const { world } = position;
  const opening = openingStep(world, act);
  if (opening) return opening;
  const intent = world.intent ?? act.intent;
  // `close` was the last step of a recorded act: what follows belongs to nobody.
  if (act.recorded && !world.intent) return null;

  if (act.condemning && intent.stage === 'open') return condemnStep(intent, act.condemning);
  const goal = intent.stage === 'condemned' ? intent.previous : intent.release;
  return (
    strayStep(position, goal, intent) ??
    migrateStep(world, intent) ??
    leaverStep(position, goal, intent) ??
    arrivalStep(position, goal, intent) ??
    commitStep(position, goal, intent) ??
    (act.recorded ? (forgetStep(world, intent) ?? closeStep(intent)) : null)
  );
}

function openingStep(world: World, act: Act): ReleaseStep | null {
  if (!act.opening || world.intent) return null;
  const { candidate, cause } = act.opening;
  // The trace ends with the intent closed again: a candidate that has its verdict needs no second opening.
  if (findRelease(world, candidate.id)?.verdict === 'live') return null;
  return {
    kind: 'open',
    phase: 'prepare',
    release: candidate.id,
    intent: act.intent,
    candidate,
    cause,
    deadlineMs: deadline.bookkeepingMs,
  };
}

function condemnStep(intent: Intent, condemning: NonNullable<Act['condemning']>): ReleaseStep {
  return {
    kind: 'condemn',
    phase: 'prepare',
    release: intent.release,
    ...condemning,
    cause: condemning.reason,
    deadlineMs: deadline.bookkeepingMs,
  };
}

/** Replicas that run although they belong to no part of this act; nobody was ever sent to them. Memory first. */
function strayStep(position: Position, goal: ReleaseId | null, intent: Intent): ReleaseStep | null {
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

function migrateStep(world: World, intent: Intent): ReleaseStep | null {
  if (intent.stage !== 'open' || world.pendingMigrations.length === 0) return null;
  return {
    kind: 'migrate',
    phase: 'prepare',
    migrations: world.pendingMigrations,
    cause: `${world.pendingMigrations.length} pending, additive`,
    deadlineMs: deadline.migrateMs,
  };
}

/** Replicas that lost their routes: prove the new ones, then let players go, then stop. One batch at a time. */
function leaverStep(position: Position, goal: ReleaseId | null, intent: Intent): ReleaseStep | null {
  const { world } = position;
  for (const fleet of world.fleets) {
    if (fleet.release === goal) continue;
    const served = servedReplicas(world, fleet.release);
    const leaving = runningReplicas(world, fleet.release).filter((n) => !served.includes(n));
    if (leaving.length === 0) continue;
    const metPlayers =
      intent.stage !== 'condemned' || position.dropped.has(fleet.release) || (fleet.players ?? 0) > 0;
    if (!metPlayers)
      return retireStep(fleet.release, leaving, 'never met a player; kept stopped for inspection');
    return (
      watchStep(position, goal, intent) ??
      quiesceStep(position, intent) ??
      // The last batch: from its drain on there is no way back but a rollback.
      (isArrived(world, goal) ? commitStep(position, goal, intent) : null) ??
      drainStep(position, fleet.release, leaving, intent, fleet.players) ??
      retireStep(
        fleet.release,
        leaving,
        intent.stage === 'condemned' ? 'kept stopped for inspection' : 'kept stopped for rollback',
      )
    );
  }
  return null;
}

/** The next batch of the goal's replicas: started, proven, then given its share of the traffic. */
function arrivalStep(position: Position, goal: ReleaseId | null, intent: Intent): ReleaseStep | null {
  const { world } = position;
  const release = findRelease(world, goal);
  if (!release)
    return world.traffic.routes.length > 0
      ? switchStep(world, [], 'nothing else to serve: maintenance answer')
      : null;

  const served = servedReplicas(world, release.id);
  const missing = wantedReplicas(release).filter((n) => !served.includes(n));
  const batch = missing.slice(0, batchSize(release, intent));
  const down = [...served, ...batch].filter((n) => !isUp(world, release.id, n));
  if (down.length > 0) return startStep(world, release, down);
  const revived = served.filter((n) => position.started.has(replicaKey(release.id, n)));
  // The way back is never held up by a gate: replicas that have been running all the time were serving a moment ago.
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

function commitStep(position: Position, goal: ReleaseId | null, intent: Intent): ReleaseStep | null {
  if (intent.stage !== 'open' || goal === null) return null;
  const rest = runningOthers(position.world, goal);
  return (
    watchStep(position, goal, intent) ?? {
      kind: 'commit',
      phase: 'settle',
      release: goal,
      cause: rest.length > 0 ? `no way back but a rollback: ${rest.join(', ')} may go` : 'it serves',
      deadlineMs: deadline.bookkeepingMs,
    }
  );
}

function forgetStep(world: World, intent: Intent): ReleaseStep | null {
  if (intent.stage !== 'committed') return null;
  const kept = world.releases
    .filter((release) => release.id !== intent.release && release.id !== intent.previous)
    .sort((a, b) => b.id - a.id)
    .slice(0, Math.max(0, intent.keep - (intent.previous === null ? 0 : 1)))
    .map((release) => release.id);
  const pinned = new Set([intent.release, intent.previous, ...kept]);
  const old = world.fleets.find(
    (fleet) => !pinned.has(fleet.release) && runningReplicas(world, fleet.release).length === 0,
  );
  if (!old) return null;
  return {
    kind: 'forget',
    phase: 'settle',
    release: old.release,
    cause: `older than the ${intent.keep} kept for rollback`,
    deadlineMs: deadline.retireMs,
  };
}

function closeStep(intent: Intent): ReleaseStep {
  return {
    kind: 'close',
    phase: 'settle',
    release: intent.release,
    cause: intent.stage === 'condemned' ? `${intent.verdict}; on record` : 'on record',
    deadlineMs: deadline.bookkeepingMs,
  };
}

// Single steps ----------------------------------------------------------------------------------------------------

function watchStep(position: Position, goal: ReleaseId | null, intent: Intent): ReleaseStep | null {
  if (position.watched || intent.watchMs === 0 || intent.stage !== 'open' || goal === null) return null;
  return {
    kind: 'watch',
    phase: 'switch',
    release: goal,
    forMs: intent.watchMs,
    cause: 'probes through the public address before commitment',
    deadlineMs: intent.watchMs + 30_000,
  };
}

function quiesceStep(position: Position, intent: Intent): ReleaseStep | null {
  const forMs = quiesceMs - position.quietMs;
  if (forMs <= 0) return null;
  const phase = intent.stage === 'open' ? 'switch' : 'settle';
  const cause = 'last requests of old Nginx workers end';
  return { kind: 'quiesce', phase, forMs, cause, deadlineMs: forMs + 10_000 };
}

function startStep(world: World, release: Release, replicas: number[]): ReleaseStep {
  const exists = world.fleets
    .find((fleet) => fleet.release === release.id)
    ?.replicas.some((one) => one.current);
  return {
    kind: 'start-fleet',
    phase: 'prepare',
    release: release.id,
    replicas,
    cause: exists ? 'stopped or missing' : `no fleet for ${release.id}`,
    deadlineMs: deadline.startMs,
  };
}

function readyStep(release: Release, replicas: number[], intent: Intent): ReleaseStep {
  const gate = release.protocol
    ? 'HTTP ready, a WebSocket player can join'
    : `${release.shape.probe} answers 200`;
  return {
    kind: 'await-ready',
    phase: 'prepare',
    release: release.id,
    replicas,
    cause: gate,
    deadlineMs: intent.readyMs,
  };
}

function switchStep(world: World, routes: Route[], cause: string): ReleaseStep {
  return {
    kind: 'switch-traffic',
    phase: 'switch',
    routes,
    from: world.traffic.routes,
    cause,
    deadlineMs: deadline.switchMs,
  };
}

function drainStep(
  position: Position,
  release: ReleaseId,
  replicas: number[],
  intent: Intent,
  players: number | null,
): ReleaseStep | null {
  if (replicas.every((n) => position.drained.has(replicaKey(release, n)))) return null;
  const who = players === null ? 'players unknown' : `${players} player${players === 1 ? '' : 's'} let go`;
  return {
    kind: 'drain',
    phase: 'settle',
    release,
    replicas,
    cause: `${who}, at most ${Math.round(intent.drainMs / 1000)} s`,
    deadlineMs: intent.drainMs,
  };
}

function retireStep(release: ReleaseId, replicas: number[], cause: string): ReleaseStep {
  return { kind: 'retire', phase: 'settle', release, replicas, cause, deadlineMs: deadline.retireMs };
}

// Plain questions -------------------------------------------------------------------------------------------------

const wantedReplicas = (release: Release) =>
  Array.from({ length: release.replicas }, (_, index) => index + 1);

/** Blue-green is one batch; rolling goes by quarters, so that it needs a quarter more memory instead of twice. */
const batchSize = (release: Release, intent: Intent) =>
  intent.strategy === 'rolling' ? Math.ceil(release.replicas / 4) : release.replicas;

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
    return 'what Nginx has on disk is not what it serves';
  if (intent.stage === 'condemned') return `back to ${goal.id}`;
  return `${goal.id} is ready`;
}
