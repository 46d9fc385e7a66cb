/**
 * The lock of migrations, and who is in the way of a run. Promises: waits by polling, so that there is no deadlock with a
 * concurrent index; every wait has a limit, and the error names the connection that was in the way.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { realClock, until } from '../../clock.ts';
import { OpsError } from '../../errors.ts';
import { type DatabaseEndpoint, withClient } from './connection.ts';

/** Equal to node-pg-migrate's PG_MIGRATE_LOCK_ID, as a test checks: the package is loaded only to run a migration. */
export const migrationLockKey = 7_241_865_325_823_964;

/**
 * Uses node-pg-migrate's own key, which excludes a run of node-pg-migrate itself, too. It polls, because a connection that
 * waits inside pg_advisory_lock holds a snapshot that the holder's CREATE INDEX CONCURRENTLY waits for: both would wait
 * for ever. The lock ends with the connection, so no unlock can fail or be forgotten. @throws MIGRATION_BUSY
 */
export async function takeLock(
  client: pg.Client,
  deadline: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const polling = { deadlineMs: deadline - Date.now(), everyMs: 200, signal };
  const got = await until(realClock, polling, async () => {
    const { rows } = await client.query<{ got: boolean }>('SELECT pg_try_advisory_lock($1) AS got', [
      migrationLockKey,
    ]);
    return rows[0]?.got ? true : null;
  });
  if (got) return;
  const [holder] = await blockersBy(client, holders);
  throw busy('another migration run holds the lock', holder);
}

export interface Blocker {
  pid: number;
  user: string;
  application: string;
  state: string;
  seconds: number;
}

const who = `pid, usename AS user, coalesce(application_name, '') AS application, coalesce(state, 'unknown') AS state,
  extract(epoch FROM now() - coalesce(xact_start, backend_start))::int AS seconds`;
const holders = `SELECT ${who} FROM pg_locks JOIN pg_stat_activity USING (pid)
  WHERE locktype = 'advisory' AND granted AND ((classid::bigint << 32) | objid::bigint) = ${migrationLockKey}`;
const oldestTransaction = `SELECT ${who} FROM pg_stat_activity
  WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
  ORDER BY xact_start LIMIT 1`;

async function blockersBy(client: pg.Client, query: string): Promise<Blocker[]> {
  return client.query<Blocker>(query).then(
    ({ rows }) => rows,
    () => [],
  );
}

/** The most probable blocker, when none was seen: the oldest transaction. */
export async function likelyBlocker(client: pg.Client): Promise<Blocker | undefined> {
  return (await blockersBy(client, oldestTransaction))[0];
}

/** Runs the work, and meanwhile looks from another connection who blocks `pid`. */
export async function watchingBlockers<T>(
  endpoint: DatabaseEndpoint,
  pid: number,
  seen: (blocker: Blocker) => void,
  work: () => Promise<T>,
): Promise<T> {
  const over = new AbortController();
  const watching = withClient(endpoint, async (client) => {
    while (!over.signal.aborted) {
      const [blocker] = await blockersBy(
        client,
        `SELECT ${who} FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids(${Number(pid)})) ORDER BY xact_start`,
      );
      if (blocker) seen(blocker);
      await sleep(100, undefined, { signal: over.signal }).catch(() => {});
    }
  }).catch(() => {});
  try {
    return await work();
  } finally {
    over.abort();
    await watching;
  }
}

export function busy(what: string, blocker: Blocker | undefined): OpsError {
  const name = blocker
    ? `connection ${blocker.pid} of ${blocker.user} (${blocker.application || 'unnamed'}), ${blocker.state} for ${blocker.seconds} s`
    : '';
  return new OpsError('MIGRATION_BUSY', {
    message: `${what}${name ? `: ${name}` : ''}; the schema is unchanged, and players are not affected`,
    next: [
      'run the command again when that connection is done',
      ...(blocker ? [`or end it: SELECT pg_terminate_backend(${blocker.pid})`] : []),
    ],
    facts: blocker
      ? {
          pid: blocker.pid,
          user: blocker.user,
          application: blocker.application,
          seconds: blocker.seconds,
        }
      : {},
  });
}
