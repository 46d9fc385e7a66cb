/**
 * Where a setting comes from, in order of precedence: the process environment, a file that KEY_FILE names, the output of
 * a command, .env. Promises that neither a value nor the output of a failing command reaches a message.
 */
import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { readUpTo, valueBytesMax } from './file/text.ts';
import { readTokens, type Setting, valuesIn } from './file/tokens.ts';

export type Source = 'process' | 'process-file' | 'file-file' | 'command' | 'file';

export interface Origin {
  source: Source;
  value: string;
  /** The setting in .env, or the KEY_FILE in .env that names the file; null when it comes from elsewhere. */
  setting: Setting | null;
}

export interface SourceProblem {
  /** KEY_FILE, or the key that a command should give; null for the command that gives many keys. */
  key: string | null;
  expected: string;
  setting: Setting | null;
}

export interface Gathered {
  /** Every key that has a value, with all its values: the first one counts. */
  origins: Map<string, Origin[]>;
  problems: SourceProblem[];
}

export interface SourceRequest {
  /** The settings of .env; empty when there is no file. */
  file: ReadonlyMap<string, Setting>;
  /** Paths in .env are relative to this folder. */
  folder: string;
  environment: Readonly<Record<string, string | undefined>>;
  /** Keys that may also come from the environment, or from a file of their own. */
  keys: readonly string[];
  /** Prints .env text, or one JSON object. */
  provider: string | undefined;
  /** Commands that print the value of one key. */
  commands: ReadonlyMap<string, string>;
}

export function gather(request: SourceRequest): Gathered {
  const gathered: Gathered = { origins: new Map(), problems: [] };
  const { file, environment, keys } = request;
  const provided = providedValues(request, gathered.problems);
  const pointers = new Set(keys.map((key) => `${key}_FILE`));
  const fileKeys = [...file.keys()].filter((key) => !pointers.has(key));
  for (const key of new Set([...keys, ...fileKeys, ...provided.keys()])) {
    const pointer = file.get(`${key}_FILE`) ?? null;
    const own = file.get(key) ?? null;
    const isPointed = keys.includes(key);
    add(gathered, key, 'process', environment[key], null);
    if (isPointed) {
      addPointed(gathered, key, {
        source: 'process-file',
        target: environment[`${key}_FILE`],
        setting: null,
      });
      const target = pointer && pointer.value !== '' ? resolve(request.folder, pointer.value) : undefined;
      addPointed(gathered, key, { source: 'file-file', target, setting: pointer });
    }
    add(gathered, key, 'command', provided.get(key), null);
    add(gathered, key, 'file', own?.value, own);
  }
  return gathered;
}

/** For every key, the value that counts. */
export function winners({ origins }: Gathered): Map<string, Origin> {
  const won = new Map<string, Origin>();
  for (const [key, [first]] of origins) if (first) won.set(key, first);
  return won;
}

/** The same with the plain settings of gameops.yaml, which have the lowest precedence here. */
export function winnersBeside(
  gathered: Gathered,
  plain: Readonly<Record<string, string>>,
): Map<string, Origin> {
  const won = winners(gathered);
  for (const [key, value] of Object.entries(plain))
    if (!won.has(key)) won.set(key, { source: 'process', value, setting: null });
  return won;
}

/** An empty value counts as no value. */
function add(
  { origins }: Gathered,
  key: string,
  source: Source,
  value: string | undefined,
  setting: Setting | null,
): void {
  if (value === undefined || value === '') return;
  const all = origins.get(key) ?? [];
  all.push({ source, value, setting });
  origins.set(key, all);
}

function addPointed(
  gathered: Gathered,
  key: string,
  { source, target, setting }: { source: Source; target: string | undefined; setting: Setting | null },
): void {
  if (!target) return;
  try {
    // Editors and `echo` end files with a newline that is not a part of the secret.
    add(gathered, key, source, readUpTo(target, valueBytesMax).replace(/\r?\n$/, ''), setting);
  } catch {
    const expected = 'the path of a file that can be read';
    gathered.problems.push({ key: `${key}_FILE`, expected, setting });
  }
}

function providedValues(
  { provider, commands }: SourceRequest,
  problems: SourceProblem[],
): Map<string, string> {
  const values = new Map<string, string>();
  if (provider !== undefined) {
    const printed = outputOf(provider);
    if (printed.ok) for (const [key, value] of manyIn(printed.text)) values.set(key, value);
    else
      problems.push({
        key: null,
        expected: `env.provider of gameops.yaml to succeed (${printed.why})`,
        setting: null,
      });
  }
  for (const [key, command] of commands) {
    const printed = outputOf(command);
    if (printed.ok) values.set(key, printed.text.replace(/\r?\n$/, ''));
    else
      problems.push({
        key,
        expected: `its command in gameops.yaml to succeed (${printed.why})`,
        setting: null,
      });
  }
  return values;
}

const patienceMs = 30_000;

/** Its stderr is not shown: it may contain the secret. */
function outputOf(command: string): { ok: true; text: string } | { ok: false; why: string } {
  const { status, signal, error, stdout } = spawnSync(command, {
    shell: true,
    encoding: 'utf8',
    timeout: patienceMs,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  if (error) return { ok: false, why: 'code' in error ? String(error.code) : 'it could not be started' };
  if (status !== 0) return { ok: false, why: signal ? `ended by ${signal}` : `exit ${status}` };
  return { ok: true, text: stdout };
}

function manyIn(text: string): [string, string][] {
  if (text.trimStart().startsWith('{')) {
    try {
      const parsed = JSON.parse(text) as Record<string, unknown>;
      return Object.entries(parsed).map(([key, value]) => [key, String(value)]);
    } catch {
      // It is not JSON: read as .env text.
    }
  }
  return [...valuesIn(readTokens(text))].map(([key, { value }]) => [key, value]);
}
