/**
 * The planners. Decide; never perform: anything that awaits belongs in the runner.
 *
 * One rule book serves blue-green (one batch of all replicas) and rolling (several), deploy and rollback, the first
 * run and every resumed one, going forward and backing out: `nextStep` looks at a position and names the one thing to
 * do; a plan is its trace. So nothing has to remember where it was, and a world that needs nothing plans to nothing.
 */
import { newIntent } from './intent.ts';
import type {
  Intent,
  Plan,
  Release,
  ReleaseId,
  ReleaseStep,
  Route,
  SchemaWish,
  SchemaWork,
  World,
} from './model.ts';
import { originOfRelease } from './origin.ts';
import {
  apply,
  findRelease,
  liveRelease,
  type Position,
  runningReplicas,
  servedReplicas,
  startPosition,
} from './position.ts';
import { type Act, nextStep } from './rules.ts';
import { type Condemning, type Opening, retireStep, schemaBackStep } from './steps.ts';

export type { Opening } from './steps.ts';
export { quiesceMs } from './steps.ts';

/** Bounds the trace: in a plan this long some step does not change the position, which is a bug. */
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

/** Deploys the candidate, or rolls back to it; finishes or gives up first what an earlier act left unfinished. */
export function planAct(world: World, intent: Intent, opening: Opening): Plan<ReleaseStep> {
  const before = planUnfinished(world, supersededBy(world, opening.candidate));
  const live = liveRelease(before.end);
  const previous = live?.id ?? null;
  const isNew = opening.again || bringsMigrations(intent, before.end.schema);
  if (live && isSameRelease(live, opening.candidate) && !isNew) {
    const steps = [...before.steps, ...planRepair(before.end)];
    return { verb: intent.verb, release: live.id, previous, steps };
  }
  const formerly = findRelease(before.end, opening.candidate.id) ?? null;
  const act: Act = { intent: { ...intent, previous, formerly }, opening, recorded: true };
  const { steps } = trace(startPosition(before.end), act);
  return { verb: intent.verb, release: intent.release, previous, steps: [...before.steps, ...steps] };
}

/**
 * Additive migrations are a reason to deploy, also when the release is live already; contract migrations wait for the next
 * deploy. A migration that a given-up rollback still had to revert is not pending.
 */
export function bringsMigrations(
  { verb, skipMigrations }: Pick<Intent, 'verb' | 'skipMigrations'>,
  { pending, contracts, wish }: SchemaWork,
): boolean {
  const stays = wish?.kind === 'take-back' ? wish.migrations : [];
  const brought = pending.filter((name) => !contracts.includes(name) && !stays.includes(name));
  return verb === 'deploy' && !skipMigrations && brought.length > 0;
}

function isSameRelease(a: Release, b: Release): boolean {
  return a.fingerprint === b.fingerprint && a.replicas === b.replicas;
}

/** Finishes the act that the record has under way; without one, repairs what the live release lacks. */
export function planResume(world: World): Plan<ReleaseStep> {
  const steps = world.intent ? planUnfinished(world, null).steps : planRepair(world);
  const live = liveRelease(world)?.id ?? null;
  const goesForward = world.intent !== null && world.intent.stage !== 'condemned';
  const release = goesForward ? (world.intent?.release ?? null) : (world.intent?.previous ?? live);
  return { verb: 'resume', release, previous: live, steps };
}

/**
 * The fleet that players could be handed back to: it lost its routes to an act that is committed, and all its replicas
 * run. null when there is none. Only the fleet itself can say whether it still takes players; an image that does not
 * speak our protocol got its SIGTERM at once and need not say so.
 */
export function fleetBefore({ intent, releases, fleets }: World): Route | null {
  if (intent?.stage !== 'committed') return null;
  const before = releases.find((one) => one.id === intent.previous && originOfRelease(one) === 'bundled');
  const fleet = fleets.find(({ release }) => release === intent.previous);
  const replicas = fleet?.replicas.filter((one) => one.running && one.current).map(({ n }) => n) ?? [];
  return before && replicas.length >= before.replicas ? { release: before.id, replicas } : null;
}

/** Backs out of a committed act, to the fleet that `fleetBefore` names, while that fleet takes players. */
export const planHandBack = (world: World, reason: string): Plan<ReleaseStep> =>
  planBackOut(world, {
    verdict: 'abandoned',
    reason,
    handsBack: true,
    metPlayers: true,
    isUndrained: true,
  });

/** Backs out of the unfinished act: after a failure, or because the operator said `abort`. */
export function planBackOut(world: World, condemning: Condemning): Plan<ReleaseStep> {
  const live = liveRelease(world)?.id ?? null;
  const { intent } = world;
  const steps = intent ? planUnfinished(world, condemning).steps : [];
  return { verb: 'back out', release: intent ? intent.previous : live, previous: live, steps };
}

/**
 * Merges a new rollback request into an unfinished rollback: the schema wish asked now replaces the old one. A rollback
 * to another release leaves the schema to the act that follows. The world is returned as it is when the wish is the same,
 * because part of it may be done already.
 */
export function withNewestWish(world: World, target: ReleaseId, asked: SchemaWish | null): World {
  const { intent } = world;
  if (intent?.verb !== 'rollback' || intent.stage === 'condemned') return world;
  const wish = intent.release === target ? asked : null;
  if (JSON.stringify(intent.schema) === JSON.stringify(wish)) return world;
  return { ...world, intent: { ...intent, schema: wish }, schema: { ...world.schema, wish } };
}

/**
 * A rollback to the release that is live already: an unfinished act ends with that release, then the schema goes back if
 * that was asked.
 * @param left newest release whose migrations are reverted
 */
export function planStay(world: World, wish: SchemaWish | null, left: ReleaseId): Plan<ReleaseStep> {
  const live = liveRelease(world)?.id ?? null;
  const { intent } = world;
  const isAnother = intent?.stage === 'open' && intent.release !== live;
  const { steps } = isAnother
    ? planBackOut(world, { verdict: 'abandoned', reason: `rollback to ${live}` })
    : planResume(world);
  // An act with a schema wish of its own carries it out at its end.
  const isTaken = intent?.release === live && intent?.schema != null;
  const goes = wish === null || isTaken ? [] : [schemaBackStep(wish, left)];
  return { verb: 'rollback', release: live, previous: live, steps: [...steps, ...goes] };
}

/** Repairs the live release: dead replicas, unsettled traffic, strays. Empty when all is as it should be. */
export function planRepair(world: World): ReleaseStep[] {
  const live = liveRelease(world);
  if (!live)
    return unservedFleets(world).map(({ release, replicas }) =>
      retireStep(release, replicas, 'nothing is live'),
    );
  const intent = settledIntent(live);
  return trace(startPosition(world), { intent, recorded: false }).steps;
}

function planUnfinished(world: World, condemning: Condemning | null): { steps: ReleaseStep[]; end: World } {
  if (!world.intent) return { steps: [], end: world };
  const act: Act = { intent: world.intent, recorded: true, ...(condemning ? { condemning } : {}) };
  const { steps, end } = trace(startPosition(world, condemning ?? {}), act);
  return { steps, end: end.world };
}

/** A new act gives up an unfinished one only if no player was ever on its release; otherwise it finishes it first. */
function supersededBy(world: World, candidate: Release): Condemning | null {
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
  return newIntent({
    verb: 'deploy',
    strategy: 'blue-green',
    release: live.id,
    readyMs: 60_000,
    watchMs: 0,
    drainMs: 300_000,
    keep: Number.POSITIVE_INFINITY,
    stage: 'committed',
    startedAt: '',
    by: '',
  });
}
