/** The middle of every verb that moves releases: lock, foundation, observe, plan, run, tell. */
import type { Plan, ReleaseStep } from '../release/model.ts';
import type { Runner } from '../runner/run.ts';
import { runPlan, runSteps } from '../runner/run.ts';
import type { Session } from '../runner/session.ts';
import type { Context, EnvFile, Outcome } from './context.ts';
import { layFoundation, type Request, type Supply } from './foundation.ts';
import { findLost, planLost, pullLost } from './lost-images.ts';
import { openPorts } from './ports.ts';
import { migrationsDir, sessionOf, withLock } from './project.ts';
import { actText, attachResult, resultOf } from './result.ts';
import { type OpenSchema, schemaOf } from './schema/schema-port.ts';

export interface Ground {
  env: EnvFile;
  request: Request;
  supply: Supply;
  runner: Runner;
}

/** Observes through the session's ports, decides, tells how it is to be headed. */
export type Decide = (
  session: Session,
  schema: OpenSchema,
) => Promise<{ plan: Plan<ReleaseStep>; heading: string }>;

/** A part of the foundation that is gone is mended first. @throws what `runPlan` throws, with the result so far */
export async function runAct(context: Context, ground: Ground, decide: Decide): Promise<Outcome> {
  const began = Date.now();
  const { env, request, supply } = ground;
  return withLock(context, supply.roles.nginx.ref, async (lock) => {
    const runner = { ...ground.runner, lockLost: lock.lost };
    const record = await layFoundation(context, runner, env, request, supply);
    const { ports, proxy, close } = await openPorts(context, env, record);
    try {
      const dir = migrationsDir(context, request.image === 'bundled');
      const schema = schemaOf(context, ports.engine, env, dir);
      const session = sessionOf(context, runner, { ports: { ...ports, schema }, record, proxy });
      const { plan, heading } = await decide(session, schema);
      const lost = await findLost(ports.engine, context.project, plan, session.record.releases);
      const first = planLost(lost);
      context.emit({ type: 'plan', plan: { ...plan, steps: [...first, ...plan.steps] }, heading });
      const result = () => resultOf(context, session, plan, began);
      const failure = await runSteps(session, first, () => pullLost(ports.engine, lost, context));
      if (failure) throw attachResult(failure.error, result());
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
