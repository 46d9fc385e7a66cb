/**
 * The program: argv in, exit code out. Parses, then loads the one verb that was asked for.
 * Promises: stdout carries results only, with --json exactly one document whatever happens; every failure ends in the
 * exit code of the catalogue. Never loads a verb, a zod schema or a colour before it is needed: `--help` must start about
 * as fast as Node itself (test/bench/cli.ts).
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CommanderError } from 'commander';
import { exitCode, OpsError } from '../errors.ts';
import type { Context, Globals, StopSignal, Surroundings } from '../operations/context.ts';
import type { EnvContext } from '../operations/env-context.ts';
import { packageRoot } from '../package-root.ts';
import type { Emit, Event } from '../report/events.ts';
import { type Ending, type Speaker, writeEnding } from '../report/outcome.ts';
import { keepSecretsOf } from '../report/redact.ts';
import { buildProgram, type Request } from './program.ts';
import { groups, verbs } from './verbs.ts';

/** Runs to the end, writes everything, returns the exit code. */
export async function main(argv: readonly string[]): Promise<number> {
  keepSecretsOf(process.env);
  const speaker: Speaker = {
    command: commandIn(argv),
    version: versionOfPackage(),
    isJson: asks(argv, '--json'),
    isVerbose: asks(argv, '--verbose'),
    noColour: asks(argv, '--no-color'),
  };
  process.stdout.on('error', ignoreClosedPipe);
  // Progress that can't be written, to a closed pipe or a log on a full disk, is lost; the act itself goes on.
  process.stderr.on('error', () => undefined);
  let writing: Promise<number> | null = null;
  // Only the first ending is written: stdout never gets two documents.
  const end = (ending: Ending) => {
    writing ??= writeEnding(ending, speaker);
    return writing;
  };
  process.on('uncaughtException', (error) => {
    // When even writing fails, the process ends: another throw would come back here for ever.
    void end({ kind: 'failure', error }).then(
      (code) => process.exit(code || exitCode.bug),
      () => process.exit(exitCode.bug),
    );
  });
  return end(await run(argv, speaker));
}

async function run(argv: readonly string[], speaker: Speaker): Promise<Ending> {
  let request: Request | null = null;
  const written = { out: '', err: '' };
  const program = buildProgram({ written, version: speaker.version }, (asked) => {
    request = asked;
  });
  try {
    await program.parseAsync([...argv], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) return { kind: 'failure', error };
    if (error.exitCode === 0) return { kind: 'text', text: written.out };
    return { kind: 'failure', error: usageError(error, speaker.command), help: written.err };
  }
  // TypeScript does not see that the callback above ran.
  return request === null ? { kind: 'text', text: written.out } : runVerb(request as Request, speaker);
}

async function runVerb({ verb, globals, options }: Request, speaker: Speaker): Promise<Ending> {
  const emit = await openSink(speaker, globals);
  const interruption = watchSignals(emit);
  let context: Context | EnvContext | null = null;
  try {
    const around = {
      verb: verb.name,
      cwd: process.cwd(),
      env: process.env,
      emit,
      signal: interruption.signal,
      interruptedBy: interruption.by,
      isTerminal: process.stdin.isTTY === true && process.stderr.isTTY === true,
      toleratesConfig: verb.toleratesConfig === true,
    };
    context = verb.isLight ? await openLight(globals, around) : await open(globals, around);
    const module = await verb.load();
    return { kind: 'outcome', outcome: await module.run(context as Given, options as never) };
  } catch (error) {
    return { kind: 'failure', error: isAbort(error) ? interrupted(interruption.by(), verb.name) : error };
  } finally {
    emit.end();
    if (context && 'close' in context) await context.close().catch(() => undefined);
  }
}

/** A verb uses the context that it was opened with; verbs.ts says which one that is. */
type Given = Context & EnvContext;

async function open(globals: Globals, around: Surroundings): Promise<Context> {
  const { openContext } = await import('../operations/context.ts');
  return openContext(globals, around);
}

async function openLight(globals: Globals, around: Surroundings): Promise<EnvContext> {
  const { openEnvContext } = await import('../operations/env-context.ts');
  return openEnvContext(globals, around);
}

function usageError(error: CommanderError, command: string): OpsError {
  const isBare = error.code === 'commander.help';
  const message = isBare ? 'No verb was given.' : error.message.replace(/^error: /, '');
  return new OpsError('USAGE', {
    message,
    next: [command === '' ? 'gameops --help' : `gameops ${command} --help`],
    cause: error,
  });
}

async function openSink(speaker: Speaker, globals: Globals): Promise<Emit & { end(): void }> {
  if (speaker.isJson) {
    const { jsonSink } = await import('../report/json.ts');
    return Object.assign(
      jsonSink((line) => process.stderr.write(line)),
      { end: () => undefined },
    );
  }
  const [{ terminalSink }, { styleFor }] = await Promise.all([
    import('../report/terminal.ts'),
    import('../report/style.ts'),
  ]);
  return terminalSink(process.stderr, {
    style: styleFor({ isTty: process.stderr.isTTY === true, refused: speaker.noColour, env: process.env }),
    isQuiet: globals.quiet === true,
    isVerbose: globals.verbose === true,
  });
}

/** The first signal asks the verb to stop at a safe boundary, the second one ends the process. */
function watchSignals(emit: (event: Event) => void): { signal: AbortSignal; by(): StopSignal | null } {
  const controller = new AbortController();
  let by: StopSignal | null = null;
  const onSignal = (signal: StopSignal) => {
    if (by !== null) process.exit(signal === 'SIGINT' ? exitCode.interrupted : exitCode.terminated);
    by = signal;
    emit({ type: 'interrupted', signal });
    controller.abort();
  };
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  return { signal: controller.signal, by: () => by };
}

function interrupted(by: StopSignal | null, verb: string): OpsError {
  return new OpsError(by === 'SIGTERM' ? 'TERMINATED' : 'INTERRUPTED', {
    message: `${verb} was stopped by ${by ?? 'a signal'} before it was done.`,
    next: ['gameops status'],
    facts: { signal: by },
  });
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === 'AbortError';
}

/** `gameops status | head` closes our pipe early; a deploy must not die of that. */
function ignoreClosedPipe(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE' && error.code !== 'ERR_STREAM_DESTROYED') throw error;
}

function asks(argv: readonly string[], flag: string): boolean {
  const end = argv.indexOf('--');
  return (end < 0 ? argv : argv.slice(0, end)).includes(flag);
}

/** The verb that was meant, known before parsing: a usage error has to name it too. */
function commandIn(argv: readonly string[]): string {
  const taking = new Set(['--project', '--config', '--env-file']);
  const words = argv.filter((word, at) => !word.startsWith('-') && !taking.has(argv[at - 1] ?? ''));
  const [first = '', second = ''] = words[0] === 'help' ? words.slice(1) : words;
  const names = new Set(verbs.map((verb) => verb.name));
  if (names.has(`${first} ${second}`)) return `${first} ${second}`;
  return names.has(first) || first in groups ? first : '';
}

function versionOfPackage(): string {
  const text = readFileSync(join(packageRoot(), 'package.json'), 'utf8');
  return String((JSON.parse(text) as { version: string }).version);
}
