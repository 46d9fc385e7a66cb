/**
 * The middle of every verb that moves releases: lock, foundation, observe, plan, run, result. Promises that nothing that
 * runs is touched before the plan is shown, except for a part of the foundation that is missing: it is put right first.
 */
import { realClock } from '../clock.ts';
import type { Engine, Lock } from '../engine/port.ts';
import { isOpsError, OpsError } from '../errors.ts';
import { isBundledTag } from '../images/bundled.ts';
import { pullTold } from '../images/pull.ts';
import { openJournal } from '../record/journal.ts';
import { type ProjectRecord, readRecord } from '../record/record.ts';
import { planImages } from '../release/foundation.ts';
import type { FoundationStep, Plan, Release, ReleaseStep, SchemaWork, World } from '../release/model.ts';
import { originOfImage } from '../release/origin.ts';
import type { ProxyBase, RunningAct } from '../runner/act.ts';
import { fleetsOf } from '../runner/fleet.ts';
import { noSchemaWork, observe } from '../runner/observe.ts';
import type { Outside } from '../runner/outside.ts';
import { type Runner, runPlan, runSteps } from '../runner/run.ts';
import type { Context, EnvFile, Outcome } from './context.ts';
import { lookAtSchema, migrationsDir, type ProjectDatabase, projectDatabase } from './database/database.ts';
import {
  layFoundation,
  type ObservedFoundation,
  observeFoundation,
  proxyBase,
  type Request,
} from './foundation.ts';
import { doorOf, nothingThere, playersOf, withLock } from './project.ts';
import { releaseInputs } from './release-inputs.ts';
import { actText, attachResult, resultOf } from './result.ts';

/** What is known and ready before the lock is taken. */
export interface Prepared {
  env: EnvFile;
  request: Request;
  foundation: ObservedFoundation;
  runner: Runner;
}

interface Decision {
  plan: Plan<ReleaseStep>;
  heading: string;
}

/** Observes and decides, under the lock and on a foundation that is complete. */
export type Decide = (act: RunningAct, database: ProjectDatabase) => Promise<Decision>;

/** @throws what `runPlan` throws, with the result so far */
export async function runAct(context: Context, prepared: Prepared, decide: Decide): Promise<Outcome> {
  const began = Date.now();
  return withLock(context, prepared.foundation.roles.nginx.ref, async (lock) => {
    const { act, database, close } = await openAct(context, prepared, lock);
    try {
      const { plan, heading } = await decide(act, database);
      const { engine } = act.outside;
      const lost = await findLost(engine, context.project, plan, act.record.releases);
      const first = planLost(lost);
      context.emit({ type: 'plan', plan: { ...plan, steps: [...first, ...plan.steps] }, heading });
      const result = () => resultOf(context, act, plan, began);
      const failure = await runSteps(act, first, () => pullLost(engine, lost, context));
      if (failure) throw attachResult(failure.error, result());
      await runPlan(act, plan).catch((error) => {
        throw attachResult(error, result());
      });
      return { ok: true, result: result(), text: (style) => actText(style, result()) };
    } finally {
      close();
    }
  });
}

interface OpenAct {
  act: RunningAct;
  database: ProjectDatabase;
  close(): void;
}

async function openAct(context: Context, prepared: Prepared, lock: Lock): Promise<OpenAct> {
  const { env, request, foundation } = prepared;
  const runner = { ...prepared.runner, lockLost: lock.lost };
  const { journal } = runner;
  try {
    const record = await layFoundation(context, runner, env, request, foundation);
    const { outside, proxy } = await openOutside(context, env, record);
    const dir = migrationsDir(context, originOfImage(request.image));
    const database = projectDatabase(context, outside.engine, env, dir);
    const act = runningAct(context, runner, { outside: { ...outside, database }, record, proxy });
    const close = () => {
      outside.players.close();
      journal.close();
    };
    return { act, database, close };
  } catch (error) {
    journal.close();
    throw error;
  }
}

// On a project that is there already ------------------------------------------------------------------------------

type DecideOnWorld = (
  act: RunningAct,
  world: World,
  given: { env: EnvFile; database: ProjectDatabase },
) => Promise<Decision>;

/** For rollback, resume, abort and rotations. @throws RELEASE_UNKNOWN when nothing was ever deployed here */
export async function actOnProject(context: Context, decide: DecideOnWorld): Promise<Outcome> {
  const record = await readRecord(await context.engine(), context.project);
  if (!record) throw nothingThere(context);
  const request = requestOf(record);
  const env = context.readEnv(request.image);
  const foundation = await observeFoundation(context, env, request);
  const runner = runnerOf(context);
  return runAct(context, { env, request, foundation, runner }, async (act, database) => {
    const work = await workLeft(context, act.record, database);
    const { world } = await observe(act.outside, act.record, work);
    return decide(act, world, { env, database });
  });
}

