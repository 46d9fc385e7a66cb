/**
 * Runs a rotation: looks where things stand, does the one step that comes next, and looks again. Promises that every step
 * is safe to die in: the next call looks, and continues where this one stopped.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { OpsError } from '../errors.ts';
import type { Context } from '../operations/context.ts';
import { formatMs } from '../units.ts';
import type { RotateOptions, Rotation } from './model.ts';
import { isOfRotation, type RotationStep } from './rules.ts';

const defaultWaitMs = 300_000;
/** More than any rotation takes: one that makes no progress must end. */
const roundsMax = 40;

/** Where a rotation stands after this call, and the steps that the call has done. */
export interface Progress<P> {
  at: P;
  done: RotationStep[];
}

/**
 * Returns before the rotation is complete when the next step would wait longer than this call may.
 * @throws ROTATION_REFUSED, ROTATION_UNFINISHED, what a deploy throws
 */
export async function runRotation<P>(
  context: Context,
  options: RotateOptions,
  rotation: Rotation<P>,
): Promise<Progress<P>> {
  const done: RotationStep[] = [];
  let at = await rotation.look(false);
  for (let step = rotation.next(at); step !== null; step = rotation.next(at)) {
    stopIfAsked(context, options);
    if (done.length > roundsMax)
      throw new Error(`env rotate ${options.what} makes no progress at ${step.kind}`);
    if (step.kind === 'wait' && !(await waited(context, options, step.until))) break;
    context.emit({ type: 'note', level: 'info', message: `${step.kind}: ${step.cause}` });
    await rotation.perform(step, at).catch((error: unknown) => {
      const message = `the rotation stopped before "${step?.kind}"; gameops env rotate ${options.what} continues there`;
      context.emit({ type: 'note', level: 'warning', message });
      throw error;
    });
    done.push(step);
    at = await rotation.look(done.some(isOfRotation));
  }
  return { at, done };
}

function stopIfAsked({ signal, interruptedBy }: Context, { what }: RotateOptions): void {
  if (!signal.aborted) return;
  const by = interruptedBy();
  throw new OpsError(by === 'SIGTERM' ? 'TERMINATED' : 'INTERRUPTED', {
    message: 'Stopped between two steps; .env and the live release fit together, and no player is affected.',
    next: [`gameops env rotate ${what}`],
    facts: { signal: by },
  });
}

/** @returns false when that is longer than this call may wait */
async function waited({ emit, signal }: Context, { waitMs }: RotateOptions, until: number): Promise<boolean> {
  const ms = until - Date.now();
  if (ms > (waitMs ?? defaultWaitMs)) return false;
  emit({ type: 'note', level: 'info', message: `waiting ${formatMs(Math.max(0, ms))}` });
  await sleep(Math.max(0, ms), undefined, { signal });
  return true;
}
