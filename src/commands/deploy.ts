/** gameops deploy: intent → world → plan → run → result. */
import { label } from '../contract.ts';
import { schemaStateOfNewDatabase } from '../database/migrate/pending.ts';
import { checkRoom } from '../engine/capacity.ts';
import { digestRefOf } from '../images/pull.ts';
import { runAct, runnerOf } from '../operations/act.ts';
import type { Context, EnvFile, Outcome } from '../operations/context.ts';
import {
  mustFitSchema,
  needsOf,
  refuseBeforeRestore,
  statesNeeds,
  withContracts,
} from '../operations/database/compatibility.ts';
import {
  forwardWork,
  lookAtSchema,
  migrationsDir,
  projectDatabase,
  type SchemaLook,
} from '../operations/database/database.ts';
import {
  fetchImages,
  foundationSteps,
  type ObservedFoundation,
  observeFoundation,
  preflight,
  protocolOf,
  proxyInputs,
  type Request,
} from '../operations/foundation.ts';
import { readProject, untilQuiet } from '../operations/project.ts';
import {
  causeOf,
  findPage,
  hashPage,
  newCandidate,
  refuseEnvErrors,
  warnOfLostKey,
} from '../operations/release-inputs.ts';
import { headingOf, planOutcome } from '../operations/result.ts';
import { newRecord, type ProjectRecord } from '../record/record.ts';
import { newIntent } from '../release/intent.ts';
import type { Plan, Release, ReleaseStep, World } from '../release/model.ts';
import { originOfImage } from '../release/origin.ts';
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

/** What this call is asked for, and what it works with. */
interface Asked {
  options: DeployOptions;
  request: Request;
  env: EnvFile;
  foundation: ObservedFoundation;
}

export async function run(context: Context, options: DeployOptions): Promise<Outcome> {
  const { server } = context.config;
  const request = { image: options.image ?? server.image, replicas: options.replicas ?? server.replicas };
  let env = readChecked(context, request.image);
  if (options.rehearse) {
    const { rehearse } = await import('../operations/database/rehearse.ts');
    return rehearse(context, env, request.image);
  }
  if (options.whenQuiet !== undefined && !options.plan) {
    await untilQuiet(context, options.whenQuiet);
    // That may have taken hours, in which somebody may have rotated a secret.
    env = readChecked(context, request.image);
  }
  const seen = await observeFoundation(context, env, request);
  await preflight(context, request, seen);
  if (options.plan) return showPlan(context, { options, request, env, foundation: seen });

  const runner = runnerOf(context);
  const foundation = await fetchImages(context, runner, env, request, seen);
  const asked = { options, request, env, foundation };
  await mustHaveRoom(context, asked);
  return runAct(context, { env, request, foundation, runner }, async (act, database) => {
    const look = await lookAtSchema(database, act.record.intent);
    const { world } = await observe(act.outside, act.record);
    refuseBeforeRestore(look.work);
    const { plan, heading, candidate } = decide(context, asked, act.record, world, look);
    if (plan.steps.length === 0) tellWhichImage(context, options, candidate);
    if (plan.steps.some(({ kind }) => kind === 'backup')) await database.mustHaveRoom();
    return { plan, heading };
  });
}

/** @throws ENV_INVALID, ENV_UNREADABLE */
function readChecked(context: Context, image: string): EnvFile {
  const env = context.readEnv(image);
  refuseEnvErrors(context, env, image);
  return env;
}

const emptyWorld: World = {
  releases: [],
  fleets: [],
  traffic: { routes: [], settled: true },
  intent: null,
  schema: noSchemaWork,
};

async function showPlan(context: Context, asked: Asked): Promise<Outcome> {
  const { record, observed } = await readProject(context);
  const world = observed?.world ?? emptyWorld;
  const look = await lookNow(context, asked, world);
  const { plan, heading } = decide(context, asked, record ?? newRecord(context.project), world, look);
  const whole: Plan = { ...plan, steps: [...foundationSteps(asked.foundation), ...plan.steps] };
  return planOutcome(whole, heading);
}

/** Where the database does not exist yet, every migration is pending. */
async function lookNow(context: Context, asked: Asked, { intent }: World): Promise<SchemaLook> {
  const { env, request, foundation } = asked;
  const dir = migrationsDir(context, originOfImage(request.image));
  if (!foundation.state.missingAccessories.includes('postgres'))
    return lookAtSchema(projectDatabase(context, await context.engine(), env, dir), intent);
  const state = await schemaStateOfNewDatabase(dir);
  return { state, work: forwardWork(state, null) };
}

interface Decision {
  candidate: Release;
  plan: Plan<ReleaseStep>;
  heading: string;
}

/** @throws IMAGE_TOO_OLD, SCHEMA_TOO_OLD */
function decide(
  context: Context,
  asked: Asked,
  record: ProjectRecord,
  seen: World,
  look: SchemaLook,
): Decision {
  const { options, env, foundation } = asked;
  const candidate = candidateOf(context, asked, record, look);
  const world = { ...seen, schema: withContracts(context, look, seen, candidate) };
  const skipMigrations = options.skipMigrations === true;
  const isStated = statesNeeds(candidate, foundation.game?.info);
  mustFitSchema(context, candidate, world, look, { skipMigrations, isStated });
  const plan = planFor(context, options, world, candidate);
  warnOfLostKey(context, env, record, liveRelease(world));
  return { candidate, plan, heading: headingOf(plan, world, candidate.replicas) };
}

function candidateOf(
  context: Context,
  { options, request, env, foundation }: Asked,
  record: ProjectRecord,
  { state }: SchemaLook,
): Release {
  const origin = originOfImage(request.image);
  const { game } = foundation;
  const info = game?.info;
  const protocol = info ? protocolOf(info) : origin === 'bundled' ? 'gameops' : null;
  const doesWithout = options.skipMigrations === true && !statesNeeds({ protocol }, info);
  const applied = doesWithout ? (state?.applied ?? null) : null;
  return newCandidate(record, {
    config: context.config,
    values: env.values,
    image: {
      id: info?.id ?? '',
      ref: game?.ref ?? foundation.state.imageToBuild ?? request.image,
      protocol,
      unixSocket: info ? info.labels[label.unixSocket] !== undefined : origin === 'bundled',
      migrations: needsOf(info ?? null, state?.files ?? [], applied),
      digestRef: game ? digestRefOf(game.ref, game.info) : null,
      user: info?.user ?? '',
    },
    page: hashPage(findPage(context, origin)),
    proxy: proxyInputs(context),
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

/** The image on the engine counts: a tag that moved in its registry changes nothing by itself. */
function tellWhichImage({ emit }: Context, options: DeployOptions, { imageRef, image, digestRef }: Release) {
  if (digestRef === null || imageRef.includes('@')) return;
  const fetch =
    options.image === undefined ? 'gameops images prepare --source registry' : `docker pull ${imageRef}`;
  const message = `${imageRef} is ${shortId(image)} on the engine; if that tag has moved in its registry, get the new image with ${fetch}, then deploy`;
  emit({ type: 'note', level: 'info', message });
}

/** @throws MEMORY_TOO_SMALL, DISK_TOO_FULL */
async function mustHaveRoom(context: Context, { options, request, foundation }: Asked): Promise<void> {
  const { project, config } = context;
  const { replicas } = request;
  await checkRoom(await context.engine(), {
    project,
    image: foundation.roles.nginx.ref,
    replicas,
    fleets: fleetsAtOnce(options.strategy ?? config.deploy.strategy, replicas),
    memoryBytes: config.server.memoryBytes,
  });
}
