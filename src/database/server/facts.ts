/** Facts about a database and its content, read in one snapshot. Changes nothing. */
import pg from 'pg';
import type { Activity, DatabaseFacts } from '../backup/model.ts';
import { catalogueOf, fingerprintOf } from './catalogue.ts';

/**
 * Tables whose rows a dump contains: neither temporary tables of other connections nor tables of an extension. Without
 * materialized views: a restore computes them again, so a stale view would differ.
 */
const tablesOfDump = `
  SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
  ORDER BY 1, 2`;

/** "18.1" */
export async function serverVersion(client: pg.ClientBase): Promise<string> {
  const { rows } = await client.query<{ version: string }>(
    `SELECT current_setting('server_version') AS version`,
  );
  return rows[0]?.version.split(' ')[0] ?? '';
}

/** Within the caller's transaction. */
export async function readFacts(client: pg.ClientBase): Promise<DatabaseFacts> {
  const { rows } = await client.query<{ version: string; bytes: string }>(
    `SELECT current_setting('server_version') AS version, pg_database_size(current_database()) AS bytes`,
  );
  return {
    serverVersion: rows[0]?.version.split(' ')[0] ?? '',
    databaseBytes: Number(rows[0]?.bytes ?? 0),
    newestMigration: await newestMigration(client),
    fingerprint: fingerprintOf(await catalogueOf(client)),
    rows: await countRows(client),
  };
}

export async function countRows(client: pg.ClientBase): Promise<Record<string, number>> {
  const { rows: tables } = await client.query<{ schema: string; name: string }>(tablesOfDump);
  const counts: Record<string, number> = {};
  for (const { schema, name } of tables) {
    const { rows } = await client.query<{ n: string }>(
      `SELECT count(*) AS n FROM ${quoted(schema)}.${quoted(name)}`,
    );
    counts[`${schema}.${name}`] = Number(rows[0]?.n ?? 0);
  }
  return counts;
}

/** Whether there are tables other than those of gameops. */
export async function hasTables(client: pg.ClientBase): Promise<boolean> {
  const { rows } = await client.query<{ schema: string; name: string }>(tablesOfDump);
  return rows.some(
    ({ schema, name }) => schema !== 'gameops' && !(schema === 'public' && name === 'pgmigrations'),
  );
}

async function newestMigration(client: pg.ClientBase): Promise<string | null> {
  const { rows } = await client.query<{ there: boolean }>(
    `SELECT to_regclass('public.pgmigrations') IS NOT NULL AS there`,
  );
  if (!rows[0]?.there) return null;
  const newest = await client.query<{ name: string }>(
    'SELECT name FROM public.pgmigrations ORDER BY id DESC LIMIT 1',
  );
  return newest.rows[0]?.name ?? null;
}

export async function readActivity(client: pg.ClientBase): Promise<Activity> {
  const { rows: about } = await client.query<{ oid: string; since: string | null }>(
    `SELECT datid AS oid, stats_reset::text AS since FROM pg_stat_database WHERE datname = current_database()`,
  );
  const { rows } = await client.query<Record<'name' | 'ins' | 'upd' | 'del', string>>(
    `SELECT schemaname || '.' || relname AS name, n_tup_ins AS ins, n_tup_upd AS upd, n_tup_del AS del
     FROM pg_stat_user_tables`,
  );
  const tables = rows.map(({ name, ins, upd, del }) => [
    name,
    { inserted: Number(ins), updated: Number(upd), deleted: Number(del) },
  ]);
  return {
    databaseOid: Number(about[0]?.oid ?? 0),
    since: about[0]?.since ?? null,
    tables: Object.fromEntries(tables),
  };
}

export const quoted = (identifier: string): string => pg.escapeIdentifier(identifier);
export const quotedText = (text: string): string => pg.escapeLiteral(text);
