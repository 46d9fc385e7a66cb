/**
 * What the game server must be told, and which of it is secret. The CLI checks it before it touches anything, the
 * server again at boot. Promises never to echo a value: a problem names the key and what was expected, no more.
 * Imports no package but zod, because the server bundles it.
 */
// The small face of zod: it starts in a twentieth of the time, and messages are our own anyway.
import * as z from 'zod/mini';
import { tokenKeyNames } from '../contract.ts';

const text = (expected: string) => z.string(expected).check(z.minLength(1, expected));
const port = 'a port number, 1 to 65535';
const portNumber = (fallback: number) =>
  z.prefault(
    z.pipe(
      z.pipe(z.string(port).check(z.regex(/^\d{1,5}$/, port)), z.transform(Number)),
      z.number(port).check(z.gte(1, port), z.lte(65_535, port)),
    ),
    String(fallback),
  );

const redisUrl = 'a URL such as redis://:password@host:6379/0 (percent-encode special characters)';
const longText = 'at least 32 random characters';
const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
const modes = ['production', 'development', 'test'] as const;

const serverReader = z.object({
  NODE_ENV: z._default(z.enum(modes, `one of ${modes.join(', ')}`), 'production'),
  PORT: portNumber(3000),
  DB_HOST: text('a host name; "postgres" means the one gameops runs'),
  DB_PORT: portNumber(5432),
  DB_NAME: text('a database name'),
  DB_USER: text('a database role'),
  DB_PASSWORD: text('the password of DB_USER'),
  JWT_SECRET: z.string(longText).check(z.minLength(32, longText)),
  JWT_SECRET_NEXT: z.optional(z.string(longText).check(z.minLength(32, longText))),
  JWT_SECRET_PREVIOUS: z.optional(z.string(longText).check(z.minLength(32, longText))),
  REDIS_URL: z.string(redisUrl).check(z.refine(isRedisUrl, redisUrl)),
  LOG_LEVEL: z._default(z.enum(logLevels, `one of ${logLevels.join(', ')}`), 'info'),
});

export interface SettingAbout {
  purpose: string;
  accepts: string;
  /** As text; null when there is none and the bundled server can't do without. */
  fallback: string | null;
  isSecret: boolean;
  /** Nobody needs it, and nothing stands in for it. */
  isOptional?: true;
}

/** For `env explain` and its like: what each setting is for. */
export const settingAbout: Readonly<Record<keyof z.infer<typeof serverReader>, SettingAbout>> = {
  NODE_ENV: open(
    'how the server runs: in production nobody sees how it is made',
    modes.join(', '),
    'production',
  ),
  PORT: open('port the server listens on in its container', port, '3000'),
  DB_HOST: open('host of the database', 'a host name; "postgres" means the one gameops runs', null),
  DB_PORT: open('port of the database', port, '5432'),
  DB_NAME: open('name of the database', 'a database name', null),
  DB_USER: open('role the server logs in with', 'a database role', null),
  DB_PASSWORD: secret('password of DB_USER', 'text that is not empty'),
  JWT_SECRET: secret("signs players' tokens: whoever has it can play as anybody", longText),
  JWT_SECRET_NEXT: optional(
    'key that will sign next: its tokens are accepted already (gameops env rotate jwt)',
    longText,
  ),
  JWT_SECRET_PREVIOUS: optional(
    'key that signed before: its tokens are still accepted (gameops env rotate jwt)',
    longText,
  ),
  REDIS_URL: secret('where Redis is, with its password', redisUrl),
  LOG_LEVEL: open('how much the server tells', logLevels.join(', '), 'info'),
};

function open(purpose: string, accepts: string, fallback: string | null): SettingAbout {
  return { purpose, accepts, fallback, isSecret: false };
}

function secret(purpose: string, accepts: string): SettingAbout {
  return { purpose, accepts, fallback: null, isSecret: true };
}

function optional(purpose: string, accepts: string): SettingAbout {
  return { ...secret(purpose, accepts), isOptional: true };
}

export type ServerSettings = z.infer<typeof serverReader>;
export type SettingKey = keyof ServerSettings;

export const settingKeys = Object.keys(serverReader.shape) as readonly SettingKey[];

/**
 * A setting that gameops does not know counts as secret: better a name too few in a log than a token too many. REDIS_URL
 * is one, because it carries a password.
 */
