/**
 * Runs plans, one step after the other, and writes each to the journal before and after. Stops before the next step when the
 * operator asks for it or the lock is lost. A failure before the point of no return is answered by a plan that backs out, and a
 * failure after it by the advice to resume. At the end it observes and plans once more: only an empty plan counts as done.
 */

import type { Clock } from '../clock.ts';
import { isOpsError, OpsError } from '../errors.ts';
import type { ProjectRecord } from '../record/record.ts';
import type { Plan, ReleaseStep, Step } from '../release/model.ts';
import { planBackOut, planResume } from '../release/plan.ts';
import type { RunningAct } from './act.ts';
import { observe } from './observe.ts';
import { perform } from './perform.ts';

/** Failures of a switch before Nginx was told of it, so that it sent no player anywhere. */
const untold = ['TEMPLATE_INVALID', 'CONFIG_INVALID', 'PROXY_CONFIG_REJECTED'] as const;

/** A step gets this much beyond its own deadline, for the engine's answers. */
const marginMs = 60_000;

interface StepFailure {
  step: Step;
  error: unknown;
}

/**
 * @throws INTERRUPTED / TERMINATED; UNFINISHED (6) after the point of no return or when the lock or engine was lost;
 * REMEDY_FAILED (6); NOT_CONVERGED (6); otherwise the failed step's own error after backing out: exit 5 unless its
 * code says more (9 for a migration, 2 or 3 when the request itself was wrong, 4 when an image can't be had).
 */
export async function runPlan(act: RunningAct, plan: Plan<ReleaseStep>): Promise<void> {
  const failure = await runSteps(act, plan.steps, (step) => perform(act, step));
  if (failure) return answerFailure(act, failure);
  const { world } = await observe(act.outside, act.record);
  const rest = planResume(world);
  if (rest.steps.length === 0) return;
  throw new OpsError('NOT_CONVERGED', {
    message: `Every step was done, but more steps are needed: ${rest.steps.map((step) => step.kind).join(', ')}. ${whereTheyAre(act)}`,
    next: ['gameops status', 'gameops resume'],
    facts: { steps: rest.steps.map((step) => `${step.kind}: ${step.cause}`) },
  });
}

/** What it takes to run steps of any kind. */
export type Runner = Pick<
  RunningAct,
  'project' | 'emit' | 'journal' | 'signal' | 'lockLost' | 'interruptedBy' | 'steps'
> & { record: ProjectRecord | null; outside: { clock: Clock } };

/** @returns what failed, or null when every step was done. @throws INTERRUPTED, TERMINATED, LOCK_LOST */
export async function runSteps<S extends Step>(
  act: Runner,
  steps: readonly S[],
  // biome-ignore lint/suspicious/noConfusingVoidType: most steps have nothing to add.
  doStep: (step: S) => Promise<string | void>,
): Promise<StepFailure | null> {
  for (const [index, step] of steps.entries()) {
    stopIfAsked(act, step);
    const at = { index: index + 1, of: steps.length, step };
    act.emit({ type: 'step-started', ...at });
    act.journal.write('step-started', { step: step.kind, phase: step.phase, index: at.index, of: at.of });
    const began = act.outside.clock.now();
    const report = { kind: step.kind, phase: step.phase, cause: step.cause };
    try {
      const detail = await act.outside.clock.bounded(
        doStep(step),
        step.deadlineMs + marginMs,
        `${step.kind} of release ${plainSubject(step)}`,
      );
      const ms = act.outside.clock.now() - began;
      act.steps.push({ ...report, ms, ok: true });
      act.journal.write('step-done', { step: step.kind, ms });
      act.emit({ type: 'step-done', ...at, ms, ...(detail ? { detail } : {}) });
    } catch (error) {
      stopIfAsked(act, step);
      const ms = act.outside.clock.now() - began;
      const code = isOpsError(error) ? error.code : 'BUG';
      act.steps.push({ ...report, ms, ok: false });
      act.journal.write('step-failed', { step: step.kind, ms, code });
      act.emit({ type: 'step-failed', ...at, ms, code, message: messageOf(error) });
      return { step, error };
    }
  }
  return null;
}

async function answerFailure(act: RunningAct, failure: StepFailure): Promise<never> {
  const { error } = failure;
  const { intent } = act.record;
  if (!intent || isOpsError(error, 'LOCK_LOST')) throw error;
  if (intent.stage === 'committed') {
    const isOfSchema = failure.step.kind === 'take-back' || failure.step.kind === 'restore';
    throw isOfSchema
      ? schemaLeft(act, failure)
      : unfinished(act, failure, 'The point of no return has passed, so the act can only go forward.');
  }
  if (intent.stage === 'condemned') throw remedyFailed(act, failure.error);
  // The step may still be at work somewhere, and a remedy would race it.
  if (isOpsError(error, 'STEP_TIMED_OUT'))
    throw unfinished(act, failure, 'The step may still end by itself.');

  const world = await observe(act.outside, act.record).catch((cause: unknown) => {
    throw unfinished(act, { ...failure, error: cause }, 'The engine could not be asked what there is now.');
  });
  const remedy = planBackOut(world.world, {
    verdict: 'failed',
    metPlayers: failure.step.phase === 'switch' && !isOpsError(error, ...untold),
    isUndrained: failure.step.phase !== 'settle',
    reason: `${codeOf(error)}: ${messageOf(error)}`,
  });
  act.emit({ type: 'plan', plan: remedy, heading: `back out of release ${intent.release}` });
  const second = await runSteps(act, remedy.steps, (step) => perform(act, step));
  if (second) throw remedyFailed(act, second.error);
  throw rolledBack(act, error, intent.release);
}

