/** gameops deploy: intent → world → plan → run → result. */

import { label } from '../contract.ts';
import { schemaStateOfNewDatabase } from '../database/migrate/pending.ts';
import { checkRoom } from '../engine/capacity.ts';
import type { ImageInfo } from '../engine/port.ts';
import { OpsError } from '../errors.ts';
import { digestRefOf } from '../images/pull.ts';
import { causeOf, newCandidate } from '../operations/candidate.ts';
import type { Context, EnvFile, Outcome } from '../operations/context.ts';
import { refuseEnvErrors, warnOfLostKey } from '../operations/env-gate.ts';
import {
  foundationSteps,
  observeFoundation,
  protocolOf,
  type Supply,
  supplyImages,
} from '../operations/foundation.ts';
import { preflight } from '../operations/preflight.ts';
import { migrationsDir, readProject, runnerOf } from '../operations/project.ts';
import { untilQuiet } from '../operations/quiet.ts';
import { findPage, hashPage } from '../operations/release-inputs.ts';
import { headingOf, planOutcome } from '../operations/result.ts';
import { runAct } from '../operations/run.ts';
import {
  mustFit,
  needsOf,
  ripeContracts,
  schemaAfter,
  statesNeeds,
  usersOf,
} from '../operations/schema/compatibility.ts';
import {
  forwardWork,
  lookAtSchema,
  projectDatabase,
  type SchemaLook,
} from '../operations/schema/schema-port.ts';
import { newRecord, type ProjectRecord } from '../record/record.ts';
import { newIntent } from '../release/intent.ts';
import type { Intent, Plan, Release, SchemaWork, World } from '../release/model.ts';
import { bringsMigrations, planAct } from '../release/plan.ts';
import { liveRelease } from '../release/position.ts';
import { fleetsAtOnce } from '../release/strategy.ts';
import { noSchemaWork, observe } from '../runner/observe.ts';
import { shortId } from '../units.ts';

export interface DeployOptions {
  strategy?: 'blue-green' | 'rolling';
  image?: string;
  replicas?: number;
  plan?: boolean;
  rehearse?: boolean;
  again?: boolean;
  watchMs?: number;
  drainMs?: number;
  skipMigrations?: boolean;
  /** Players. */
  whenQuiet?: number;
}

interface DeployRequest {
  image: string;
  replicas: number;
  skipMigrations: boolean;
}

export async function run(context: Context, options: DeployOptions): Promise<Outcome> {
  const request = {
    image: options.image ?? context.config.server.image,
    replicas: options.replicas ?? context.config.server.replicas,
    skipMigrations: options.skipMigrations === true,
  };
  let env = readGated(context, request.image);
  if (options.rehearse)
    return (await import('../operations/schema/rehearse.ts')).rehearse(context, env, request.image);
  if (options.whenQuiet !== undefined && !options.plan) {
    await untilQuiet(context, options.whenQuiet);
    // Hours later: somebody may have rotated a secret.
    env = readGated(context, request.image);
  }
  const supply = await observeFoundation(context, env, request);
  await preflight(context, request, supply);
  if (options.plan) return showPlan(context, env, options, request, supply);

  const runner = runnerOf(context, new AbortController().signal);
  const supplied = await supplyImages(context, runner, env, request, supply);
  await refuseWithoutRoom(context, options, request.replicas, supplied);
  return runAct(context, { env, request, supply: supplied, runner }, async (act, database) => {
    const look = await lookAtSchema(database, act.record.intent);
    const { world: seen } = await observe(act.outside, act.record);
    refuseBeforeRestore(look.work);
    const candidate = candidateOf(context, env, act.record, request, supplied, look);
    const work = withContracts(context, look, seen, candidate);
    const world = { ...seen, schema: work };
    refuseUnfit(context, options, world, candidate, look, supplied);
    const plan = planFor(context, options, world, candidate);
    warnOfLostKey(context, env, act.record, liveRelease(world));
    if (plan.steps.length === 0) tellWhichImage(context, options, candidate);
    if (plan.steps.some(({ kind }) => kind === 'backup')) await database.mustHaveRoom();
    return { plan, heading: headingOf(plan, world, candidate.replicas) };
  });
}

/** @throws ENV_INVALID, ENV_UNREADABLE */
function readGated(context: Context, image: string): EnvFile {
  const env = context.readEnv(image);
  refuseEnvErrors(context, env, image);
  return env;
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
  request: DeployRequest,
  supply: Supply,
): Promise<Outcome> {
  const { record, observed } = await readProject(context);
  const known = record ?? newRecord(context.project);
  const empty: World = {
    releases: [],
    fleets: [],
    traffic: { routes: [], settled: true },
    intent: null,
    schema: noSchemaWork,
  };
  const world = observed?.world ?? empty;
  const look = await lookNow(context, env, request.image === 'bundled', supply, world.intent);
  const candidate = candidateOf(context, env, known, request, supply, look);
  const planned = { ...world, schema: withContracts(context, look, world, candidate) };
  refuseUnfit(context, options, planned, candidate, look, supply);
  const plan = planFor(context, options, planned, candidate);
  warnOfLostKey(context, env, known, liveRelease(world));
  const whole: Plan = { ...plan, steps: [...foundationSteps(supply), ...plan.steps] };
  return planOutcome(whole, headingOf(plan, world, candidate.replicas));
}

