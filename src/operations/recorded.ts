/** Acting on a project that is there already: rollback, resume, abort. */
import { isBundledTag } from '../images/bundled.ts';
import { type ProjectRecord, readRecord } from '../record/record.ts';
import type { Plan, ReleaseStep, SchemaWork, World } from '../release/model.ts';
import type { RunningAct } from '../runner/act.ts';
import { noSchemaWork, observe } from '../runner/observe.ts';
import type { Context, EnvFile, Outcome } from './context.ts';
import { observeFoundation, type Request } from './foundation.ts';
import { nothingThere, runnerOf } from './project.ts';
import { runAct } from './run.ts';
import { lookAtSchema, type ProjectDatabase } from './schema/schema-port.ts';

type Decide = (
  act: RunningAct,
  world: World,
  ground: { env: EnvFile; schema: ProjectDatabase },
) => Promise<{ plan: Plan<ReleaseStep>; heading: string }>;

/** @throws RELEASE_UNKNOWN when nothing was ever deployed here */
export async function actOnProject(context: Context, decide: Decide): Promise<Outcome> {
  const record = await readRecord(await context.engine(), context.project);
  if (!record) throw nothingThere(context);
  const request = requestOf(record);
  const env = context.readEnv(request.image);
  const supply = await observeFoundation(context, env, request);
  const runner = runnerOf(context, new AbortController().signal);
  return runAct(context, { env, request, supply, runner }, async (act, database) => {
    const work = await workLeft(context, act.record, database);
    const { world } = await observe(act.outside, act.record, work);
    return decide(act, world, { env, schema: database });
  });
}

/** The database is asked only where the act has a use for it: backing out never waits for one, nor does going back. */
async function workLeft(
  context: Context,
  { intent }: ProjectRecord,
  database: ProjectDatabase,
): Promise<SchemaWork> {
  const goesOn = intent !== null && intent.stage !== 'condemned' && context.verb !== 'abort';
  // A rollback has a wish of its own, which counts instead.
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
