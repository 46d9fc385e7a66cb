/**
 * Takes the schema forward. Promises: one transaction per migration, whole or not at all; waits for a lock never
 * hold players up longer than the session's lock timeout; two runners never run the same migration.
 * Never runs a contract migration: the release before may still need what it removes.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { OpsError } from '../errors.ts';
import type { Emit } from '../report/events.ts';
import {
  codeOf,
  type DatabaseEndpoint,
  isConnectionLoss,
  messageOf,
  unreachable,
  withClient,
} from './connection.ts';
import { listMigrations, type Migration } from './migration-files.ts';

const table = 'pgmigrations';

/** node-pg-migrate's PG_MIGRATE_LOCK_ID, held equal by a test: the package itself is loaded only to run a migration. */
export const migrationLockKey = 7_241_865_325_823_964;

export interface PendingMigrations {
  /** Names that a deploy runs, in order. */
  expand: string[];
  /** Names that wait for a separate act. */
  contract: string[];
}

/** Reads, changes nothing: not even the table of applied migrations is made. @throws MIGRATION_INVALID */
export async function pendingMigrations(client: pg.ClientBase, dir: string): Promise<PendingMigrations> {
  const [migrations, applied] = [await listMigrations(dir), await appliedMigrations(client)];
  const pending = migrations.filter(({ name }) => !applied.has(name));
  const namesIn = (phase: Migration['phase']) =>
    pending.filter((one) => one.phase === phase).map(({ name }) => name);
  return { expand: namesIn('expand'), contract: namesIn('contract') };
}

export async function appliedMigrations(client: pg.ClientBase): Promise<Set<string>> {
  const { rows } = await client.query<{ there: boolean }>(
    `SELECT to_regclass('public.${table}') IS NOT NULL AS there`,
  );
  if (!rows[0]?.there) return new Set();
  const applied = await client.query<{ name: string }>(`SELECT name FROM public.${table}`);
  return new Set(applied.rows.map(({ name }) => name));
}

export interface MigrateOptions {
  emit: Emit;
  /** Heeded between migrations and while waiting, never inside one. */
  signal?: AbortSignal;
  /** Those of the plan; others that are pending are left. Default: every pending expand migration. */
  names?: readonly string[];
  /** Bound of all waiting for locks together. */
  waitMs?: number;
  /** Bound of one statement of a migration. */
  statementMs?: number;
}

export interface Applied {
  name: string;
  ms: number;
}

/**
 * Those of `names` that are applied already are passed over, so it repeats safely.
 * @throws MIGRATION_INVALID, MIGRATION_FAILED, MIGRATION_BUSY, DATABASE_UNREACHABLE; the reason of `signal`
 */
export async function migrateForward(
  endpoint: DatabaseEndpoint,
  dir: string,
  options: MigrateOptions,
): Promise<{ applied: Applied[] }> {
  const chosen = chooseMigrations(await listMigrations(dir), options.names);
  const deadline = Date.now() + (options.waitMs ?? 60_000);
  const applied: Applied[] = [];
  await withClient(
    endpoint,
    async (client) => {
      await takeLock(client, deadline, options.signal);
      if (chosen.length > 0) await ensureTable(client);
      // Looked at under the lock: another runner may just have applied some of them.
      const done = await appliedMigrations(client);
      for (const migration of chosen.filter(({ name }) => !done.has(name))) {
        options.signal?.throwIfAborted();
        const started = performance.now();
        await runWithRetry({ endpoint, client, dir, migration, applied, deadline, options });
        const ms = Math.round(performance.now() - started);
        applied.push({ name: migration.name, ms });
        options.emit({
          type: 'note',
          level: 'info',
          message: `migration ${migration.name} applied in ${ms} ms`,
        });
      }
    },
    // The lock ends with the session, so no unlock can fail or be forgotten.
    { statementMs: options.statementMs ?? 600_000 },
  );
  return { applied };
}

function chooseMigrations(migrations: Migration[], names: readonly string[] | undefined): Migration[] {
  const expand = migrations.filter(({ phase }) => phase === 'expand');
  if (!names) return expand;
  const missing = names.filter((name) => !expand.some((migration) => migration.name === name));
  if (missing.length > 0) {
    throw new OpsError('MIGRATION_INVALID', {
      message: `the plan names migrations that the folder no longer has as expand migrations: ${missing.join(', ')}; nothing was run`,
      next: ['gameops deploy --plan'],
      facts: { missing },
    });
  }
  return expand.filter(({ name }) => names.includes(name));
}

// The lock --------------------------------------------------------------------------------------------------------

/**
 * node-pg-migrate's own key, so that a stray run of it is excluded too. By polling: a session that waits inside
 * pg_advisory_lock holds a snapshot that CREATE INDEX CONCURRENTLY of the holder waits for, and both wait for ever.
 */
async function takeLock(client: pg.Client, deadline: number, signal: AbortSignal | undefined): Promise<void> {
  for (;;) {
    signal?.throwIfAborted();
    const { rows } = await client.query<{ got: boolean }>('SELECT pg_try_advisory_lock($1) AS got', [
      migrationLockKey,
    ]);
    if (rows[0]?.got) return;
    if (Date.now() > deadline) throw await busy(client, 'another migration run holds the lock', lockHolders);
    await pause(200, signal);
  }
}

