/**
 * One database takes the name of another, both renames in one transaction. Promises that a server, gameops or a network
 * that dies at any moment leaves the name with one of the two, open to players; and that nothing is dropped.
 *
 * The first rename locks the database for whoever connects: they wait for the lock, so nobody comes in between the end of
 * the old sessions and the commit, and no "closed" has to be written that a crash would leave behind.
 * https://www.postgresql.org/docs/current/sql-alterdatabase.html
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { OpsError } from '../../errors.ts';
import { codeOf, type DatabaseEndpoint, messageOf } from '../server/connection.ts';
import { quoted, quotedText } from '../server/facts.ts';
import { withAdmin } from './staging.ts';

export interface Swap {
  /** The name that players know. */
  live: string;
  /** What gets that name. */
  incoming: string;
  /** What the database of that name is called from then on. */
  aside: string;
  /** Kept with the one that is put aside, for people. */
  comment: string;
  at?: (stage: 'swapping' | 'swapping-half' | 'swapped') => void;
}

export interface Swapped {
  /** From the first to the last moment in which nobody could connect. */
  ms: number;
  /** Sessions that were ended. */
  sessions: number;
}

/** @param admin beside both databases @throws RESTORE_FAILED with the name where it was */
export async function swapDatabases(
  endpoint: DatabaseEndpoint,
  admin: pg.Client,
  swap: Swap,
): Promise<Swapped> {
  swap.at?.('swapping');
  const began = performance.now();
  let isRenaming = true;
  // Beside the rename: that one waits, with the door shut, until the last session of the database has ended.
  const ending = withAdmin(endpoint, 'gameops', async (other) => {
    let sessions = 0;
    while (isRenaming) {
      sessions += await endConnections(other, [swap.live, swap.incoming]);
      await sleep(10);
    }
    return sessions;
  });
  ending.catch(() => undefined);
  try {
    await rename(admin, swap);
  } catch (error) {
    await admin.query('ROLLBACK').catch(() => undefined);
    throw refused(swap, error, await connectionsIn(admin, swap.live));
  } finally {
    isRenaming = false;
  }
  const ms = Math.round(performance.now() - began);
  const sessions = await ending.catch(() => 0);
  swap.at?.('swapped');
  return { ms, sessions };
}

async function rename(admin: pg.Client, { live, incoming, aside, comment, at }: Swap): Promise<void> {
  await admin.query('BEGIN');
  await admin.query(`SET LOCAL lock_timeout = '3s'`);
  await admin.query(`ALTER DATABASE ${quoted(live)} RENAME TO ${quoted(aside)}`);
  at?.('swapping-half');
  await admin.query(`ALTER DATABASE ${quoted(incoming)} RENAME TO ${quoted(live)}`);
  await admin.query(`COMMENT ON DATABASE ${quoted(live)} IS NULL`);
  await admin.query(`COMMENT ON DATABASE ${quoted(aside)} IS ${quotedText(comment)}`);
  await admin.query('COMMIT');
}

async function endConnections(client: pg.Client, databases: string[]): Promise<number> {
  const { rowCount } = await client.query(
    'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY($1) AND pid <> pg_backend_pid()',
    [databases],
  );
  return rowCount ?? 0;
}

async function connectionsIn(client: pg.Client, database: string): Promise<string[]> {
  const { rows } = await client
    .query<{ who: string }>(
      `SELECT format('%s (%s, session %s)', usename, coalesce(nullif(application_name, ''), 'unnamed'), pid) AS who
       FROM pg_stat_activity WHERE datname = $1`,
      [database],
    )
    .catch(() => ({ rows: [] }));
  return rows.map(({ who }) => who);
}

function refused({ live }: Swap, cause: unknown, sessions: string[]): OpsError {
  const inUse = codeOf(cause) === '55006' && sessions.length > 0;
  const who = inUse ? `; still in it: ${sessions.slice(0, 5).join(', ')}` : '';
  return new OpsError('RESTORE_FAILED', {
    message: `${live} could not be exchanged: ${messageOf(cause)}${who}. It is as it was; players are on it again.`,
    next: inUse
      ? [
          'end those sessions, or let the role do it: GRANT pg_signal_backend TO <DB_USER>',
          'gameops db restore <id>',
        ]
      : ['let the role rename databases: ALTER ROLE <DB_USER> CREATEDB', 'gameops db restore <id>'],
    facts: { sqlstate: codeOf(cause), sessions },
    cause,
  });
}
