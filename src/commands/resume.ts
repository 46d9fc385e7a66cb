/** gameops resume: finishes an interrupted act, from any machine. Without one, it repairs what the live release lacks. */
import { OpsError } from '../errors.ts';
import { actOnProject } from '../operations/act.ts';
import type { Context, Outcome } from '../operations/context.ts';
import { headingOf } from '../operations/result.ts';
import { planResume } from '../release/plan.ts';

export async function run(context: Context): Promise<Outcome> {
  let backedOut: { release: number; reason: string | null } | null = null;
  const outcome = await actOnProject(context, async (act, world) => {
    const { intent } = act.record;
    if (intent?.stage === 'condemned') backedOut = { release: intent.release, reason: intent.reason };
    const plan = planResume(world);
    return { plan, heading: headingOf(plan, world, null) };
  });
  if (backedOut) throw rolledBack(backedOut, outcome.result);
  return outcome;
}

function rolledBack(failed: { release: number; reason: string | null }, result: object): OpsError {
  const error = new OpsError('ROLLED_BACK', {
    message: `Release ${failed.release} had failed or was given up (${failed.reason ?? 'no reason on record'}), and backing out of it is finished now. Players are where they were before it.`,
    next: ['gameops status', 'gameops deploy'],
    facts: { failed: failed.release },
  });
  return Object.assign(error, { result });
}
