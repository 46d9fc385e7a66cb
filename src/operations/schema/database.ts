/**
 * What the db verbs have in common: where the database is, and where its migrations are. An external database needs no
 * engine.
 */
import { existsSync, readdirSync } from 'node:fs';
import { relative, resolve } from 'node:path';
import type pg from 'pg';
import { accessoryHost, namesOf } from '../../contract.ts';
import { isOfMigrations, listMigrations, type Migration, unreadable } from '../../database/migrate/files.ts';
import {
  codeOf,
  type DatabaseEndpoint,
  databaseEndpoint,
  isSqlState,
  type Limits,
  unreachable,
  withClient,
} from '../../database/server/connection.ts';
import { isOpsError, OpsError } from '../../errors.ts';
import { packageRoot } from '../../package-root.ts';
import type { Context, EnvFile } from '../context.ts';

/** @throws NO_DATABASE, DATABASE_UNREACHABLE, ENGINE_UNREACHABLE (for one that gameops runs) */
export async function openEndpoint(
  context: Context,
  env: EnvFile = context.readEnv(),
): Promise<DatabaseEndpoint> {
  const { database } = env.settings;
  if (!database) {
    throw new OpsError('NO_DATABASE', {
      message: `${context.envPath} names no database: there is no DB_HOST. Nothing was changed.`,
      next: ['set DB_HOST, DB_NAME, DB_USER and DB_PASSWORD', 'gameops init'],
    });
  }
  if (database.DB_HOST !== accessoryHost.postgres) {
    const { DB_HOST: host, DB_PORT: port, DB_NAME, DB_USER: user, DB_PASSWORD: password } = database;
    return { host, port, database: DB_NAME, user, password, accessory: null };
  }
  const engine = await context.engine();
  const name = namesOf(context.project).postgres;
  const there = (await engine.observe(context.project)).find((one) => one.name === name);
  if (there?.state !== 'running') {
    const what = there ? `is ${there.state}` : 'was never made on this engine';
    const at = { host: name, port: 5432, database: database.DB_NAME, user: database.DB_USER, password: '' };
    throw unreachable({ ...at, accessory: name }, new Error(`the container ${what}`));
  }
  return databaseEndpoint(engine, context.project, database);
}

/** For verbs that only look. @throws DATABASE_UNREACHABLE */
export function look<T>(
  endpoint: DatabaseEndpoint,
  use: (client: pg.Client) => Promise<T>,
  limits: Limits = {},
): Promise<T> {
  return answered(endpoint, () => withClient(endpoint, use, limits));
}

/** What the server refuses is an answer, too, and no bug. @throws DATABASE_UNREACHABLE */
export async function answered<T>(endpoint: DatabaseEndpoint, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    throw !isOpsError(error) && isSqlState(codeOf(error)) ? unreachable(endpoint, error) : error;
  }
}

/** The bundled server's come with gameops; any other image has a folder of its own. It need not be there. */
export function migrationsFolder(context: Context): string {
  return context.config.server.image === 'bundled'
    ? resolve(packageRoot(), 'migrations')
    : resolve(context.cwd, context.config.database.migrations);
}

/** @throws NO_MIGRATIONS, MIGRATION_INVALID */
export async function readMigrations(context: Context): Promise<{ dir: string; files: Migration[] }> {
  const dir = readFolder(context);
  return { dir, files: await listMigrations(dir) };
}

/** @throws NO_MIGRATIONS */
export function readFolder(context: Context): string {
  const dir = migrationsFolder(context);
  const isThere = existsSync(dir);
  if (isThere && namesIn(dir).some(isOfMigrations)) return dir;
  throw new OpsError('NO_MIGRATIONS', {
    message: `there are no migrations in ${dir}${isThere ? '' : ', which does not exist'}; nothing was run`,
    next: ['gameops db create <name>', 'or correct database.migrations in gameops.yaml'],
    facts: { folder: dir },
  });
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch (error) {
    throw unreadable(dir, error as NodeJS.ErrnoException);
  }
}

/** A path as a person in this folder would write it. */
export function shownPath(context: Context, path: string): string {
  const near = relative(context.cwd, path);
  return near.startsWith('..') ? path : near;
}
