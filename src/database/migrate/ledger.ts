/**
 * What was applied, with its full text: the schema `gameops` beside node-pg-migrate's own table. Promises: a migration
 * is in both or in neither, because both are written in the migration's own transaction; a rollback needs nothing else
 * when the files are gone. node-pg-migrate's table says what is applied, so a stray run of it is met, not overlooked.
 */
import pg from 'pg';
import { OpsError } from '../../errors.ts';
import { codeOf, messageOf } from '../server/connection.ts';
import { byPrefix, checksum, type Migration } from './files.ts';

export const appliedTable = 'pgmigrations';
const ledgerFormat = 1;

export interface LedgerRow {
  release: number | null;
  phase: Migration['phase'];
  reversible: Migration['reversible'];
  isTransactional: boolean;
  kind: Migration['kind'];
  upSum: string;
  downSum: string | null;
  /** applied: by gameops. adopted: found in node-pg-migrate's table. baseline: was there before it was a migration. */
  origin: 'applied' | 'adopted' | 'baseline';
}

export interface AppliedMigration {
  name: string;
  /** ISO time */
  appliedAt: string;
  /** null: only node-pg-migrate's table knows it. */
  row: LedgerRow | null;
}

export interface Ledger {
  /** In the order in which they were applied. */
  applied: AppliedMigration[];
  /** In the ledger, but taken out of node-pg-migrate's table by somebody else. */
  orphans: string[];
  /** Newest contract migration: images that do not know it are too old. */
  floor: string | null;
  /** Begun outside of a transaction and never ended: the next run goes on with them. */
  unfinished: { name: string; direction: Direction }[];
  drift: { fingerprint: string; head: string; catalogue: string[] } | null;
}

export type Direction = 'up' | 'down';

/** Reads, changes nothing. @throws FORMAT_TOO_NEW */
export async function readLedger(client: pg.ClientBase): Promise<Ledger> {
  const { rows } = await client.query<{ table: boolean; ledger: boolean }>(
    `SELECT to_regclass('public.${appliedTable}') IS NOT NULL AS "table", to_regclass('gameops.state') IS NOT NULL AS ledger`,
  );
  const there = rows[0] ?? { table: false, ledger: false };
  if (!there.table && !there.ledger)
    return { applied: [], orphans: [], floor: null, unfinished: [], drift: null };
  if (!there.ledger) return { ...(await readBareTable(client)), floor: null, unfinished: [], drift: null };
  const { rows: states } = await client.query<{
    format: number;
    floor: string | null;
    drift: Ledger['drift'];
    unfinished: Ledger['unfinished'] | null;
  }>(`SELECT format, floor, drift, (SELECT json_agg(DISTINCT jsonb_build_object('name', migration, 'direction', direction))
        FROM gameops.steps) AS unfinished FROM gameops.state`);
  const state = states[0];
  if (state && state.format > ledgerFormat) throw tooNew(state.format);
  const all = await client.query<{ name: string; at: Date; applied: boolean } & LedgerRow>(
    `SELECT coalesce(p.name, m.name) AS name, coalesce(p.run_on::timestamptz, m.applied_at) AS at, p.id IS NOT NULL AS applied,
            m.release, m.phase, m.reversible, m.is_transactional AS "isTransactional", m.kind,
            m.up_sum AS "upSum", m.down_sum AS "downSum", m.origin
       FROM ${there.table ? `public.${appliedTable}` : '(SELECT NULL::int AS id, NULL::text AS name, NULL::timestamptz AS run_on WHERE false)'} p
       FULL JOIN gameops.migrations m ON m.name = p.name ORDER BY p.id`,
  );
  return {
    applied: all.rows
      .filter((row) => row.applied)
      .map(({ name, at, applied: _, ...row }) => ({
        name,
        appliedAt: at.toISOString(),
        row: row.upSum === null ? null : row,
      })),
    orphans: all.rows.filter((row) => !row.applied).map(({ name }) => name),
    floor: state?.floor ?? null,
    unfinished: state?.unfinished ?? [],
    drift: state?.drift ?? null,
  };
}

