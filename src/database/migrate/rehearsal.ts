/**
 * Runs a deploy's migrations on a copy of the database: how long each takes, whom it would hold up, and whether reverting
 * it leads back to the same schema. Never touches a database that matters.
 */
import type { Manifest } from '../backup/model.ts';
import { type ToolsAccess, withTools } from '../backup/pg-tools.ts';
import { fillAndCompare } from '../backup/staging.ts';
import { catalogueOf, type Difference, differenceOf } from '../server/catalogue.ts';
import { type DatabaseEndpoint, withClient } from '../server/connection.ts';
import { quoted } from '../server/facts.ts';
import { migrateBack } from './back.ts';
import type { Migration } from './files.ts';
import { migrateForward } from './forward.ts';
import type { RunOptions } from './run.ts';

export interface HeldUp {
  /** Qualified and quoted; it was there before the migration. */
  table: string;
  /** About, by the server's statistics. */
  rows: number;
  who: 'readers and writers' | 'writers';
}

export interface RehearsedMigration {
  direction: 'up' | 'down';
  name: string;
  /** Nobody is held up for longer than this. */
  ms: number;
  /** Tables that it locks at its end; null when it runs statement by statement, outside of a transaction. */
  holdsUp: HeldUp[] | null;
  /** Rows that were saved before they were removed. */
  rescuedRows: number;
}

export interface Copy {
  endpoint: DatabaseEndpoint;
  dir: string;
  files: readonly Migration[];
  options: RunOptions;
}

/** The roles of a server: a dump names owners and grantees, but does not contain them. @returns their names */
export function rolesOf(endpoint: DatabaseEndpoint): Promise<string[]> {
  return withClient(endpoint, async (client) => {
    const { rows } = await client.query<{ name: string }>(
      `SELECT rolname AS name FROM pg_roles WHERE rolname !~ '^pg_'`,
    );
    return rows.map(({ name }) => name);
  });
}

/**
 * Restores a backup into the empty database of `access`, and compares it with what was dumped.
 * @throws BACKUP_DAMAGED, RESTORE_FAILED
 */
export async function fillCopy(
  access: ToolsAccess,
  backup: { path: string; manifest: Manifest },
  roles: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const { endpoint } = access;
  const there = await rolesOf(endpoint);
  const { owner } = backup.manifest;
  const named = new Set(owner === undefined ? roles : [...roles, owner]);
  const absent = [...named].filter((role) => !there.includes(role));
  await withClient(endpoint, async (client) => {
    for (const role of absent) await client.query(`CREATE ROLE ${quoted(role)}`);
  });
  await withTools(access, (tools) =>
    fillAndCompare({ endpoint, tools, ...backup, signal }, endpoint.database, false),
  );
}

/** In order. @throws as migrateForward */
export async function rehearseUps(
  copy: Copy,
  names: readonly string[],
  done: (migration: RehearsedMigration) => void,
): Promise<void> {
  await withClient(copy.endpoint, (client) => client.query(notesSql));
  for (const name of names) {
    const { holdsUp, result } = await watchingLocks(copy, name, () =>
      migrateForward(copy.endpoint, copy.dir, { ...quietly(copy), names: [name] }),
    );
    done({ direction: 'up', name, ms: result.applied[0]?.ms ?? 0, holdsUp, rescuedRows: 0 });
  }
}

/** Newest first, until one that can't be reverted. @returns the names of irreversible migrations @throws as migrateBack */
export async function rehearseDowns(
  copy: Copy,
  names: readonly string[],
  done: (migration: RehearsedMigration) => void,
): Promise<string[]> {
  const newestFirst = [...names].reverse();
  const isOneWay = (name: string) => copy.files.find((file) => file.name === name)?.reversible === 'no';
  const last = newestFirst.findIndex(isOneWay);
  for (const name of last < 0 ? newestFirst : newestFirst.slice(0, last)) {
    const { holdsUp, result } = await watchingLocks(copy, name, () =>
      migrateBack(copy.endpoint, copy.dir, { names: [name] }, { ...quietly(copy), acceptLoss: true }),
    );
    const rescuedRows = result.rescued.reduce((sum, { rows }) => sum + rows, 0);
    done({ direction: 'down', name, ms: result.reverted[0]?.ms ?? 0, holdsUp, rescuedRows });
  }
  return names.filter(isOneWay);
}

export const schemaOf = (copy: Copy): Promise<string[]> =>
  withClient(copy.endpoint, async (client) => (await catalogueOf(client)).lines);

export async function differenceSince(copy: Copy, before: readonly string[]): Promise<Difference> {
  return differenceOf(before, await schemaOf(copy));
}

// Locks -----------------------------------------------------------------------------------------------------------------

const notesSql = `CREATE SCHEMA IF NOT EXISTS gameops; CREATE TABLE gameops.rehearsed_locks (relation oid, mode text)`;

/** The migration itself notes its locks at the end of its transaction: no other connection could be sure to look in time. */
const noteLocks = `INSERT INTO gameops.rehearsed_locks SELECT relation, mode FROM pg_locks
  WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted;`;

const holdsUp: Record<string, HeldUp['who']> = {
  AccessExclusiveLock: 'readers and writers',
  ExclusiveLock: 'writers',
  ShareRowExclusiveLock: 'writers',
  ShareLock: 'writers',
};

const quietly = ({ options }: Copy): RunOptions => ({
  ...options,
  emit: () => undefined,
  beforeCommit: noteLocks,
});

async function watchingLocks<T>(
  { endpoint, files }: Copy,
  name: string,
  act: () => Promise<T>,
): Promise<{ result: T; holdsUp: HeldUp[] | null }> {
  const query = <Row extends object>(sql: string) =>
    withClient(endpoint, async (client) => (await client.query<Row>(sql)).rows);
  // Read before it runs: nobody uses a table that it makes, and a table that it drops has no name afterwards.
  const tables = await query<{ oid: number; table: string; rows: number }>(
    `SELECT c.oid::int, format('%I.%I', n.nspname, c.relname) AS table, greatest(c.reltuples, 0)::float8 AS rows
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'gameops')
       AND c.oid IS DISTINCT FROM to_regclass('public.pgmigrations') ORDER BY 2`,
  );
  const result = await act();
  const locks = await query<{ relation: number; mode: string }>(
    'WITH noted AS (DELETE FROM gameops.rehearsed_locks RETURNING relation, mode) SELECT relation::int, mode FROM noted',
  );
  if (files.find((file) => file.name === name)?.isTransactional === false) return { result, holdsUp: null };
  return { result, holdsUp: tables.flatMap(({ oid, table, rows }) => heldUp(oid, table, rows)) };

  function heldUp(oid: number, table: string, rows: number): HeldUp[] {
    const modes = locks.filter(({ relation }) => relation === oid).map(({ mode }) => holdsUp[mode]);
    const who = modes.includes('readers and writers') ? 'readers and writers' : modes.find(Boolean);
    return who ? [{ table, rows, who }] : [];
  }
}