/** The database is asked only when the act needs it: neither backing out nor going back waits for a database. */
async function workLeft(
  context: Context,
  { intent }: ProjectRecord,
  database: ProjectDatabase,
): Promise<SchemaWork> {
  const goesOn = intent !== null && intent.stage !== 'condemned' && context.verb !== 'abort';
  // A rollback brings a wish of its own, which replaces the recorded one.
  if (!goesOn || context.verb === 'rollback') return noSchemaWork;
  if (intent.verb === 'deploy' && intent.stage === 'open' && context.verb === 'resume')
    return (await lookAtSchema(database, intent)).work;
  return { ...noSchemaWork, wish: await database.wishLeft(intent) };
}

/** What was asked for last, whatever gameops.yaml says today: an image may have been named on the command line. */
export function requestOf(record: ProjectRecord): Request {
  const newest = record.releases.at(-1);
  const image = newest && !isBundledTag(newest.imageRef) ? newest.imageRef : 'bundled';
  return { image, replicas: newest?.replicas ?? 1 };
}

// What an act is made of ------------------------------------------------------------------------------------------

/** Runs steps before the lock is taken; `openAct` gives it the lock's signal. */
export function runnerOf(context: Context): Runner {
  const complain = (message: string) => context.emit({ type: 'note', level: 'warning', message });
  const who = { project: context.project, verb: context.verb, by: context.operator };
  return {
    project: context.project,
    outside: { clock: realClock },
    record: null,
    emit: context.emit,
    journal: openJournal(context.stateDir, who, complain),
    signal: context.signal,
    lockLost: new AbortController().signal,
    interruptedBy: context.interruptedBy,
    steps: [],
  };
}

async function openOutside(
  context: Context,
  env: EnvFile,
  record: ProjectRecord,
): Promise<{ outside: Omit<Outside, 'database'>; proxy: ProxyBase }> {
  const engine = await context.engine();
  const [door, players, network] = await Promise.all([
    doorOf(context, engine, record),
    playersOf(context, engine, env),
    engine.ensureNetwork(context.project),
  ]);
  return {
    outside: { engine, door, players, inputs: releaseInputs(context, env), clock: realClock },
    proxy: proxyBase(context, record, network),
  };
}

function runningAct(
  context: Context,
  runner: Runner,
  parts: Pick<RunningAct, 'outside' | 'record' | 'proxy'>,
): RunningAct {
  return {
    ...runner,
    ...parts,
    by: context.operator,
    pages: new Set(),
    probes: { http: { sent: 0, failed: 0 }, ws: { sent: 0, failed: 0 } },
    schema: { backup: null, applied: [], reverted: [], rescued: [], undo: null },
    players: { online: null, moved: null, closed: null, lost: null },
  };
}

// Images that are gone from the engine ----------------------------------------------------------------------------

export type Lost = Release & { digestRef: string };

/**
 * Releases that the plan starts new containers of although their image is missing. Kept containers start without it.
 * @throws IMAGE_NOT_FOUND for an image that never was in a registry
 */
export async function findLost(
  engine: Engine,
  project: string,
  plan: Plan<ReleaseStep>,
  known: readonly Release[],
): Promise<Lost[]> {
  const started = new Map<number, number[]>();
  for (const step of plan.steps) {
    if (step.kind !== 'start-fleet') continue;
    started.set(step.release, [...(started.get(step.release) ?? []), ...step.replicas]);
  }
  const opened = plan.steps.flatMap((step) => (step.kind === 'open' ? [step.candidate] : []));
  const releases = [...opened, ...known.filter(({ id }) => !opened.some((one) => one.id === id))];
  const lost = await Promise.all(
    releases.map(async (release) => {
      const replicas = started.get(release.id);
      if (!replicas || (await engine.image(release.image))) return [];
      const [fleet] = fleetsOf(await engine.observe(project, release.id), [release]);
      const isKept = (n: number) => fleet?.replicas.some((one) => one.n === n && one.current);
      return replicas.every(isKept) ? [] : [release];
    }),
  );
  return lost.flat().map(againByDigest);
}

function againByDigest(release: Release): Lost {
  const { id, imageRef, image, digestRef } = release;
  if (digestRef !== null) return { ...release, digestRef };
  throw new OpsError('IMAGE_NOT_FOUND', {
    message: `The image of release ${id} (${imageRef}) is not on the engine any more, and it was never in a registry. Nothing that runs was touched; players are where they were.`,
    next: ['gameops rollback --to <another release>', 'gameops releases'],
    facts: { release: id, image },
  });
}

export const planLost = (lost: readonly Lost[]): FoundationStep[] =>
  planImages({ missingImages: lost.map(({ digestRef }) => digestRef), imageToBuild: null });

/** @throws what a pull throws, naming the release */
export async function pullLost(engine: Engine, lost: readonly Lost[], context: Context): Promise<void> {
  for (const { id, digestRef } of lost) {
    await pullTold(engine, digestRef, context).catch((error: unknown) => {
      if (!isOpsError(error)) throw error;
      throw new OpsError(error.code, {
        message: `The image of release ${id} is not on the engine any more. ${error.message}`,
        next: [error.next[0], ...error.next.slice(1), 'gameops releases'],
        facts: { ...error.facts, release: id },
        cause: error,
      });
    });
  }
}
