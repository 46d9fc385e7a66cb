/**
 * `env rotate jwt|db`: a new secret in small steps, without a player noticing. When the next step has to wait longer than
 * this call may, it says so, and the next call continues.
 */
import type { Context, Outcome, Style } from '../../operations/context.ts';
import { columns } from '../../report/table.ts';
import type { RotateOptions, Rotation } from '../../rotation/model.ts';
import { type RotationStep, traceOf } from '../../rotation/rules.ts';
import { runRotation } from '../../rotation/run.ts';

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
  const { what, plan } = options;
  const { at, done } = plan
    ? { at: await rotation.look(false), done: [] }
    : await runRotation(context, options, rotation);
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
      ? `${style.green('✓')} done; give this .env to the other operators`
      : state === 'waiting'
        ? `Next: ${style.cyan(`gameops env rotate ${what}`)}, after ${until}; nothing has to be done until then`
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
