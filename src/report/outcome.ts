/**
 * How a run of the program ends, and the one place that writes it down: results on stdout, errors on stderr, with
 * --json one document on stdout for either. No known secret is written, whoever wrote the message.
 */
import { exitCode, isOpsError, type OpsError } from '../errors.ts';
import type { ReportedError } from './json.ts';
import { redact } from './redact.ts';
import type { Style } from './style.ts';

/** What a verb returns when it did what was asked. A failure is thrown as an OpsError, with its `result`. */
export interface Outcome {
  ok: true;
  /** The `result` of the JSON envelope, see CLI.md. */
  result: object;
  /** The same for people, on stdout. No trailing newline needed. */
  text?: (style: Style) => string;
  /** Written instead of text and envelope, when its format was requested. */
  document?: string;
  /** The findings are a failure: it is written after the result, and its exit code counts. */
  refusal?: OpsError;
}

export type Ending =
  | { kind: 'text'; text: string }
  | { kind: 'outcome'; outcome: Outcome }
  | { kind: 'failure'; error: unknown; help?: string };

/** How to write; known before the command line is parsed, because a wrong one needs an answer, too. */
export interface Speaker {
  command: string;
  version: string;
  isJson: boolean;
  isVerbose: boolean;
  noColour: boolean;
}

/** Resolves with the exit code when all output has left the process. A result that can't be written is a bug. */
export async function writeEnding(ending: Ending, speaker: Speaker): Promise<number> {
  const write = speaker.isJson ? writeJson : writeText;
  try {
    return await write(ending, speaker);
  } catch (error) {
    return write({ kind: 'failure', error }, speaker);
  }
}

async function writeText(ending: Ending, speaker: Speaker): Promise<number> {
  if (ending.kind === 'text') {
    await send(process.stdout, ending.text);
    return exitCode.done;
  }
  const { styleFor } = await import('./style.ts');
  const styleOf = (stream: NodeJS.WriteStream) =>
    styleFor({ isTty: stream.isTTY === true, refused: speaker.noColour, env: process.env });
  if (ending.kind === 'outcome') {
    const { text: tell, document, refusal } = ending.outcome;
    const text = document ?? tell?.(styleOf(process.stdout)) ?? '';
    if (text !== '') await send(process.stdout, `${text.replace(/\n$/, '')}\n`);
    if (refusal === undefined) return exitCode.done;
    return writeText({ kind: 'failure', error: refusal }, speaker);
  }
  const { errorText } = await import('./error-text.ts');
  const stack = speaker.isVerbose ? stackOf(ending.error) : '';
  if (ending.help) await send(process.stderr, `${ending.help}\n`);
  await send(process.stderr, errorText(reportable(ending.error, speaker), styleOf(process.stderr), stack));
  return exitCodeOf(ending.error);
}

async function writeJson(ending: Ending, speaker: Speaker): Promise<number> {
  const { failureEnvelope, successEnvelope } = await import('./json.ts');
  const { command } = speaker;
  if (ending.kind === 'failure') {
    const result = isOpsError(ending.error) ? ending.error.result : undefined;
    const envelope = failureEnvelope(command, reportable(ending.error, speaker), result);
    if (speaker.isVerbose)
      await send(process.stderr, `${JSON.stringify({ stack: redact(stackOf(ending.error)) })}\n`);
    await send(process.stdout, `${envelope}\n`);
    return exitCodeOf(ending.error);
  }
  if (ending.kind === 'outcome' && ending.outcome.document !== undefined) {
    await send(process.stdout, `${ending.outcome.document.replace(/\n$/, '')}\n`);
    return ending.outcome.refusal?.exitCode ?? exitCode.done;
  }
  if (ending.kind === 'outcome' && ending.outcome.refusal !== undefined) {
    const { refusal, result } = ending.outcome;
    await send(process.stdout, `${failureEnvelope(command, refusal, result)}\n`);
    return refusal.exitCode;
  }
  const result = ending.kind === 'text' ? { text: ending.text.trimEnd() } : ending.outcome.result;
  await send(process.stdout, `${successEnvelope(command, result)}\n`);
  return exitCode.done;
}

function reportable(error: unknown, { version }: Speaker): ReportedError {
  if (isOpsError(error)) return error;
  const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return {
    code: 'BUG',
    message: `gameops failed unexpectedly: ${what}`,
    next: [
      'gameops status shows where players are; gameops resume finishes an unfinished act',
      'please report this, with the output of the same command with --verbose',
    ],
    facts: { version, node: process.version },
  };
}

function exitCodeOf(error: unknown): number {
  return isOpsError(error) ? error.exitCode : exitCode.bug;
}

const causesMax = 8;

function stackOf(error: unknown): string {
  const lines: string[] = [];
  for (let at = error; at instanceof Error && lines.length < causesMax; at = at.cause)
    lines.push(at.stack ?? at.message);
  return lines.join('\ncaused by ');
}

function send(stream: NodeJS.WriteStream, text: string): Promise<void> {
  if (text === '' || !stream.writable) return Promise.resolve();
  return new Promise((resolve) => {
    stream.write(redact(text), () => resolve());
  });
}