/** As node-pg-migrate makes it; made here because its own failure hides the server's answer. */
async function ensureTable(client: pg.Client): Promise<void> {
  try {
    await client.query(`CREATE TABLE IF NOT EXISTS public.${table}
      (id serial PRIMARY KEY, name varchar(255) NOT NULL, run_on timestamp NOT NULL)`);
  } catch (error) {
    throw new OpsError('MIGRATION_FAILED', {
      message: `the table of applied migrations could not be made: ${messageOf(error)}; nothing was run`,
      next:
        codeOf(error) === '42501'
          ? ['let the role make tables: GRANT CREATE ON SCHEMA public TO <DB_USER>']
          : ['check that the server is the primary and writable', 'gameops doctor'],
      facts: { sqlstate: codeOf(error) },
      cause: error,
    });
  }
}

/** Ends early with the reason of `signal`, not with the timer's own error. */
async function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(ms, undefined, signal ? { signal } : {}).catch(() => signal?.throwIfAborted());
}

const session = `pid, usename, coalesce(application_name, '') AS application, state,
  extract(epoch FROM now() - coalesce(xact_start, backend_start))::int AS seconds`;
const lockHolders = `SELECT ${session} FROM pg_locks JOIN pg_stat_activity USING (pid)
  WHERE locktype = 'advisory' AND granted AND ((classid::bigint << 32) | objid::bigint) = ${migrationLockKey}`;
const oldestTransaction = `SELECT ${session} FROM pg_stat_activity
  WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
  ORDER BY xact_start LIMIT 1`;

interface Session {
  pid: number;
  usename: string;
  application: string;
  state: string;
  seconds: number;
}

async function busy(client: pg.Client, what: string, query: string): Promise<OpsError> {
  const { rows } = await client.query<Session>(query).catch(() => ({ rows: [] as Session[] }));
  const [who] = rows;
  const name = who
    ? `session ${who.pid} of ${who.usename} (${who.application || 'unnamed'}), ${who.state} for ${who.seconds} s`
    : '';
  return new OpsError('MIGRATION_BUSY', {
    message: `${what}${name ? `: ${name}` : ''}; the schema is unchanged, players are not affected`,
    next: [
      'run the command again when that session is done',
      ...(who ? [`or end it: SELECT pg_terminate_backend(${who.pid})`] : []),
    ],
    facts: who ? { pid: who.pid, user: who.usename, application: who.application, seconds: who.seconds } : {},
  });
}

// One migration ---------------------------------------------------------------------------------------------------

interface Run {
  endpoint: DatabaseEndpoint;
  client: pg.Client;
  dir: string;
  migration: Migration;
  applied: readonly Applied[];
  deadline: number;
  options: MigrateOptions;
}

/** lock_not_available and deadlock_detected: nothing was done and it may well work in a moment. */
const worthRetrying = ['55P03', '40P01'];

async function runWithRetry(run: Run): Promise<void> {
  for (let pauseMs = 100; ; pauseMs = Math.min(pauseMs * 2, 2_000)) {
    try {
      return await runOne(run);
    } catch (error) {
      // node-pg-migrate leaves the session inside the failed transaction.
      await run.client.query('ROLLBACK').catch(() => {});
      if (!worthRetrying.includes(codeOf(error))) throw failure(run, error);
      if (Date.now() + pauseMs > run.deadline) {
        throw await busy(
          run.client,
          `migration ${run.migration.name} waited too long for a lock`,
          oldestTransaction,
        );
      }
    }
    run.options.emit({
      type: 'note',
      level: 'detail',
      message: `migration ${run.migration.name} found its table in use; trying again in ${pauseMs} ms`,
    });
    await pause(pauseMs, run.options.signal);
  }
}

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** Given just that file, and its text from the strict reader: node-pg-migrate's own would run a down as an up. */
async function runOne({ client, dir, migration }: Run): Promise<void> {
  const file = `${migration.name}.sql`;
  const { runner } = await import('node-pg-migrate');
  const ran = await runner({
    dbClient: client,
    dir,
    ignorePattern: `(?!${file.replaceAll('.', '\\.')}$).*`,
    direction: 'up',
    count: 1,
    checkOrder: false,
    noLock: true,
    migrationsTable: table,
    singleTransaction: false,
    logger: silent,
    migrationLoaderStrategies: [
      {
        extensions: ['.sql'],
        loader: async (filePaths) =>
          filePaths.map((id) => ({
            id,
            filePaths: [id],
            actions: { up: (pgm) => pgm.sql(migration.up), down: (pgm) => pgm.sql(migration.down) },
          })),
      },
    ],
  });
  if (ran.length !== 1 || ran[0]?.name !== migration.name) throw new Error(`${file} is no longer there`);
}

function failure({ endpoint, migration, applied }: Run, error: unknown): OpsError {
  if (isConnectionLoss(error)) return unreachable(endpoint, error);
  const { constraint, table: inTable, column, hint } = error as Record<string, string | undefined>;
  const before = applied.map(({ name }) => name);
  const kept =
    before.length > 0 ? `; ${before.join(', ')} before it stay applied, any release can live with them` : '';
  return new OpsError('MIGRATION_FAILED', {
    message: `migration ${migration.name} failed: ${messageOf(error)}. It was rolled back whole${kept}; players are where they were`,
    next: [
      `correct ${migration.name}.sql and deploy again`,
      'gameops deploy --plan',
      ...(hint ? [hint] : []),
    ],
    facts: {
      migration: migration.name,
      sqlstate: codeOf(error),
      ...(inTable ? { table: inTable } : {}),
      ...(column ? { column } : {}),
      ...(constraint ? { constraint } : {}),
      applied: before,
    },
    cause: error,
  });
}
