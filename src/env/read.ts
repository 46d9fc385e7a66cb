/**
 * .env and the process environment, joined and checked, for the verbs that move releases. sources.ts has the order of
 * precedence. Promises that no value ever reaches a message.
 */
import { existsSync, statSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { OpsError } from '../errors.ts';
import { isLoopback } from '../hosts.ts';
import { formatBytes } from '../units.ts';
import { envBytesMax, readUpTo } from './file/text.ts';
import { type EnvText, readTokens, settingsIn, valuesIn } from './file/tokens.ts';
import { type KnownSettings, knownSettings, type SettingProblem, settingKeys } from './settings.ts';
import { type Gathered, gather, type Source, winners } from './sources.ts';
import { type UserKeys, userProblems } from './user-keys.ts';

export type { Source };

export interface EnvFile {
  path: string;
  /** False when everything comes from the process environment. */
  exists: boolean;
  /** Every setting for the game server as text: the known settings and all others that .env holds. */
  values: Record<string, string>;
  settings: KnownSettings;
  /** Where each value came from. */
  sources: Record<string, Source>;
  /** Octal mode, when users other than the owner may read or write the file. */
  looseMode: string | null;
  /** The text that was read, for the rules. */
  text: EnvText;
  gathered: Gathered;
}

export interface EnvRequest extends ExtraSources {
  path: string;
  environment: Readonly<Record<string, string | undefined>>;
  /** The bundled server says which settings it needs; of another image only that image knows. */
  isBundled: boolean;
  /** Called with every value that was read, also an overridden or wrong one. */
  keep?: (key: string, value: string) => void;
}

/** The sources that gameops.yaml names under `env`. */
export interface ExtraSources {
  userKeys?: UserKeys;
  provider?: string | undefined;
}

/** @throws ENV_MISSING (no file and nothing set), ENV_INVALID (every problem at once), DB_HOST_LOOPBACK */
export function readEnvFile(request: EnvRequest): EnvFile {
  const { path, environment, isBundled, keep = () => undefined, userKeys = {} } = request;
  const text = readText(path);
  const tokens = readTokens(text ?? '');
  const gathered = gatherFor(tokens, { ...request, folder: dirname(path), environment });
  const won = winners(gathered);
  for (const [key, origins] of gathered.origins) for (const { value } of origins) keep(key, value);
  if (text === null && isBundled && won.size === 0 && gathered.problems.length === 0) throw missing(path);

  const values = Object.fromEntries([...won].map(([key, { value }]) => [key, value]));
  const check = knownSettings(values, { isBundled });
  const problems = [
    ...brokenLines(tokens),
    ...gathered.problems.map(({ key, expected }) => ({ key: key ?? 'env.provider', expected })),
    ...(check.ok ? [] : check.problems),
    ...userProblems(userKeys, new Map(Object.entries(values))),
  ];
  if (!check.ok || problems.length > 0) throw invalid(path, problems);
  refuseLoopback(check.settings);
  return {
    path,
    exists: text !== null,
    values,
    settings: check.settings,
    sources: Object.fromEntries([...won].map(([key, { source }]) => [key, source])),
    looseMode: text === null ? null : looseMode(path),
    text: tokens,
    gathered,
  };
}

/** All settings that have a value, and where it comes from. */
export function gatherFor(
  text: EnvText,
  request: ExtraSources & { folder: string; environment: EnvRequest['environment'] },
): Gathered {
  const { folder, environment, userKeys = {}, provider } = request;
  const commands = Object.entries(userKeys).flatMap(([key, { command }]) =>
    command === undefined ? [] : [[key, command] as const],
  );
  return gather({
    file: valuesIn(text),
    folder,
    environment,
    keys: [...new Set([...settingKeys, ...Object.keys(userKeys)])],
    provider,
    commands: new Map(commands),
  });
}

/** Lines that other readers read differently: a value that is cut silently is worse than no value. */
function brokenLines(text: EnvText): SettingProblem[] {
  const lines = text.pieces
    .filter(({ kind, raw }) => kind === 'broken' || raw.includes('\0'))
    .map(({ line }) => line);
  const open = settingsIn(text).filter(({ isUnclosed }) => isUnclosed);
  return [
    ...lines.map((line) => ({ key: `line ${line}`, expected: 'KEY=value or a comment' })),
    ...open.map(({ line }) => ({ key: `line ${line}`, expected: 'a quote that ends where the value does' })),
  ];
}

/** Null when there is none. */
export function readText(path: string): string | null {
  try {
    return readUpTo(path, envBytesMax);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null;
    if (code === 'ENOENT') return null;
    throw unreadable(path, String(code));
  }
}

/** By error code: what is wrong with the file, and the way out. */
const obstacles: Readonly<Record<string, { what: string; way: (path: string) => string }>> = {
  ENOENT: { what: 'there is no such file', way: (path) => `correct the path: ${path}` },
  EISDIR: { what: 'it is a folder', way: (path) => `name a file: ${path} is a folder` },
  EFBIG: {
    what: 'it is too large',
    way: () => `name another file: a .env has at most ${formatBytes(envBytesMax)}`,
  },
  EACCES: { what: 'this user has no right to read it', way: rightTo },
};

function rightTo(path: string): string {
  return `give this user the right to read ${path}`;
}

export function unreadable(path: string, reason: string): OpsError {
  const { what, way } = obstacles[reason] ?? { what: reason, way: rightTo };
  return new OpsError('ENV_UNREADABLE', {
    message: `${path} can't be read: ${what}. Nothing was changed.`,
    next: [way(path), 'gameops init writes a complete .env when there is none'],
    facts: { file: path, reason },
  });
}

/** Octal mode of a file that users other than its owner may read or write, else null. */
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
    message: `The settings of the game server have problems. Nothing was changed.\n${shown.join('\n')}`,
    next: [
      `correct ${path}; values are never shown here`,
      'gameops env check shows every problem with its line',
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
      'itself, so the game server could never reach it. Nothing was changed.',
    next: [
      `${ours} for the server that gameops runs`,
      `put an address into ${key} that containers can reach, such as this machine's own address on its network`,
    ],
    facts: { key },
  });
}

/** The example in the folder of .env, unless another file was named. @throws ENV_UNREADABLE */
export function exampleOf(cwd: string, named: string | undefined, folder: string): EnvText | null {
  const path = named === undefined ? join(folder, '.env.example') : resolve(cwd, named);
  if (named === undefined && !existsSync(path)) return null;
  const text = readText(path);
  if (text === null) throw unreadable(path, 'ENOENT');
  return readTokens(text);
}
