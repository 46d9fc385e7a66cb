/** gameops abort: backs out of an interrupted act, while that is still possible. */
import { OpsError } from '../errors.ts';
import { actOnProject } from '../operations/act.ts';
import type { Context, Outcome } from '../operations/context.ts';
import { headingOf } from '../operations/result.ts';
import { planBackOut, planHandBack, planResume } from '../release/plan.ts';
import { setWish } from '../runner/act.ts';
import { canHandBack } from '../runner/gate.ts';

export async function run(context: Context): Promise<Outcome> {
  return actOnProject(context, async (act, world) => {
    const { intent } = act.record;
    if (intent?.stage === 'committed' && intent.schema !== null) {
      await setWish(act, null);
      const plan = planResume(world);
      return { plan, heading: headingOf(plan, world, null) };
    }
    const reason = `abort by ${context.operator}`;
    if (intent?.stage === 'committed' && (await canHandBack(act, world))) {
      const plan = planHandBack(world, reason);
      return { plan, heading: headingOf(plan, world, null) };
    }
    if (intent?.stage === 'committed') {
      throw new OpsError('PAST_NO_RETURN', {
        message: `Release ${intent.release} is live and release ${intent.previous ?? 'none'} takes no players any more, so it is too late to back out. Nothing was changed.`,
        next: ['gameops resume', 'then gameops rollback'],
        facts: { release: intent.release, previous: intent.previous },
      });
    }
    const plan = planBackOut(world, { verdict: 'abandoned', reason });
    return { plan, heading: headingOf(plan, world, null) };
  });
}
