/**
 * .env and the process environment, joined and checked. The process environment wins over the file, KEY_FILE names a
 * file that holds the value of KEY. Promises that no value ever reaches a message.
 */
import { readFileSync, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parseEnv } from 'node:util';
import { OpsError } from '../errors.ts';
import {
  type KnownSettings,
  knownSettings,
  type SettingKey,
  type SettingProblem,
  settingKeys,
} from './schema.ts';

export type Source = 'process' | 'process-file' | 'file' | 'file-file';

export interface EnvFile {
  path: string;
  /** False when everything comes from the process environment. */
  exists: boolean;
  /** Every setting for the game server as text: those of the schema and whatever else .env holds. */
  values: Record<string, string>;
  settings: KnownSettings;
  /** Where each value came from, for `doctor` and later `env explain`. */
  sources: Record<string, Source>;
  /** Octal, when others than its owner may read or write the file. */
  looseMode: string | null;
}

export interface EnvRequest {
  path: string;
  environment: Readonly<Record<string, string | undefined>>;
  /** The bundled server says which settings it needs; of any other image only it knows. */
  isBundled: boolean;
  /** Told every value that was met, also one that is overridden or wrong. */
  keep?: (key: string, value: string) => void;
}

/** @throws ENV_MISSING (no file and nothing set), ENV_INVALID (every problem at once), DB_HOST_LOOPBACK */
export function readEnvFile({ path, environment, isBundled, keep = () => undefined }: EnvRequest): EnvFile {
  const file = readFile(path);
  const joined = join(file ?? {}, path, environment);
  for (const from of [file ?? {}, joined.values])
    for (const [key, value] of Object.entries(from)) keep(key, value);
  if (file === null && isBundled && Object.keys(joined.sources).length === 0) throw missing(path);

  const check = knownSettings(joined.values, { isBundled });
  const problems = [...joined.problems, ...(check.ok ? [] : check.problems)];
  if (!check.ok || problems.length > 0) throw invalid(path, problems);
  refuseLoopback(check.settings);
  return {
    path,
    exists: file !== null,
    values: joined.values,
    settings: check.settings,
    sources: joined.sources,
    looseMode: file === null ? null : looseMode(path),
  };
}

interface Joined {
  values: Record<string, string>;
  sources: Record<string, Source>;
  problems: SettingProblem[];
}

function join(file: Record<string, string>, path: string, environment: EnvRequest['environment']): Joined {
  const joined: Joined = { values: {}, sources: {}, problems: [] };
  const indirect = new Set(settingKeys.map((key) => `${key}_FILE`));
  const layers = [
    { from: file, own: 'file', pointed: 'file-file', folder: dirname(path) },
    { from: environment, own: 'process', pointed: 'process-file', folder: process.cwd() },
  ] as const;
  for (const { from, own, pointed, folder } of layers) {
    for (const key of settingKeys) takePointed(joined, key, from[`${key}_FILE`], { source: pointed, folder });
    for (const [key, value] of Object.entries(from)) {
      const isOurs = own === 'file' || key in file || settingKeys.includes(key as SettingKey);
      if (value === undefined || value === '' || indirect.has(key) || !isOurs) continue;
      joined.values[key] = value;
      joined.sources[key] = own;
    }
  }
  return joined;
}

function takePointed(
  joined: Joined,
  key: SettingKey,
  target: string | undefined,
  { source, folder }: { source: Source; folder: string },
): void {
  if (!target) return;
  try {
    // Editors and `echo` end files with a newline that is no part of the secret.
    joined.values[key] = readFileSync(resolve(folder, target), 'utf8').replace(/\r?\n$/, '');
    joined.sources[key] = source;
  } catch {
    joined.problems.push({ key: `${key}_FILE`, expected: 'the path of a file that can be read' });
  }
}

function readFile(path: string): Record<string, string> | null {
  try {
    // A byte order mark would become part of the first key.
    const parsed = parseEnv(readFileSync(path, 'utf8').replace(/^\uFEFF/, ''));
    return Object.fromEntries(Object.entries(parsed).map(([key, value]) => [key, value ?? '']));
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null;
    if (code === 'ENOENT') return null;
    throw new OpsError('ENV_INVALID', {
      message: `${path} can't be read (${String(code)}). Nothing was changed.`,
      next: [`give this user the right to read ${path}`, 'gameops --env-file <path> …'],
      facts: { file: path, reason: String(code) },
    });
  }
}

/** Octal mode of a file that others than its owner may read or write, or null. */
export function looseMode(path: string): string | null {
  const mode = statSync(path).mode & 0o777;
  return (mode & 0o077) === 0 ? null : mode.toString(8).padStart(4, '0');
}

function missing(path: string): OpsError {
  return new OpsError('ENV_MISSING', {
    message: `There is no ${path}, and the environment holds none of the settings either. Nothing was changed.`,
    next: ['gameops init', 'gameops --env-file <path> …'],
    facts: { file: path },
  });
}

function invalid(path: string, problems: readonly SettingProblem[]): OpsError {
  const shown = problems.map(({ key, expected }) => `${key}: expected ${expected}`);
  return new OpsError('ENV_INVALID', {
    message: `The settings of the game server can't be used, nothing was changed.\n${shown.join('\n')}`,
    next: [
      `correct ${path} (values are never shown here)`,
      'gameops init writes a complete one where none is',
    ],
    facts: { file: path, keys: problems.map(({ key }) => key), problems: shown },
  });
}

function refuseLoopback({ database, redis }: KnownSettings): void {
  const isAway = (host: string | null) => host === null || !isLoopback(host);
  const redisHost = redis === null ? null : new URL(redis.REDIS_URL).hostname;
  const key = !isAway(database?.DB_HOST ?? null) ? 'DB_HOST' : !isAway(redisHost) ? 'REDIS_URL' : null;
  if (key === null) return;
  const ours = key === 'DB_HOST' ? 'DB_HOST=postgres' : 'REDIS_URL=redis://:<password>@redis:6379/0';
  throw new OpsError('DB_HOST_LOOPBACK', {
    message:
      `${key} names this machine's loopback. The game server runs in a container, where loopback is the container ` +
      'itself, so it could never reach that. Nothing was changed.',
    next: [
      `${ours} for the one that gameops runs`,
      `put an address into ${key} that containers can reach, such as this machine's own address on its network`,
    ],
    facts: { key },
  });
}

export function isLoopback(host: string): boolean {
  const bare = host.toLowerCase().replace(/^\[|\]$/g, '');
  if (bare === 'localhost' || bare.endsWith('.localhost') || bare === '::1' || bare === '0.0.0.0')
    return true;
  return /^127(\.\d{1,3}){3}$/.test(bare);
}