/** Where the database is still to be made, everything is pending. */
async function lookNow(
  context: Context,
  env: EnvFile,
  isBundled: boolean,
  supply: Supply,
  intent: Intent | null,
): Promise<SchemaLook> {
  const dir = migrationsDir(context, isBundled);
  if (!supply.state.missingAccessories.includes('postgres'))
    return lookAtSchema(projectDatabase(context, await context.engine(), env, dir), intent);
  const state = await schemaStateOfNewDatabase(dir);
  return { state, work: forwardWork(state, null) };
}

/** Contract migrations come along once no release that runs or is kept uses what they remove. */
function withContracts({ emit }: Context, look: SchemaLook, world: World, candidate: Release): SchemaWork {
  const { state, work } = look;
  if (state === null) return work;
  const ripe = ripeContracts(state, world, candidate.migrations);
  const waiting = state.pending.contract.filter((name) => !ripe.includes(name));
  const users = waiting.slice(0, 1).flatMap((name) => usersOf(name, world).map(({ id }) => id));
  if (waiting.length > 0) {
    const who = users.length > 0 ? `release ${users.join(', ')}` : 'a release that knows them';
    const message = `${waiting.length} contract migration(s) wait for ${who}${users.length > 0 ? ' to be gone' : ''}: ${waiting.join(', ')}`;
    emit({ type: 'note', level: 'info', message });
  }
  return forwardWork(state, work.wish, ripe);
}

/** What will be pending in a database that is still to be restored, nobody knows yet. @throws UNFINISHED */
function refuseBeforeRestore({ wish }: SchemaWork): void {
  if (wish?.kind !== 'restore') return;
  throw new OpsError('UNFINISHED', {
    message: `A rollback is still to restore the backup ${wish.backup}. Nothing was changed; players are where they were.`,
    next: ['gameops resume', 'gameops abort: leaves the database as it is', 'then gameops deploy'],
    facts: { backup: wish.backup },
  });
}

/** @throws IMAGE_TOO_OLD, SCHEMA_TOO_OLD */
function refuseUnfit(
  { emit }: Context,
  { skipMigrations = false }: DeployOptions,
  world: World,
  candidate: Release,
  { state }: SchemaLook,
  { game }: Supply,
): void {
  if (state === null) return;
  const work = world.schema;
  const isStated = isStatedBy(candidate.protocol, game?.info);
  const schema = schemaAfter(state, skipMigrations ? { ...work, pending: [], contracts: [] } : work);
  const needed = candidate.migrations?.needs ?? '';
  const why = !work.pending.includes(needed)
    ? 'which is neither applied nor in the folder of migrations'
    : isStated
      ? 'which is pending and stays so (--skip-migrations)'
      : null;
  mustFit(candidate, schema, world, { why, next: ['gameops deploy', 'gameops db status'] });
  if (!skipMigrations || work.pending.length === 0) return;
  const message = `left pending: ${work.pending.join(', ')}`;
  emit({ type: 'note', level: 'warning', message });
}

/** Else it is the folder beside it that says what it needs, and the image may well do without. */
const isStatedBy = (protocol: string | null, info: ImageInfo | undefined): boolean =>
  protocol !== null || (info !== undefined && statesNeeds(info));

function candidateOf(
  context: Context,
  env: EnvFile,
  record: ProjectRecord,
  request: DeployRequest,
  supply: Supply,
  { state }: SchemaLook,
): Release {
  const isBundled = request.image === 'bundled';
  const info = supply.game?.info;
  const protocol = info ? protocolOf(info) : isBundled ? 'gameops' : null;
  const doesWithout = request.skipMigrations && !isStatedBy(protocol, info);
  const applied = doesWithout ? (state?.applied ?? null) : null;
  return newCandidate(record, {
    config: context.config,
    values: env.values,
    image: {
      id: info?.id ?? '',
      ref: supply.game?.ref ?? supply.state.imageToBuild ?? request.image,
      protocol,
      unixSocket: info ? info.labels[label.unixSocket] !== undefined : isBundled,
      migrations: needsOf(info ?? null, state?.files ?? [], applied),
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
  const intent = newIntent({
    verb: 'deploy',
    strategy: options.strategy ?? deploy.strategy,
    release: candidate.id,
    readyMs: deploy.readyMs,
    watchMs: options.watchMs ?? deploy.watchMs,
    drainMs: options.drainMs ?? deploy.drainMs,
    keep: deploy.keep,
    skipMigrations: options.skipMigrations === true,
    startedAt: candidate.createdAt,
    by: context.operator,
  });
  const cause = causeOf(candidate, liveRelease(world), bringsMigrations(intent, world.schema));
  return planAct(world, intent, { candidate, cause, again: options.again === true });
}

async function refuseWithoutRoom(
  context: Context,
  options: DeployOptions,
  replicas: number,
  supply: Supply,
): Promise<void> {
  const strategy = options.strategy ?? context.config.deploy.strategy;
  await checkRoom(await context.engine(), {
    project: context.project,
    image: supply.roles.nginx.ref,
    replicas,
    fleets: fleetsAtOnce(strategy, replicas),
    memoryBytes: context.config.server.memoryBytes,
  });
}
