/** The middle of every verb that moves releases: lock, foundation, observe, plan, run, tell. */
import type { Plan, ReleaseStep } from '../release/model.ts';
import type { RunningAct } from '../runner/act.ts';
import type { Runner } from '../runner/run.ts';
import { runPlan, runSteps } from '../runner/run.ts';
import type { Context, EnvFile, Outcome } from './context.ts';
import { layFoundation, type Request, type Supply } from './foundation.ts';
import { findLost, planLost, pullLost } from './lost-images.ts';
import { openOutside } from './outside.ts';
import { migrationsDir, runningAct, withLock } from './project.ts';
import { actText, attachResult, resultOf } from './result.ts';
import { type ProjectDatabase, projectDatabase } from './schema/schema-port.ts';

export interface Ground {
  env: EnvFile;
  request: Request;
  supply: Supply;
  runner: Runner;
}

/** Observes, decides, and returns the plan with its heading. */
export type Decide = (
  act: RunningAct,
  database: ProjectDatabase,
) => Promise<{ plan: Plan<ReleaseStep>; heading: string }>;

/** A part of the foundation that is gone is mended first. @throws what `runPlan` throws, with the result so far */
export async function runAct(context: Context, ground: Ground, decide: Decide): Promise<Outcome> {
  const began = Date.now();
  const { env, request, supply } = ground;
  return withLock(context, supply.roles.nginx.ref, async (lock) => {
    const runner = { ...ground.runner, lockLost: lock.lost };
    const record = await layFoundation(context, runner, env, request, supply);
    const { outside, proxy, close } = await openOutside(context, env, record);
    try {
      const dir = migrationsDir(context, request.image === 'bundled');
      const database = projectDatabase(context, outside.engine, env, dir);
      const act = runningAct(context, runner, { outside: { ...outside, database }, record, proxy });
      const { plan, heading } = await decide(act, database);
      const lost = await findLost(outside.engine, context.project, plan, act.record.releases);
      const first = planLost(lost);
      context.emit({ type: 'plan', plan: { ...plan, steps: [...first, ...plan.steps] }, heading });
      const result = () => resultOf(context, act, plan, began);
      const failure = await runSteps(act, first, () => pullLost(outside.engine, lost, context));
      if (failure) throw attachResult(failure.error, result());
      await runPlan(act, plan).catch((error) => {
        throw attachResult(error, result());
      });
      return { ok: true, result: result(), text: (style) => actText(style, result()) };
    } finally {
      close();
      runner.journal.close();
    }
  });
}
