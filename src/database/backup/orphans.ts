/**
 * Which backups and restores are still being worked on, and what killed ones left. A connection with the name of each
 * shows it; the server ends the connection when its process dies, so no file and no clock is needed.
 */
import type pg from 'pg';
import { quoted } from '../server/facts.ts';
import { applicationNames, stagingPrefix } from './model.ts';

/** Ids of backups that are being made now. */
export async function livingBackups(client: pg.ClientBase): Promise<Set<string>> {
  const prefix = applicationNames.owner('');
  const { rows } = await client.query<{ name: string }>(
    'SELECT application_name AS name FROM pg_stat_activity WHERE starts_with(application_name, $1)',
    [prefix],
  );
  return new Set(rows.map(({ name }) => name.slice(prefix.length)));
}

/**
 * Ends dumps of this database by a killed gameops: they hold locks that a migration would wait for. Dumps of another role
 * stay, because only that role may end them. @returns how many were ended
 */
export async function endOrphans(client: pg.ClientBase): Promise<number> {
  const { rows } = await client.query(
    `SELECT pg_terminate_backend(d.pid) FROM pg_stat_activity d
     WHERE d.datname = current_database() AND d.usename = session_user AND starts_with(d.application_name, $1) AND NOT EXISTS (
       SELECT FROM pg_stat_activity o WHERE o.application_name = $2 || substr(d.application_name, length($1) + 1))`,
    [applicationNames.dump(''), applicationNames.owner('')],
  );
  return rows.length;
}

/** Drops staging databases that a killed restore left, never one that players used. @returns their names */
export async function dropOrphans(client: pg.ClientBase): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT datname AS name FROM pg_database WHERE starts_with(datname, $1) AND NOT EXISTS (
       SELECT FROM pg_stat_activity o WHERE o.application_name = datname)`,
    [stagingPrefix],
  );
  const dropped: string[] = [];
  for (const { name } of rows) {
    // Another role owns it, or the server is read-only: it stays, and costs only disk space.
    const gone = await client.query(`DROP DATABASE IF EXISTS ${quoted(name)} WITH (FORCE)`).then(
      () => true,
      () => false,
    );
    if (gone) dropped.push(name);
  }
  return dropped;
}

/** For connections that mark a backup or a restore as alive: no idle limit of the server may end them. */
export async function keepAlive(client: pg.ClientBase): Promise<void> {
  await client.query(
    `SELECT set_config(name, '0', false) FROM pg_settings
     WHERE name IN ('idle_session_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')`,
  );
}
