/**
 * What the game server must be told, and which of it is secret. The CLI checks it before it touches anything, the
 * server again at boot. Promises never to echo a value: a problem names the key and what was expected, no more.
 * Imports nothing but zod, because the server bundles it.
 */
import { z } from 'zod';

const text = (expected: string) => z.string(expected).min(1, expected);
const portNumber = (fallback: number) =>
  z
    .string()
    .regex(/^\d{1,5}$/, 'a port number, 1 to 65535')
    .transform(Number)
    .refine((port) => port >= 1 && port <= 65_535, 'a port number, 1 to 65535')
    .prefault(String(fallback));

const redisUrl = 'a URL such as redis://:password@host:6379/0 (percent-encode special characters)';
const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const;
const modes = ['production', 'development', 'test'] as const;

const serverSchema = z.object({
  NODE_ENV: z.enum(modes, `one of ${modes.join(', ')}`).default('production'),
  PORT: portNumber(3000),
  DB_HOST: text('a host name; "postgres" means the one gameops runs'),
  DB_PORT: portNumber(5432),
  DB_NAME: text('a database name'),
  DB_USER: text('a database role'),
  DB_PASSWORD: text('the password of DB_USER'),
  JWT_SECRET: z.string('at least 32 random characters').min(32, 'at least 32 random characters'),
  REDIS_URL: z.string(redisUrl).refine(isRedisUrl, redisUrl),
  LOG_LEVEL: z.enum(logLevels, `one of ${logLevels.join(', ')}`).default('info'),
});

export type ServerSettings = z.infer<typeof serverSchema>;
export type SettingKey = keyof ServerSettings;

export const settingKeys = Object.keys(serverSchema.shape) as readonly SettingKey[];

const openKeys = new Set(['NODE_ENV', 'PORT', 'DB_HOST', 'DB_PORT', 'DB_NAME', 'DB_USER', 'LOG_LEVEL']);

/**
 * Whatever we do not know counts as secret: better a name too few in a log than a token too many. REDIS_URL is one,
 * because it carries a password.
 */
export function isSecretKey(key: string): boolean {
  return !openKeys.has(key);
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
  const parsed = serverSchema.safeParse(given);
  if (parsed.success) return { ok: true, settings: parsed.data };
  return { ok: false, problems: parsed.error.issues.map(problemOf) };
}

export type KnownCheck = { ok: true; settings: KnownSettings } | { ok: false; problems: SettingProblem[] };

const databaseSchema = serverSchema.pick({
  DB_HOST: true,
  DB_PORT: true,
  DB_NAME: true,
  DB_USER: true,
  DB_PASSWORD: true,
});
const redisSchema = serverSchema.pick({ REDIS_URL: true });

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
  const database = given.DB_HOST ? databaseSchema.safeParse(given) : null;
  const redis = given.REDIS_URL ? redisSchema.safeParse(given) : null;
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