async function readBareTable(client: pg.ClientBase): Promise<Pick<Ledger, 'applied' | 'orphans'>> {
  const { rows } = await client.query<{ name: string; at: Date }>(
    `SELECT name, run_on::timestamptz AS at FROM public.${appliedTable} ORDER BY id`,
  );
  return {
    applied: rows.map(({ name, at }) => ({ name, appliedAt: at.toISOString(), row: null })),
    orphans: [],
  };
}

function tooNew(format: number): OpsError {
  return new OpsError('FORMAT_TOO_NEW', {
    message: `the ledger of this database has format ${format}, this gameops knows ${ledgerFormat}: a newer gameops wrote it; nothing was changed`,
    next: ['upgrade gameops on this machine'],
    facts: { format },
  });
}

export interface MigrationText {
  up: string;
  /** null: code whose way back needs its file. */
  down: string | null;
}

export async function readTexts(
  client: pg.ClientBase,
  names: readonly string[],
): Promise<Map<string, MigrationText>> {
  const { rows } = await client.query<MigrationText & { name: string }>(
    'SELECT name, up, down FROM gameops.migrations WHERE name = ANY($1)',
    [names],
  );
  return new Map(rows.map(({ name, up, down }) => [name, { up, down }]));
}

// Making it -------------------------------------------------------------------------------------------------------

const tables = `
CREATE TABLE IF NOT EXISTS public.${appliedTable}
  (id serial PRIMARY KEY, name varchar(255) NOT NULL, run_on timestamp NOT NULL);
CREATE SCHEMA IF NOT EXISTS gameops;
CREATE TABLE IF NOT EXISTS gameops.migrations (
  name text PRIMARY KEY,
  release integer,
  phase text NOT NULL,
  reversible text NOT NULL,
  is_transactional boolean NOT NULL,
  kind text NOT NULL,
  up text NOT NULL,
  down text,
  up_sum text NOT NULL,
  down_sum text,
  origin text NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS gameops.steps (
  migration text NOT NULL,
  direction text NOT NULL,
  step integer NOT NULL,
  sum text NOT NULL,
  undo text,
  done boolean NOT NULL DEFAULT false,
  PRIMARY KEY (migration, direction, step)
);
CREATE TABLE IF NOT EXISTS gameops.state (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  format integer NOT NULL,
  floor text,
  drift jsonb
);
CREATE TABLE IF NOT EXISTS gameops.rescues (
  id serial PRIMARY KEY,
  migration text NOT NULL,
  source text NOT NULL,
  columns text[] NOT NULL,
  saved_as text NOT NULL,
  saved_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO gameops.state (format) VALUES (${ledgerFormat}) ON CONFLICT DO NOTHING;`;

/** node-pg-migrate's table as it makes it itself; its own failure would hide the server's answer. @throws MIGRATION_FAILED */
export async function ensureLedger(client: pg.ClientBase): Promise<void> {
  try {
    const { rows } = await client.query<{ there: boolean }>(
      `SELECT to_regclass('public.${appliedTable}') IS NOT NULL AND to_regclass('gameops.state') IS NOT NULL AS there`,
    );
    if (rows[0]?.there) return;
    await client.query(`BEGIN;${tables}\nCOMMIT;`);
  } catch (error) {
    await client.query('ROLLBACK').catch(() => {});
    throw ledgerFailed(error);
  }
}

/** SQLSTATE of a server that only reads: a standby, or one that was told to. */
export const readOnly = '25006';
export const nextForReadOnly = [
  'name the primary in DB_HOST: this server only reads',
  'or let it write again (default_transaction_read_only)',
] as const;

/** What the server says to gameops' own books; migrations have words of their own. */
export function ledgerFailed(error: unknown): OpsError {
  const code = codeOf(error);
  const rights =
    'let the role write it: GRANT CREATE ON DATABASE <DB_NAME> TO <DB_USER>; GRANT CREATE ON SCHEMA public TO <DB_USER>';
  return new OpsError('MIGRATION_FAILED', {
    message: `the ledger of migrations could not be written: ${messageOf(error)}; players are where they were`,
    next:
      code === '42501'
        ? [rights]
        : code === readOnly
          ? [...nextForReadOnly]
          : ['gameops db status', 'gameops doctor'],
    facts: { sqlstate: code },
    cause: error,
  });
}

