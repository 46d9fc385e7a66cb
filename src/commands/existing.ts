/** Acting on a project that is there already: rollback, resume, abort. Deploy lays its own foundation first. */
import type { Plan, ReleaseStep, World } from '../release/model.ts';
import { observe } from '../runner/observe.ts';
import { readRecord } from '../runner/record.ts';
import { runPlan } from '../runner/run.ts';
import type { Session } from '../runner/session.ts';
import { actText, attachResult, resultOf } from './act.ts';
import type { Context, EnvFile, Outcome } from './context.ts';
import { layFoundation, observeFoundation } from './foundation.ts';
import { openPorts } from './ports.ts';
import { migrationsDir, nothingThere, runnerOf, schemaOf, sessionOf, withLock } from './project.ts';

type Decide = (session: Session, world: World) => Promise<{ plan: Plan<ReleaseStep>; heading: string }>;

/** Locks, mends the foundation if a part of it is gone, observes, lets `decide` plan, runs. */
export async function actOnProject(context: Context, env: EnvFile, decide: Decide): Promise<Outcome> {
  const engine = await context.engine();
  const began = Date.now();
  const before = await readRecord(engine, context.project);
  if (!before) throw nothingThere(context);
  const newest = before.releases.at(-1);
  const request = {
    image: newest?.protocol ? 'bundled' : (newest?.imageRef ?? 'bundled'),
    replicas: newest?.replicas ?? 1,
  };
  const supply = await observeFoundation(context, env, request);
  return withLock(context, supply.roles.nginx.ref, async (lock) => {
    const runner = runnerOf(context, lock.lost);
    const record = await layFoundation(context, runner, env, request, supply);
    const { ports, proxy, close } = await openPorts(context, env, record);
    try {
      const schema = schemaOf(context, engine, env, migrationsDir(context, request.image === 'bundled'));
      const session = sessionOf(context, runner, { ports: { ...ports, schema }, record, proxy });
      // Only an act that is still open may have migrations before it; backing out never waits for the database.
      const pending =
        record.intent?.stage === 'open' && context.verb === 'resume' ? await schema.pending() : [];
      const { world } = await observe(session.ports, record, pending);
      const { plan, heading } = await decide(session, world);
      context.emit({ type: 'plan', plan, heading });
      const result = () => resultOf(context, session, plan, began);
      await runPlan(session, plan).catch((error) => {
        throw attachResult(error, result());
      });
      return { ok: true, result: result(), text: (style) => actText(style, result()) };
    } finally {
      close();
      runner.journal.close();
    }
  });
}
