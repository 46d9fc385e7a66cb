/**
 * The database of a project: where it is, where its migrations are, and what an act reads of it and does to it. An
 * external database needs no engine. What is to be done to the schema is read once, under the lock.
 */

import { existsSync, readdirSync } from 'node:fs';
import { relative, resolve } from 'node:path';
import type pg from 'pg';
import type { SchemaSeen } from '../../boot-rule.ts';
import { accessoryHost, namesOf } from '../../contract.ts';
import { findBackup, listUndos, restoreBackup } from '../../database/backup/restore.ts';
import {
  type BackupAccess,
  mustHaveRoomForBackup,
  pruneBackups,
  takeBackup,
} from '../../database/backup/take.ts';
import { type BackPlan, migrateBack, planBack } from '../../database/migrate/back.ts';
import { isOfMigrations, listMigrations, type Migration, unreadable } from '../../database/migrate/files.ts';
import { migrateForward } from '../../database/migrate/forward.ts';
import { type Ledger, readLedger } from '../../database/migrate/ledger.ts';
import { type SchemaState, schemaStateOf } from '../../database/migrate/pending.ts';
import {
  codeOf,
  type DatabaseEndpoint,
  databaseEndpoint,
  isSqlState,
  type Limits,
  unreachable,
  withClient,
} from '../../database/server/connection.ts';
import type { Engine } from '../../engine/port.ts';
import { isOpsError, OpsError } from '../../errors.ts';
import { isSameHost } from '../../hosts.ts';
import { resolveImages } from '../../images/roles.ts';
import { packageRoot } from '../../package-root.ts';
import type { Intent, SchemaWish, SchemaWork } from '../../release/model.ts';
import { type Origin, originOfImage } from '../../release/origin.ts';
import { noSchemaWork } from '../../runner/observe.ts';
import type { Database } from '../../runner/outside.ts';
import type { Context, EnvFile } from '../context.ts';

