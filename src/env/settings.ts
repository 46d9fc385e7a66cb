/**
 * The settings of the game server, and which of them are secret. The CLI checks them before it changes anything, the
 * server checks them again at boot. Promises never to echo a value: a problem names the key and what was expected.
 * Imports no package but zod, because the server bundles it.
 */
// zod/mini starts in a twentieth of the time of zod, and the messages are our own anyway.
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
  DB_HOST: text('a host name; "postgres" means the server that gameops runs'),
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
  /** Default, as text; null when there is none and the bundled server needs the setting. */
  fallback: string | null;
  isSecret: boolean;
  /** The setting may be absent, and has no default. */
  isOptional?: true;
}

/** The purpose of each setting, for `env explain` and the rules. */
export const settingAbout: Readonly<Record<keyof z.infer<typeof serverReader>, SettingAbout>> = {
  NODE_ENV: open(
    'how the server runs; in production, errors show no internal details',
    modes.join(', '),
    'production',
  ),
  PORT: open('port the server listens on in its container', port, '3000'),
  DB_HOST: open('host of the database', 'a host name; "postgres" means the server that gameops runs', null),
  DB_PORT: open('port of the database', port, '5432'),
  DB_NAME: open('name of the database', 'a database name', null),
  DB_USER: open('role the server logs in with', 'a database role', null),
  DB_PASSWORD: secret('password of DB_USER', 'text that is not empty'),
  JWT_SECRET: secret("signs players' tokens: whoever has it can log in as any player", longText),
  JWT_SECRET_NEXT: optional(
    'key that will sign next; its tokens are accepted already (gameops env rotate jwt)',
    longText,
  ),
  JWT_SECRET_PREVIOUS: optional(
    'key that signed before; its tokens are still accepted (gameops env rotate jwt)',
    longText,
  ),
  REDIS_URL: secret('where Redis is, with its password', redisUrl),
  LOG_LEVEL: open('how much the server logs', logLevels.join(', '), 'info'),
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
 * A setting that gameops does not know counts as secret: hiding too much is better than showing a token. REDIS_URL is
 * secret because it contains a password.
 */
export function isSecretKey(key: string): boolean {
  return !Object.hasOwn(settingAbout, key) || settingAbout[key as SettingKey].isSecret;
}

/**
 * Settings that belong to a secret. An older release that starts again gets today's secrets, and today's value of these
 * settings with them: today's password does not fit an older role, and a key whose tokens players still hold must not be
 * missing.
 */
const companions: Readonly<Record<string, readonly string[]>> = {
  DB_PASSWORD: ['DB_USER'],
  JWT_SECRET: tokenKeyNames.filter((name) => name !== 'JWT_SECRET'),
};

export const companionsOf = (keys: readonly string[]): string[] =>
  keys.flatMap((key) => (Object.hasOwn(companions, key) ? (companions[key] ?? []) : []));

/** Whether the name alone shows that the setting is a secret. */
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

/** The settings that the CLI itself uses. The bundled server has them all; another image has those that it needs. */
export interface KnownSettings {
  database: DatabaseSettings | null;
  redis: Pick<ServerSettings, 'REDIS_URL'> | null;
  /** Signs the token with which probes join. */
  jwtSecret: string | null;
}

export interface SettingProblem {
  key: string;
  expected: string;
}

export type SettingsCheck =
  | { ok: true; settings: ServerSettings }
  | { ok: false; problems: SettingProblem[] };

/** Returns every problem at once. Other keys are ignored. An empty value counts as no value. */
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
 * The bundled server needs every setting. Another image decides for itself, except for the two services that gameops can
 * run or reach: with DB_HOST, all of DB_* is required, and REDIS_URL must be a URL.
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
