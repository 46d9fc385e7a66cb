/**
 * Gives one database the name of another, with both renames in one transaction. Promises that, whenever the server,
 * gameops or the network fails, one of the two has the name and players can connect to it; and that nothing is dropped.
 *
 * The first rename locks the database: new connections wait for the lock, so none comes in between the end of the old
 * connections and the commit, and no "closed" mark has to be written that a crash would leave behind.
 * https://www.postgresql.org/docs/current/sql-alterdatabase.html
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { OpsError } from '../../errors.ts';
import { codeOf, type DatabaseEndpoint, messageOf } from '../server/connection.ts';
import { quoted, quotedText } from '../server/facts.ts';
import { withAdmin } from './staging.ts';

export interface Swap {
  /** The name that game servers use. */
  live: string;
  /** The database that gets this name. */
  incoming: string;
  /** The new name of the present database. */
  aside: string;
  /** Comment on the database that is put aside, for people. */
  comment: string;
  at?: (stage: 'swapping' | 'swapping-half' | 'swapped') => void;
}

export interface Swapped {
  /** Time in which nobody could connect. */
  ms: number;
  /** Connections that were ended. */
  connections: number;
}

/** @param admin a connection to a third database @throws RESTORE_FAILED; then the name is where it was */
export async function swapDatabases(
  endpoint: DatabaseEndpoint,
  admin: pg.Client,
  swap: Swap,
): Promise<Swapped> {
  swap.at?.('swapping');
  const began = performance.now();
  let isRenaming = true;
  // At the same time: the rename blocks new connections and waits until the last old one has ended.
  const ending = withAdmin(endpoint, 'gameops', async (other) => {
    let connections = 0;
    while (isRenaming) {
      connections += await endConnections(other, [swap.live, swap.incoming]);
      await sleep(10);
    }
    return connections;
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
  const connections = await ending.catch(() => 0);
  swap.at?.('swapped');
  return { ms, connections };
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
      `SELECT format('%s (%s, connection %s)', usename, coalesce(nullif(application_name, ''), 'unnamed'), pid) AS who
       FROM pg_stat_activity WHERE datname = $1`,
      [database],
    )
    .catch(() => ({ rows: [] }));
  return rows.map(({ who }) => who);
}

function refused({ live }: Swap, cause: unknown, connections: string[]): OpsError {
  const inUse = codeOf(cause) === '55006' && connections.length > 0;
  const who = inUse ? `; still connected: ${connections.slice(0, 5).join(', ')}` : '';
  return new OpsError('RESTORE_FAILED', {
    message: `The database ${live} could not be replaced: ${messageOf(cause)}${who}. It is unchanged, and players can use it again.`,
    next: inUse
      ? [
          'end those connections, or allow the role to do it: GRANT pg_signal_backend TO <DB_USER>',
          'gameops db restore <id>',
        ]
      : ['allow the role to rename databases: ALTER ROLE <DB_USER> CREATEDB', 'gameops db restore <id>'],
    facts: { sqlstate: codeOf(cause), sessions: connections },
    cause,
  });
}
