/**
 * Events for people, on stderr: the plan as a table, a line for every step that ended, one live line for what runs.
 * Off a terminal only plain lines. Decides nothing and never throws into the work it reports on.
 */
import type { Phase, Step } from '../release/model.ts';
import { formatBytes, formatMs } from '../units.ts';
import type { Emit, Event } from './events.ts';
import { liveLine } from './live-line.ts';
import { describeStep, planLines } from './plan-text.ts';
import { redact } from './redact.ts';
import type { Style } from './style.ts';

export interface TerminalOptions {
  style: Style;
  /** Only warnings and failures. */
  isQuiet: boolean;
  /** Details too. */
  isVerbose: boolean;
}

/** Off a terminal, a step or a transfer that takes longer than this says that it is still there. */
const patienceMs = 3_000;

export function terminalSink(stream: NodeJS.WriteStream, options: TerminalOptions): Emit & { end(): void } {
  const { style, isQuiet, isVerbose } = options;
  const line = liveLine(stream, redact);
  const transfers = new Map<string, number>();
  let waiting: NodeJS.Timeout | undefined;

  const startStep = (event: Extract<Event, { type: 'step-started' }>) => {
    const title = stepTitle(event.step);
    const begun = performance.now();
    const count = `[${event.index}/${event.of}]`;
    if (stream.isTTY) {
      line.show(
        (frame) => `${style.cyan(frame)} ${count} ${title} ${style.dim(formatMs(performance.now() - begun))}`,
      );
      return;
    }
    waiting = setTimeout(() => line.print(`… ${count} ${title}: ${event.step.cause}`), patienceMs);
    waiting.unref();
  };
  const endStep = () => {
    clearTimeout(waiting);
    line.show(null);
  };
  const showProgress = (event: Extract<Event, { type: 'progress' }>) => {
    if (stream.isTTY) {
      line.show((frame) => `${style.cyan(frame)} ${progressText(event)}`);
      if (event.total !== null && event.done >= event.total) line.show(null);
      return;
    }
    const saidAt = transfers.get(event.label) ?? performance.now() - patienceMs;
    const isDone = event.total !== null && event.done >= event.total;
    if (!isDone && performance.now() - saidAt < patienceMs) return;
    transfers.set(event.label, performance.now());
    line.print(progressText(event));
  };

  const show = (event: Event): void => {
    switch (event.type) {
      case 'note':
        if (event.level === 'warning') line.print(`${style.yellow('!')} ${event.message}`);
        else if (!isQuiet && (event.level === 'info' || isVerbose)) line.print(`  ${event.message}`);
        return;
      case 'progress':
        if (!isQuiet) showProgress(event);
        return;
      case 'plan':
        if (isQuiet) return;
        line.print(style.bold(event.heading));
        for (const row of planLines(event.plan, (text, step) => phasePaint(style, step.phase)(text)))
          line.print(row);
        return;
      case 'step-started':
        if (!isQuiet) startStep(event);
        return;
      case 'step-done':
        endStep();
        if (!isQuiet) line.print(doneText(event, style));
        return;
      case 'step-failed':
        endStep();
        line.print(`${style.red('✗')} ${stepTitle(event.step)}: ${event.code}: ${event.message}`);
        return;
      case 'interrupted':
        line.print(
          `${style.yellow('!')} ${event.signal}: stopping at the next safe boundary; once more stops at once`,
        );
        return;
      default:
        event satisfies never;
    }
  };
  const end = () => {
    clearTimeout(waiting);
    line.end();
  };
  return Object.assign(show, { end });
}

function doneText(event: Extract<Event, { type: 'step-done' }>, style: Style): string {
  const detail = event.detail === undefined ? '' : `: ${event.detail}`;
  return `${style.green('✓')} ${stepTitle(event.step)}${detail} ${style.dim(`(${formatMs(event.ms)})`)}`;
}

function stepTitle(step: Step): string {
  return `${step.kind} ${describeStep(step).subject}`;
}

/** Blue until players are touched, yellow while they may move, green once there is no way but forward. */
function phasePaint(style: Style, phase: Phase): (text: string) => string {
  return { prepare: style.blue, switch: style.yellow, settle: style.green }[phase];
}

const barWidth = 20;

function progressText({ label, done, total, unit }: Extract<Event, { type: 'progress' }>): string {
  const amount = (value: number) => (unit === 'bytes' ? formatBytes(value) : `${value} ${unit}`.trimEnd());
  if (total === null || total <= 0) return `${label} ${amount(done)}`;
  const share = Math.min(1, done / total);
  const filled = Math.round(share * barWidth);
  const bar = '█'.repeat(filled) + '░'.repeat(barWidth - filled);
  return `${label} ${bar} ${Math.floor(share * 100)} % of ${amount(total)}`;
}
