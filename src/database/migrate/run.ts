/**
 * What applying and reverting migrations have in common: one connection that holds the lock, limits that players don't
 * notice, bounded retries, and the errors.
 */
import type pg from 'pg';
import { realClock } from '../../clock.ts';
import { isOpsError, OpsError } from '../../errors.ts';
import type { Emit } from '../../report/events.ts';
import { counted } from '../../units.ts';
import { endOrphans } from '../backup/orphans.ts';
import {
  codeOf,
  type DatabaseEndpoint,
  isDisconnected,
  isSqlState,
  messageOf,
  unreachable,
  withClient,
} from '../server/connection.ts';
import { type Blocker, busy, likelyBlocker, takeLock, watchingBlockers } from '../server/migration-lock.ts';
import { ensureLedger, ledgerFailed, nextForReadOnly, readOnly, reconcileLedger } from './books.ts';
import { listMigrations, type Migration } from './files.ts';
import type { Ledger } from './ledger.ts';
import { revertStatements, runMigration, type Task, withPatience } from './one.ts';

export interface RunOptions {
  emit: Emit;
  /** The migrations of the folder, when the caller has read them already. */
  files?: readonly Migration[];
  /** Stops the run between migrations and while it waits, never inside a migration. */
  signal?: AbortSignal;
  /** Limit of the wait for the lock of migrations, and of each migration's wait for its tables. */
  waitMs?: number;
  /** Limit of one statement of a migration. */
  statementMs?: number;
  /** SQL that runs last in the transaction of each migration. Without one, in the transaction that writes the ledger. */
  beforeCommit?: string;
}

export interface Done {
  name: string;
  ms: number;
}

export interface Run {
  endpoint: DatabaseEndpoint;
  client: pg.Client;
  pid: number;
  /** null when there is no folder. */
  dir: string | null;
  files: readonly Migration[];
  ledger: Ledger;
  options: RunOptions;
  /** Migrations that failed outside of a transaction, with a finished part that can't be undone. */
  partly: Set<string>;
}

const lockMs = 300;

/** @throws MIGRATION_INVALID, MIGRATION_BUSY, MIGRATION_FAILED, DATABASE_UNREACHABLE; the reason of `signal` */
export async function underLock<T>(
  endpoint: DatabaseEndpoint,
  dir: string | null,
  options: RunOptions,
  use: (run: Run) => Promise<T>,
): Promise<T> {
  // Read before a database is touched.
  const files = dir === null ? [] : (options.files ?? (await listMigrations(dir)));
  // Loaded while the connection is made: both take a moment.
  if (files.length > 0) import('node-pg-migrate').catch(() => {});
  const work = async (client: pg.Client): Promise<T> => {
    await takeLock(client, Date.now() + waitMsOf(options), options.signal);
    options.emit({ type: 'note', level: 'detail', message: 'took the lock of migrations' });
    const ended = await endOrphans(client);
    if (ended > 0)
      options.emit({
        type: 'note',
        level: 'info',
        message: `ended ${counted(ended, 'dump')} of a killed gameops`,
      });
    await ensureLedger(client);
    const { ledger, notes } = await reconcileLedger(client, files);
    for (const message of notes) options.emit({ type: 'note', level: 'info', message });
    const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    const pid = rows[0]?.pid ?? 0;
    return flushedOnce(client, () =>
      use({ endpoint, client, pid, dir, files, ledger, options, partly: new Set() }),
    );
  };
  try {
    return await withClient(endpoint, work, { lockMs, statementMs: statementMsOf(options) });
  } catch (error) {
    if (isOpsError(error)) throw error;
    if (isDisconnected(error)) throw unreachable(endpoint, error);
    throw isSqlState(codeOf(error)) ? ledgerFailed(error) : error;
  }
}

/**
 * Each commit waits for the disk. The server's log is written in order and has a migration together with its row in the
 * ledger, so one wait at the end, before the result is reported, is as safe as one for each migration.
 */
async function flushedOnce<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
  const flush = () => client.query('RESET synchronous_commit; UPDATE gameops.state SET format = format');
  await client.query('SET synchronous_commit = off');
  let done: T;
  try {
    done = await work();
  } catch (error) {
    await flush().catch(() => {});
    throw error;
  }
  await flush();
  return done;
}