/** @throws NO_DATABASE, DATABASE_UNREACHABLE, ENGINE_UNREACHABLE (for one that gameops runs) */
export async function openEndpoint(
  context: Context,
  env: EnvFile = context.readEnv(),
): Promise<DatabaseEndpoint> {
  const { database } = env.settings;
  if (!database) {
    throw new OpsError('NO_DATABASE', {
      message: `${context.envPath} names no database: DB_HOST is not set. Nothing was changed.`,
      next: ['set DB_HOST, DB_NAME, DB_USER and DB_PASSWORD', 'gameops init'],
    });
  }
  if (!isSameHost(database.DB_HOST, accessoryHost.postgres)) {
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

/** For verbs that only read. @throws DATABASE_UNREACHABLE */
export function look<T>(
  endpoint: DatabaseEndpoint,
  use: (client: pg.Client) => Promise<T>,
  limits: Limits = {},
): Promise<T> {
  return answered(endpoint, () => withClient(endpoint, use, limits));
}

/** A refusal by the server is an answer, too, and no bug. @throws DATABASE_UNREACHABLE */
export async function answered<T>(endpoint: DatabaseEndpoint, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    throw !isOpsError(error) && isSqlState(codeOf(error)) ? unreachable(endpoint, error) : error;
  }
}

/** The bundled server's migrations come with gameops; an own image has a folder of its own, which need not be there. */
export const migrationsFolder = (
  context: Context,
  origin = originOfImage(context.config.server.image),
): string =>
  origin === 'bundled'
    ? resolve(packageRoot(), 'migrations')
    : resolve(context.cwd, context.config.database.migrations);

/** The same for a deploy, which an own image may bring no migrations to: null when it has no such folder. */
export function migrationsDir(context: Context, origin: Origin): string | null {
  const folder = migrationsFolder(context, origin);
  return origin === 'bundled' || existsSync(folder) ? folder : null;
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
    message: `There are no migrations in ${dir}${isThere ? '' : ', which does not exist'}. Nothing was run.`,
    next: ['gameops db create <name>', 'correct database.migrations in gameops.yaml'],
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

/** A path as people in this folder would write it. */
export function shownPath(context: Context, path: string): string {
  const near = relative(context.cwd, path);
  return near.startsWith('..') ? path : near;
}

/** Each project has a folder of its own: two projects with one gameops.yaml must not remove each other's backups. */
export const backupFolder = ({ cwd, config, project }: Context): string =>
  resolve(cwd, config.backup.dir, project);

/** @throws NO_DATABASE, DATABASE_UNREACHABLE */
export async function backupAccess(
  context: Context,
  env: EnvFile = context.readEnv(),
): Promise<BackupAccess> {
  const engine = await context.engine();
  const { postgres } = await resolveImages(engine, context.config);
  return {
    engine,
    project: context.project,
    endpoint: await openEndpoint(context, env),
    image: postgres.info?.id ?? postgres.ref,
    folder: backupFolder(context),
    emit: context.emit,
    signal: context.signal,
  };
}

// In acts -----------------------------------------------------------------------------------------------------

export interface ProjectDatabase extends Database {
  /** null: the settings name no database. @throws MIGRATION_INVALID, DATABASE_UNREACHABLE */
  state(): Promise<SchemaState | null>;
  /** Does not read the folder of migrations. null: the settings name no database. @throws DATABASE_UNREACHABLE */
  ledger(): Promise<SchemaLedger | null>;
  /** Counts what would be lost. @throws DATABASE_UNREACHABLE, MIGRATION_INVALID */
  planBack(names: readonly string[]): Promise<BackPlan>;
  /** What the act on record still has to do to the schema. @throws DATABASE_UNREACHABLE */
  wishLeft(intent: Intent | null): Promise<SchemaWish | null>;
  /** @throws DISK_TOO_FULL */
  mustHaveRoom(): Promise<void>;
}

export interface SchemaLedger {
  ledger: Ledger;
  seen: SchemaSeen;
}

/** Going back is urgent, so an unreachable database is not waited for. */
const connectMs = 2_000;

/** The whole dump is read: one that unpacks to its end is a backup. */
const proof = 'read';

/** @param dir folder of the migrations; null: this image brings none */
export function projectDatabase(
  context: Context,
  engine: Engine,
  env: EnvFile,
  dir: string | null,
): ProjectDatabase {
  const { database } = env.settings;
  const { emit, config } = context;
  const endpoint = (): Promise<DatabaseEndpoint> => {
    if (database === null) throw new Error('a plan has steps for a database that there is none of');
    return databaseEndpoint(engine, context.project, database);
  };
  const access = async (signal: AbortSignal) => ({ ...(await backupAccess(context, env)), signal });
  const ledger = async (): Promise<SchemaLedger | null> => {
    if (database === null) return null;
    const known = await look(await endpoint(), readLedger, { connectMs });
    const applied = new Set(known.applied.map(({ name }) => name));
    return { ledger: known, seen: { applied, floor: known.floor } };
  };
  return {
    async state() {
      if (database === null) return null;
      const at = await endpoint();
      return answered(at, () => schemaStateOf(at, dir));
    },
    ledger,
    planBack: async (names) => look(await endpoint(), (client) => planBack(client, dir, { names })),
    async wishLeft(intent) {
      const wish = intent?.schema ?? null;
      if (wish === null || intent === null || database === null) return null;
      if (wish.kind === 'take-back') return stillApplied(wish, (await ledger())?.seen.applied ?? new Set());
      const undos = await listUndos({ endpoint: await endpoint() });
      return undos.some(({ comment }) => comment.endsWith(markOf(intent.startedAt))) ? null : wish;
    },
    mustHaveRoom: async () => mustHaveRoomForBackup(await access(context.signal), proof),
    async backup({ before, serving, pinned }, signal) {
      const at = await access(signal);
      const reason = `before release ${before}`;
      const { id } = await takeBackup(at, { level: proof, release: serving, reason });
      const removed = await pruneBackups(at.folder, config.backup.keep, new Set([...pinned, id]));
      if (removed.length > 0)
        emit({ type: 'note', level: 'detail', message: `removed older backups: ${removed.join(', ')}` });
      return id;
    },
    async migrate(names, release, signal) {
      if (dir !== null) await migrateForward(await endpoint(), dir, { emit, signal, names, release });
    },
    async takeBack(names, acceptLoss, signal) {
      const { rescued } = await migrateBack(await endpoint(), dir, { names }, { emit, signal, acceptLoss });
      return rescued;
    },
    async restore(id, begun, signal) {
      const at = await access(signal);
      const backup = await findBackup(at.folder, id);
      return (await restoreBackup(at, backup, undefined, markOf(begun))).undo;
    },
  };
}

function stillApplied(
  wish: SchemaWish & { kind: 'take-back' },
  applied: ReadonlySet<string>,
): SchemaWish | null {
  const migrations = wish.migrations.filter((name) => applied.has(name));
  return migrations.length === 0 ? null : { ...wish, migrations };
}

export interface SchemaLook {
  /** null: there is no database of ours. */
  state: SchemaState | null;
  work: SchemaWork;
}

/** @throws MIGRATION_INVALID, DATABASE_UNREACHABLE */
export async function lookAtSchema(database: ProjectDatabase, intent: Intent | null): Promise<SchemaLook> {
  const state = await database.state();
  return { state, work: forwardWork(state, await database.wishLeft(intent)) };
}

/**
 * What a deploy finds to do. Migrations that an unfinished rollback still has to revert count as pending.
 * @param ripe contract migrations whose removals no release misses
 */
export function forwardWork(
  state: SchemaState | null,
  wish: SchemaWish | null,
  ripe: readonly string[] = [],
): SchemaWork {
  if (state === null) return { ...noSchemaWork, wish };
  const goes = new Set(wish?.kind === 'take-back' ? wish.migrations : []);
  const wanted = new Set([...state.pending.expand, ...ripe]);
  const pending = state.files.filter(
    ({ name, phase }) => wanted.has(name) || (phase === 'expand' && goes.has(name)),
  );
  const namesOf = (files: typeof pending) => files.map(({ name }) => name);
  const contracts = namesOf(pending.filter(({ phase }) => phase === 'contract'));
  return { pending: namesOf(pending), contracts, isFilled: state.isFilled, wish };
}

/** Marks the database that a restore put aside, so that a restore by a process that died afterwards is recognised. */
const markOf = (startedAt: string) => ` for the rollback begun ${startedAt}`;