function rolledBack(act: RunningAct, error: unknown, failed: number): OpsError {
  const live = liveOf(act);
  const where = live === null ? 'Nothing serves yet.' : `Players are on release ${live}, as before.`;
  const kept = `The replicas of release ${failed} are kept stopped for inspection.`;
  const { applied } = act.schema;
  // Expand migrations: the previous release works with them, and the next try finds them applied.
  const stays =
    applied.length === 0 ? '' : ` ${applied.join(', ')} stay${applied.length === 1 ? 's' : ''} applied.`;
  // Codes that say more than "rolled back" keep their exit code; a failure of the engine itself is over by now.
  const keepsCode =
    isOpsError(error, 'IMAGE_NOT_FOUND') || (isOpsError(error) && [2, 3, 5, 9].includes(error.exitCode));
  return new OpsError(keepsCode ? error.code : 'ROLLED_BACK', {
    message: `${sentence(error)} ${where} ${kept}${stays}`,
    next: isOpsError(error) ? error.next : ['gameops status', 'gameops deploy'],
    facts: { ...(isOpsError(error) ? error.facts : {}), cause: codeOf(error), failed, live, applied },
    cause: error,
  });
}

function unfinished(act: RunningAct, { step, error }: StepFailure, why: string): OpsError {
  return new OpsError('UNFINISHED', {
    message: `${step.kind} failed: ${sentence(error)} ${why} ${whereTheyAre(act)}`,
    next: ['gameops resume', 'gameops status', 'gameops doctor'],
    facts: { step: step.kind, cause: codeOf(error) },
    cause: error,
  });
}

/** Traffic has moved and the schema has not. Whatever is wrong with it, players are where the operator wanted them. */
function schemaLeft(act: RunningAct, { step, error }: StepFailure): OpsError {
  return new OpsError('UNFINISHED', {
    message: `The app is back, the schema is not: ${sentence(error)} ${whereTheyAre(act)}`,
    next: [
      'gameops resume: tries again',
      'gameops abort: leaves the schema as it is',
      ...(isOpsError(error) ? error.next : []),
    ],
    facts: { ...(isOpsError(error) ? error.facts : {}), step: step.kind, cause: codeOf(error) },
    cause: error,
  });
}

function remedyFailed(act: RunningAct, error: unknown): OpsError {
  return new OpsError('REMEDY_FAILED', {
    message: `Backing out failed: ${sentence(error)} ${whereTheyAre(act)}`,
    next: ['gameops status', 'gameops resume', 'gameops doctor'],
    facts: { cause: codeOf(error) },
    cause: error,
  });
}

/** @throws INTERRUPTED, TERMINATED, LOCK_LOST */
function stopIfAsked(act: Runner, step: Step): void {
  if (act.lockLost.aborted) {
    throw new OpsError('LOCK_LOST', {
      message: `The lock on project ${act.project} was lost, because the engine restarted or the connection to it broke. Nothing more was done. ${whereTheyAre(act)}`,
      next: ['gameops resume', 'gameops status'],
      facts: { before: step.kind },
    });
  }
  if (!act.signal.aborted) return;
  const signal = act.interruptedBy() ?? 'SIGINT';
  act.journal.write('interrupted', { signal, before: step.kind });
  throw new OpsError(signal === 'SIGTERM' ? 'TERMINATED' : 'INTERRUPTED', {
    message: `Stopped at a safe boundary: ${step.kind} was not begun. ${whereTheyAre(act)}`,
    next: act.record?.intent ? ['gameops resume', 'gameops abort'] : ['gameops status'],
    facts: { signal, before: step.kind },
  });
}

function whereTheyAre(act: Pick<Runner, 'record'>): string {
  const live = liveOf(act);
  const target = act.record?.intent?.release ?? null;
  if (live === null)
    return target === null ? 'Nothing serves yet.' : `Nothing was live before release ${target}.`;
  if (target === null || target === live) return `Players are on release ${live}.`;
  return `Players are served by release ${live} or, where traffic has moved already, by ${target}; both run.`;
}

const liveOf = (act: Pick<Runner, 'record'>) =>
  act.record?.releases.find((release) => release.verdict === 'live')?.id ?? null;

const plainSubject = (step: Step) => ('release' in step ? String(step.release) : '');
export const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));
/** Messages of the engine may lack the full stop. */
const sentence = (error: unknown) => messageOf(error).replace(/(?<![.!?])\s*$/, '.');
const codeOf = (error: unknown) => (isOpsError(error) ? error.code : 'BUG');