// Writing ---------------------------------------------------------------------------------------------------------

export interface Entry {
  migration: Migration;
  /** SQL of the way back as it is known when it is applied. */
  down: string | null;
  release: number | null;
  origin: LedgerRow['origin'];
  /** ISO time; default: now. */
  appliedAt?: string;
}

const literal = (value: string | number | boolean | null): string =>
  value === null ? 'NULL' : typeof value === 'string' ? pg.escapeLiteral(value) : String(value);

/** SQL for the migration's own transaction. What is in the ledger already is an error. */
export function entrySql({ migration, down, release, origin, appliedAt }: Entry): string {
  const { name, phase, reversible, isTransactional, kind, up } = migration;
  const values = [
    ...[name, release, phase, reversible, isTransactional, kind, up, down],
    ...[checksum(up), down === null ? null : checksum(down), origin],
  ];
  return `INSERT INTO gameops.migrations (${entryColumns.join(', ')})
    VALUES (${values.map(literal).join(', ')}, ${appliedAt === undefined ? 'now()' : literal(appliedAt)});`;
}

const entryColumns = [
  ...[
    'name',
    'release',
    'phase',
    'reversible',
    'is_transactional',
    'kind',
    'up',
    'down',
    'up_sum',
    'down_sum',
  ],
  ...['origin', 'applied_at'],
];

export const removalSql = (name: string): string =>
  `DELETE FROM gameops.migrations WHERE name = ${literal(name)};`;

export const floorSql = (floor: string | null): string =>
  `UPDATE gameops.state SET floor = ${literal(floor)};`;

export const journalEndSql = (name: string): string =>
  `DELETE FROM gameops.steps WHERE migration = ${literal(name)};`;

/** Newest contract migration among those that are applied, by its number. */
export function floorOf(applied: readonly AppliedMigration[]): string | null {
  const names = applied.filter(({ row }) => row?.phase === 'contract').map(({ name }) => name);
  return names.sort(byPrefix).at(-1) ?? null;
}

/**
 * Makes the ledger agree with node-pg-migrate's table: what only that one knows is adopted from the files, what it no
 * longer has is forgotten. Under the lock. @returns the ledger as it is then, and what was done, for people
 */
export async function reconcileLedger(
  client: pg.ClientBase,
  files: readonly Migration[],
): Promise<{ ledger: Ledger; notes: string[] }> {
  const before = await readLedger(client);
  const adopted = before.applied.flatMap(({ name, appliedAt, row }) => {
    const migration = row === null ? files.find((file) => file.name === name) : undefined;
    return migration ? [{ migration, appliedAt }] : [];
  });
  if (adopted.length === 0 && before.orphans.length === 0) return { ledger: before, notes: [] };
  const sql = [
    ...adopted.map(({ migration, appliedAt }) =>
      entrySql({
        migration,
        down: migration.kind === 'sql' ? migration.down : null,
        release: null,
        origin: 'adopted',
        appliedAt,
      }),
    ),
    ...before.orphans.map(removalSql),
  ];
  await client.query(`BEGIN;\n${sql.join('\n')}\nCOMMIT;`).catch(async (error) => {
    await client.query('ROLLBACK').catch(() => {});
    throw error;
  });
  const after = await readLedger(client);
  if (floorOf(after.applied) !== after.floor) await client.query(floorSql(floorOf(after.applied)));
  const named = (names: string[]) => (names.length > 3 ? `${names.length} migrations` : names.join(', '));
  return {
    ledger: { ...after, floor: floorOf(after.applied) },
    notes: [
      ...(adopted.length > 0
        ? [`${named(adopted.map(({ migration }) => migration.name))} taken over from node-pg-migrate's table`]
        : []),
      ...(before.orphans.length > 0
        ? [
            `${named(before.orphans)} no longer in node-pg-migrate's table: somebody took it back without gameops`,
          ]
        : []),
    ],
  };
}
