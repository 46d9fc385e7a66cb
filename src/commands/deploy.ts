/** gameops deploy: intent → world → plan → run → result. */
import { parseBytes, parseDurationMs } from '../config.ts';
import { listMigrations } from '../database/migration-files.ts';
import { digestRefOf } from '../engine/images-pull.ts';
import { checkRoom } from '../engine/images-room.ts';
import type { Intent, Plan, Release, World } from '../release/model.ts';
import { planAct } from '../release/plan.ts';
import { liveRelease } from '../release/position.ts';
import { causeOf, newCandidate } from '../runner/candidate.ts';
import { observe } from '../runner/observe.ts';
import { newRecord, type ProjectRecord } from '../runner/record.ts';
import { shortId } from '../units.ts';
import { headingOf, planOutcome } from './act.ts';
import type { Context, EnvFile, Outcome } from './context.ts';
import { foundationSteps, observeFoundation, protocolOf, type Supply, supplyImages } from './foundation.ts';
import type { DeployOptions } from './options.ts';
import { preflight } from './preflight.ts';
import { migrationsDir, readProject, runnerOf, schemaOf } from './project.ts';
import { runAct } from './run-act.ts';
import { findPage, hashPage } from './supplies.ts';
import { untilQuiet } from './when-quiet.ts';

export async function run(context: Context, options: DeployOptions): Promise<Outcome> {
  const request = {
    image: options.image ?? context.config.server.image,
    replicas: options.replicas ?? context.config.server.replicas,
  };
  const env = context.readEnv(request.image);
  if (options.whenQuiet !== undefined && !options.plan) await untilQuiet(context, options.whenQuiet);
  const supply = await observeFoundation(context, env, request);
  await preflight(context, request, supply);
  if (options.plan) return showPlan(context, env, options, request, supply);

  const runner = runnerOf(context, new AbortController().signal);
  const supplied = await supplyImages(context, runner, env, request, supply);
  await refuseWithoutRoom(context, options, request.replicas, supplied);
  return runAct(context, { env, request, supply: supplied, runner }, async (session) => {
    const pending = options.skipMigrations ? [] : await session.ports.schema.pending();
    const { world } = await observe(session.ports, session.record, pending);
    const candidate = candidateOf(context, env, session.record, request, supplied);
    const plan = planFor(context, options, world, candidate);
    if (plan.steps.length === 0) tellWhichImage(context, options, candidate);
    return { plan, heading: headingOf(plan, world, candidate.replicas) };
  });
}

/** What the engine has counts, so a tag that moved in its registry changes nothing by itself. */
function tellWhichImage({ emit }: Context, options: DeployOptions, { imageRef, image, digestRef }: Release) {
  if (digestRef === null || imageRef.includes('@')) return;
  const fetch =
    options.image === undefined ? 'gameops images prepare --source registry' : `docker pull ${imageRef}`;
  const message = `${imageRef} is ${shortId(image)} on the engine; if that tag moved in its registry: ${fetch}, then deploy`;
  emit({ type: 'note', level: 'info', message });
}

async function showPlan(
  context: Context,
  env: EnvFile,
  options: DeployOptions,
  request: { image: string; replicas: number },
  supply: Supply,
): Promise<Outcome> {
  const { record, observed } = await readProject(context);
  const known = record ?? newRecord(context.project);
  const empty: World = {
    releases: [],
    fleets: [],
    traffic: { routes: [], settled: true },
    intent: null,
    pendingMigrations: [],
  };
  const world = observed?.world ?? empty;
  const pending = options.skipMigrations
    ? []
    : await pendingNow(context, env, request.image === 'bundled', supply);
  const candidate = candidateOf(context, env, known, request, supply);
  const plan = planFor(context, options, { ...world, pendingMigrations: pending }, candidate);
  const whole: Plan = { ...plan, steps: [...foundationSteps(supply), ...plan.steps] };
  return planOutcome(whole, headingOf(plan, world, candidate.replicas));
}

/** Where the database is still to be made, everything is pending. */
async function pendingNow(
  context: Context,
  env: EnvFile,
  isBundled: boolean,
  supply: Supply,
): Promise<string[]> {
  const dir = migrationsDir(context, isBundled);
  if (!supply.state.missingAccessories.includes('postgres')) {
    return schemaOf(context, await context.engine(), env, dir).pending();
  }
  const files = dir === null ? [] : await listMigrations(dir);
  return files.filter((one) => one.phase === 'expand').map((one) => one.name);
}

function candidateOf(
  context: Context,
  env: EnvFile,
  record: ProjectRecord,
  request: { image: string; replicas: number },
  supply: Supply,
): Release {
  const isBundled = request.image === 'bundled';
  const info = supply.game?.info;
  return newCandidate(record, {
    config: context.config,
    values: env.values,
    image: {
      id: info?.id ?? '',
      ref: supply.game?.ref ?? supply.state.imageToBuild ?? request.image,
      protocol: info ? protocolOf(info) : isBundled ? 'gameops' : null,
      digestRef: info && supply.game ? digestRefOf(supply.game.ref, info) : null,
      user: info?.user ?? '',
    },
    page: hashPage(findPage(context, isBundled)),
    replicas: request.replicas,
    by: context.operator,
    at: new Date().toISOString(),
  });
}

function planFor(context: Context, options: DeployOptions, world: World, candidate: Release) {
  const { deploy } = context.config;
  const intent: Intent = {
    verb: 'deploy',
    strategy: options.strategy ?? deploy.strategy,
    release: candidate.id,
    previous: null,
    readyMs: parseDurationMs(deploy.ready) ?? 60_000,
    watchMs: options.watchMs ?? parseDurationMs(deploy.watch) ?? 30_000,
    drainMs: options.drainMs ?? parseDurationMs(deploy.drain) ?? 300_000,
    keep: deploy.keep,
    formerly: null,
    stage: 'open',
    verdict: 'failed',
    reason: null,
    startedAt: candidate.createdAt,
    by: context.operator,
  };
  const cause = causeOf(candidate, liveRelease(world));
  return planAct(world, intent, { candidate, cause, again: options.again === true });
}

async function refuseWithoutRoom(
  context: Context,
  options: DeployOptions,
  replicas: number,
  supply: Supply,
): Promise<void> {
  const strategy = options.strategy ?? context.config.deploy.strategy;
  const overlap = strategy === 'rolling' ? 1 + Math.ceil(replicas / 4) / replicas : 2;
  await checkRoom(await context.engine(), {
    project: context.project,
    image: supply.roles.nginx.ref,
    replicas,
    fleets: overlap,
    memoryBytes: parseBytes(context.config.server.memory) ?? 0,
  });
}
