/**
 * Events for people, on stderr: the plan as a table, a line for every step that ended, one live line for what runs.
 * Off a terminal only plain lines. Decides nothing and never throws into the work it reports on.
 */
import type { Phase, Step } from '../release/model.ts';
import { formatBytes, formatMs } from '../units.ts';
import type { Emit, Event } from './events.ts';
import { type LiveLine, liveLine } from './live-line.ts';
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

type Started = Extract<Event, { type: 'step-started' }>;
type Progress = Extract<Event, { type: 'progress' }>;

export function terminalSink(stream: NodeJS.WriteStream, options: TerminalOptions): Emit & { end(): void } {
  const { style, isQuiet, isVerbose } = options;
  const line = liveLine(stream, redact);
  const activity = stream.isTTY ? drawnActivity(line, style) : toldActivity(line);

  const show = (event: Event): void => {
    switch (event.type) {
      case 'note':
        if (event.level === 'warning') line.print(`${style.yellow('!')} ${event.message}`);
        else if (!isQuiet && (event.level === 'info' || isVerbose)) line.print(`  ${event.message}`);
        return;
      case 'progress':
        if (!isQuiet) activity.progress(event);
        return;
      case 'plan':
        if (isQuiet) return;
        line.print(style.bold(event.heading));
        for (const row of planLines(event.plan, (text, step) => phasePaint(style, step.phase)(text)))
          line.print(row);
        return;
      case 'step-started':
        if (!isQuiet) activity.begin(event);
        return;
      case 'step-done':
        activity.end();
        if (!isQuiet) line.print(doneText(event, style));
        return;
      case 'step-failed':
        activity.end();
        line.print(`${style.red('✗')} ${stepTitle(event.step)}: ${event.code}`);
        return;
      case 'interrupted':
        line.print(
          `${style.yellow('!')} ${event.signal}: stopping at the next safe boundary; a second signal stops at once`,
        );
        return;
      default:
        event satisfies never;
    }
  };
  const end = () => {
    activity.end();
    line.end();
  };
  return Object.assign(show, { end });
}

/** What runs right now: one step, and its progress or that of a transfer. */
interface Activity {
  begin(event: Started): void;
  progress(event: Progress): void;
  end(): void;
}

/** On a terminal: one line that is drawn over and over. */
function drawnActivity(line: LiveLine, style: Style): Activity {
  let title: (() => string) | null = null;
  return {
    begin(event) {
      const begun = performance.now();
      const what = `${style.dim(`[${event.index}/${event.of}]`)} ${stepTitle(event.step)}`;
      title = () => `${what} ${style.dim(formatMs(performance.now() - begun))}`;
      line.show((frame) => `${style.cyan(frame)} ${title?.() ?? ''}`);
    },
    progress(event) {
      const isOver = event.total !== null && event.done >= event.total;
      if (title === null && isOver) return line.show(null);
      line.show((frame) => `${style.cyan(frame)} ${title === null ? '' : `${title()} · `}${barText(event)}`);
    },
    end() {
      title = null;
      line.show(null);
    },
  };
}

/** Off a terminal, a step that takes longer than this says that it is still running. */
const patienceMs = 3_000;
/** A file is read later, not watched: one line for every quarter, and none for work that takes less than this. */
const quietMs = 1_000;

function toldActivity(line: LiveLine): Activity {
  let waiting: NodeJS.Timeout | undefined;
  let isStep = false;
  const said = new Map<string, { quarter: number; at: number }>();
  return {
    begin({ index, of, step }) {
      isStep = true;
      waiting = setTimeout(
        () => line.print(`… [${index}/${of}] ${stepTitle(step)}: ${step.cause}`),
        patienceMs,
      );
      waiting.unref();
    },
    progress(event) {
      const { label, done, total } = event;
      const now = performance.now();
      const before = said.get(label) ?? { quarter: 0, at: isStep ? now : now - quietMs };
      const quarter = total === null || total <= 0 ? before.quarter + 1 : Math.floor((4 * done) / total);
      const isEarly = now - before.at < (total === null ? patienceMs : quietMs);
      // The line for the end of the step says it anyway.
      const isSaidAnyway = isStep && quarter >= 4;
      if (!said.has(label)) said.set(label, before);
      if (quarter <= before.quarter || isSaidAnyway || (isEarly && quarter < 4)) return;
      said.set(label, { quarter, at: now });
      clearTimeout(waiting);
      line.print(`  ${progressText(event)}`);
    },
    end() {
      clearTimeout(waiting);
      isStep = false;
      said.clear();
    },
  };
}

function doneText(event: Extract<Event, { type: 'step-done' }>, style: Style): string {
  const detail = event.detail === undefined ? '' : `: ${event.detail}`;
  return `${style.green('✓')} ${stepTitle(event.step)}${detail} ${style.dim(`(${formatMs(event.ms)})`)}`;
}

function stepTitle(step: Step): string {
  return `${step.kind} ${describeStep(step).subject}`.trimEnd();
}

/** Blue before players are affected, yellow while they may move, green when the act only goes forward. */
function phasePaint(style: Style, phase: Phase): (text: string) => string {
  return { prepare: style.blue, switch: style.yellow, settle: style.green }[phase];
}

const barWidth = 20;

/** "watched ██████░░░░ 12 s of 30 s"; a small count has no bar. */
function barText(event: Progress): string {
  const { label, done, total } = event;
  if (total === null || total <= barWidth) return progressText(event);
  const filled = Math.round(Math.min(1, done / total) * barWidth);
  return progressText(event).replace(label, `${label} ${'█'.repeat(filled)}${'░'.repeat(barWidth - filled)}`);
}

/** "ready 1 of 2 replicas", "watched 12 s of 30 s", "handed over 40 of 60 players (moved 40, closed 0, left 20)" */
function progressText({ label, done, total, unit, parts = {} }: Progress): string {
  const amount = (value: number) => {
    if (unit === 'bytes') return formatBytes(value);
    return unit === 'ms' ? `${Math.round(value / 1_000)} s` : String(value);
  };
  const suffix = unit === 'bytes' || unit === 'ms' ? '' : ` ${unit}`;
  if (total === null || total <= 0) return `${label} ${amount(done)}${suffix}`;
  const made = Object.entries(parts).map(([part, count]) => `${part} ${count}`);
  const of = made.length === 0 ? '' : ` (${made.join(', ')})`;
  return `${label} ${amount(Math.min(done, total))} of ${amount(total)}${suffix}${of}`;
}