const waitMsOf = (options: RunOptions): number => options.waitMs ?? 60_000;
const statementMsOf = (options: RunOptions): number => options.statementMs ?? 600_000;
const waitLimitsOf = (options: RunOptions, deadline: number) => ({
  lockMs,
  statementMs: statementMsOf(options),
  patienceMs: deadline - Date.now(),
});

/** lock_not_available and deadlock_detected: nothing was done, and it may work in a moment. */
const worthRetrying = ['55P03', '40P01'];

/**
 * Runs a migration completely or not at all, also outside of a transaction.
 * @returns ms @throws MIGRATION_BUSY, or the server's error
 */
export async function runWithRetry(run: Run, task: Task): Promise<number> {
  const { client, endpoint, options } = run;
  const started = performance.now();
  const deadline = Date.now() + waitMsOf(options);
  let blocker: Blocker | undefined;
  for (let attempt = 1, pauseMs = 100; ; attempt += 1, pauseMs = Math.min(pauseMs * 2, 2_000)) {
    const once = () => runMigration(client, task, waitLimitsOf(options, deadline));
    // A concurrent statement waits long already in its first attempt.
    const isWatched = attempt > 1 || !task.isTransactional;
    const see = (one: Blocker) => {
      blocker = one;
    };
    try {
      await (isWatched ? watchingBlockers(endpoint, run.pid, see, once) : once());
      return Math.round(performance.now() - started);
    } catch (error) {
      // node-pg-migrate leaves the connection inside the failed transaction.
      await client.query('ROLLBACK').catch(() => {});
      const isWaiting = worthRetrying.includes(codeOf(error));
      if (!isWaiting || Date.now() + pauseMs > deadline) {
        if (!task.isTransactional) await clearAway(run, task);
        if (!isWaiting) throw error;
        throw busy(
          `migration ${task.name} waited too long for a lock`,
          blocker ?? (await likelyBlocker(client)),
        );
      }
    }
    const message = `migration ${task.name} can't lock its table yet; trying again in ${pauseMs} ms`;
    options.emit({ type: 'note', level: 'detail', message });
    await realClock.sleep(pauseMs, options.signal);
  }
}

/** Best effort: what is not undone stays in the journal, and the next run continues it. */
async function clearAway({ client, options, partly }: Run, { name, direction }: Task): Promise<void> {
  const limits = waitLimitsOf(options, Date.now() + 30_000);
  const isBack = await withPatience(client, limits, () => revertStatements(client, name, direction)).catch(
    () => false,
  );
  if (isBack) return;
  partly.add(name);
  const message = `part of migration ${name} is done and can't be undone; the next run continues after that part`;
  options.emit({ type: 'note', level: 'warning', message });
}

/** Undoes migrations that a killed run left half done and that this run does not continue. @throws MIGRATION_INVALID */
export async function settleUnfinished(run: Run, goingOn: (name: string, direction: string) => boolean) {
  const { client, ledger, options } = run;
  for (const { name, direction } of ledger.unfinished.filter((one) => !goingOn(one.name, one.direction))) {
    const limits = waitLimitsOf(options, Date.now() + waitMsOf(options));
    const isBack = await withPatience(client, limits, () => revertStatements(client, name, direction));
    const message = `a killed run left migration ${name} half ${direction === 'up' ? 'applied' : 'reverted'}; ${isBack ? 'this was undone' : "it can't be undone and stays so"}`;
    options.emit({ type: 'note', level: isBack ? 'info' : 'warning', message });
  }
}

export function migrationFailed(
  run: Pick<Run, 'endpoint'>,
  name: string,
  error: unknown,
  around: { what: string; next: [string, ...string[]]; facts: Record<string, readonly string[]> },
): OpsError {
  if (isDisconnected(error)) return unreachable(run.endpoint, error);
  const { constraint, table, column, hint } = error as Record<string, string | undefined>;
  const next = codeOf(error) === readOnly ? nextForReadOnly : around.next;
  return new OpsError('MIGRATION_FAILED', {
    message: `migration ${name} failed: ${messageOf(error)}. ${around.what}; players are not affected`,
    next: [...next, ...(hint ? [hint] : [])],
    facts: {
      migration: name,
      sqlstate: codeOf(error),
      ...(table ? { table } : {}),
      ...(column ? { column } : {}),
      ...(constraint ? { constraint } : {}),
      ...around.facts,
    },
    cause: error,
  });
}