export function isSecretKey(key: string): boolean {
  return !Object.hasOwn(settingAbout, key) || settingAbout[key as SettingKey].isSecret;
}

/**
 * Settings that go with a secret: a release that comes back gets those of today, as it gets today's secrets. A password
 * of today opens nothing for a role of then, and a key that players still hold tokens of must not be missing.
 */
const companions: Readonly<Record<string, readonly string[]>> = {
  DB_PASSWORD: ['DB_USER'],
  JWT_SECRET: tokenKeyNames.filter((name) => name !== 'JWT_SECRET'),
};

export const companionsOf = (keys: readonly string[]): string[] =>
  keys.flatMap((key) => (Object.hasOwn(companions, key) ? (companions[key] ?? []) : []));

/** A name that says by itself that it is one. */
export function isRevealing(key: string): boolean {
  return (
    /SECRET|TOKEN|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|PRIVATE_?KEY|API_?KEY/i.test(key) &&
    !key.endsWith('_FILE')
  );
}

export type DatabaseSettings = Pick<
  ServerSettings,
  'DB_HOST' | 'DB_PORT' | 'DB_NAME' | 'DB_USER' | 'DB_PASSWORD'
>;

/** What the CLI itself needs to know. The bundled server has it all; any other image, what it has a use for. */
export interface KnownSettings {
  database: DatabaseSettings | null;
  redis: Pick<ServerSettings, 'REDIS_URL'> | null;
  /** Signs the token that probes join with. */
  jwtSecret: string | null;
}

export interface SettingProblem {
  key: string;
  expected: string;
}

export type SettingsCheck =
  | { ok: true; settings: ServerSettings }
  | { ok: false; problems: SettingProblem[] };

/** Every problem at once. Keys that are not of the schema are left alone. An empty value counts as none. */
export function serverSettings(values: Readonly<Record<string, string | undefined>>): SettingsCheck {
  const given = Object.fromEntries(
    settingKeys.flatMap((key) => (values[key] ? [[key, values[key]] as const] : [])),
  );
  const parsed = serverReader.safeParse(given);
  if (parsed.success) return { ok: true, settings: parsed.data };
  return { ok: false, problems: parsed.error.issues.map(problemOf) };
}

export type KnownCheck = { ok: true; settings: KnownSettings } | { ok: false; problems: SettingProblem[] };

const databaseReader = z.pick(serverReader, {
  DB_HOST: true,
  DB_PORT: true,
  DB_NAME: true,
  DB_USER: true,
  DB_PASSWORD: true,
});
const redisReader = z.pick(serverReader, { REDIS_URL: true });

/**
 * The bundled server needs every setting. For any other image the keys are its own business, but for the two parts
 * that gameops can run or reach: with DB_HOST comes all of DB_*, and REDIS_URL is a URL.
 */
export function knownSettings(
  values: Readonly<Record<string, string | undefined>>,
  { isBundled }: { isBundled: boolean },
): KnownCheck {
  if (isBundled) {
    const all = serverSettings(values);
    if (!all.ok) return all;
    const { DB_HOST, DB_PORT, DB_NAME, DB_USER, DB_PASSWORD, REDIS_URL, JWT_SECRET } = all.settings;
    const database = { DB_HOST, DB_PORT, DB_NAME, DB_USER, DB_PASSWORD };
    return { ok: true, settings: { database, redis: { REDIS_URL }, jwtSecret: JWT_SECRET } };
  }
  const given = Object.fromEntries(Object.entries(values).filter(([, value]) => value));
  const database = given.DB_HOST ? databaseReader.safeParse(given) : null;
  const redis = given.REDIS_URL ? redisReader.safeParse(given) : null;
  const issues = [...(database?.error?.issues ?? []), ...(redis?.error?.issues ?? [])];
  if (issues.length > 0) return { ok: false, problems: issues.map(problemOf) };
  return {
    ok: true,
    settings: {
      database: database?.data ?? null,
      redis: redis?.data ?? null,
      jwtSecret: given.JWT_SECRET ?? null,
    },
  };
}

function problemOf(issue: z.core.$ZodIssue): SettingProblem {
  return { key: String(issue.path[0] ?? ''), expected: issue.message };
}

function isRedisUrl(value: string): boolean {
  if (!URL.canParse(value)) return false;
  const url = new URL(value);
  return (url.protocol === 'redis:' || url.protocol === 'rediss:') && url.hostname !== '';
}
