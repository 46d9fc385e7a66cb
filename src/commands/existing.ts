/** Acting on a project that is there already: rollback, resume, abort. */
import type { Plan, ReleaseStep, World } from '../release/model.ts';
import { observe } from '../runner/observe.ts';
import { type ProjectRecord, readRecord } from '../runner/record.ts';
import type { Session } from '../runner/session.ts';
import type { Context, EnvFile, Outcome } from './context.ts';
import { observeFoundation, type Request } from './foundation.ts';
import { nothingThere, runnerOf } from './project.ts';
import { runAct } from './run-act.ts';

type Decide = (
  session: Session,
  world: World,
  env: EnvFile,
) => Promise<{ plan: Plan<ReleaseStep>; heading: string }>;

/** @throws RELEASE_UNKNOWN when nothing was ever deployed here */
export async function actOnProject(context: Context, decide: Decide): Promise<Outcome> {
  const record = await readRecord(await context.engine(), context.project);
  if (!record) throw nothingThere(context);
  const request = requestOf(record);
  const env = context.readEnv(request.image);
  const supply = await observeFoundation(context, env, request);
  const runner = runnerOf(context, new AbortController().signal);
  return runAct(context, { env, request, supply, runner }, async (session) => {
    const { schema } = session.ports;
    // Only an act that is still open may have migrations before it; backing out never waits for the database.
    const goesOn = context.verb === 'resume' && session.record.intent?.stage === 'open';
    const pending = goesOn ? await schema.pending() : [];
    const { world } = await observe(session.ports, session.record, pending);
    return decide(session, world, env);
  });
}

/** What was asked for last, whatever gameops.yaml says today: an image may have been named on the command line. */
export function requestOf(record: ProjectRecord): Request {
  const newest = record.releases.at(-1);
  const image = newest?.protocol ? 'bundled' : (newest?.imageRef ?? 'bundled');
  return { image, replicas: newest?.replicas ?? 1 };
}
