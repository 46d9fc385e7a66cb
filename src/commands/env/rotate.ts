/**
 * `env rotate jwt|db`: a new secret in small steps, each of them safe to die in. Looks where things stand, does the one
 * thing that comes next, looks again. What it has to wait for longer than it may, it says, and the next call goes on.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { OpsError } from '../../errors.ts';
import type { Context, Outcome, Style } from '../../operations/context.ts';
import { columns } from '../../report/table.ts';
import type { RotateOptions, Rotation } from '../../rotation/model.ts';
import { isOfRotation, type RotationStep, traceOf } from '../../rotation/rules.ts';
import { formatMs } from '../../units.ts';

const defaultWaitMs = 300_000;
/** More than any rotation takes: without progress it must not go on for ever. */
const roundsMax = 40;

/** @throws ROTATION_REFUSED, ROTATION_UNFINISHED, what a deploy throws */
export async function run(context: Context, options: RotateOptions): Promise<Outcome> {
  if (options.what === 'jwt') {
    const { jwtRotation } = await import('../../rotation/jwt.ts');
    return rotate(context, options, jwtRotation(context, options));
  }
  const { roleRotation } = await import('../../rotation/database.ts');
  return rotate(context, options, roleRotation(context, options));
}

async function rotate<P>(context: Context, options: RotateOptions, rotation: Rotation<P>): Promise<Outcome> {
  const done: RotationStep[] = [];
  let at = await rotation.look(false);
  while (!options.plan) {
    const step = rotation.next(at);
    if (step === null) break;
    stopIfAsked(context, options);
    if (done.length > roundsMax)
      throw new Error(`env rotate ${options.what} makes no progress at ${step.kind}`);
    if (step.kind === 'wait' && !(await waited(context, options, step.until))) break;
    context.emit({ type: 'note', level: 'info', message: `${step.kind}: ${step.cause}` });
    await rotation.perform(step, at).catch((error: unknown) => {
      const message = `the rotation stands before "${step.kind}"; gameops env rotate ${options.what} goes on there`;
      context.emit({ type: 'note', level: 'warning', message });
      throw error;
    });
    done.push(step);
    at = await rotation.look(done.some(isOfRotation));
  }
  return told(options, rotation, at, done);
}

function stopIfAsked({ signal, interruptedBy }: Context, { what }: RotateOptions): void {
  if (!signal.aborted) return;
  const by = interruptedBy();
  throw new OpsError(by === 'SIGTERM' ? 'TERMINATED' : 'INTERRUPTED', {
    message: 'Stopped between two steps; .env and the live release fit together, no player is affected.',
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

function told<P>(
  { what, plan }: RotateOptions,
  rotation: Rotation<P>,
  at: P,
  done: readonly RotationStep[],
): Outcome {
  const left = traceOf(at, rotation.next, rotation.apply);
  const [first] = left;
  const until = first?.kind === 'wait' ? new Date(first.until).toISOString() : null;
  const state = plan ? 'planned' : first === undefined ? 'done' : 'waiting';
  const stands = rotation.tell(at);
  return {
    ok: true,
    result: { what, state, done, left, until, ...rotation.facts(at) },
    text: (style) => textOf({ what, state, until, stands, done, left }, style),
  };
}

interface Told {
  what: string;
  state: string;
  until: string | null;
  stands: string;
  done: readonly RotationStep[];
  left: readonly RotationStep[];
}

function textOf({ what, state, until, stands, done, left }: Told, style: Style): string {
  const head = `${style.bold(`rotate ${what}`)} · ${stands}`;
  const rows = [
    ...done.map((step) => [style.green('✓'), step] as const),
    ...left.map((step) => [' ', step] as const),
  ];
  const lines = columns(rows.map(([tick, step]) => [` ${tick}`, step.kind, subjectOf(step), step.cause]));
  const end =
    state === 'done'
      ? `${style.green('✓')} done; other operators need this .env`
      : state === 'waiting'
        ? `Next: ${style.cyan(`gameops env rotate ${what}`)}, from ${until} on; until then nothing has to be done`
        : `Next: ${style.cyan(`gameops env rotate ${what}`)}`;
  return [head, ...lines, end].join('\n');
}

function subjectOf(step: RotationStep): string {
  switch (step.kind) {
    case 'write-env':
      return { next: '+JWT_SECRET_NEXT', promote: 'JWT_SECRET', drop: '-JWT_SECRET_PREVIOUS' }[step.what];
    case 'wait':
      return `until ${new Date(step.until).toISOString().slice(0, 16)}Z`;
    case 'hand-on':
      return step.to;
    case 'disable':
      return step.role;
    default:
      return '';
  }
}
