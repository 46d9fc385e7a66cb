/**
 * Makes the ledger and writes into it. Promises: a ledger is there whole or not at all; what node-pg-migrate's own table
 * says is applied is what the ledger says afterwards. Callers hold the lock of migrations.
 */
import pg from 'pg';
import { OpsError } from '../../errors.ts';
import { codeOf, messageOf } from '../server/connection.ts';
import { checksum } from '../sql/sums.ts';
import type { Migration } from './files.ts';
import { appliedTable, floorOf, type Ledger, type LedgerRow, ledgerFormat, readLedger } from './ledger.ts';

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

/** Runs before anything is written in the new format: from then on, an older gameops asks for an upgrade. */
const raiseFormat = `UPDATE gameops.state SET format = ${ledgerFormat} WHERE format < ${ledgerFormat}`;

/**
 * Makes node-pg-migrate's table exactly as node-pg-migrate would, because its own failure would hide the server's answer.
 * @throws MIGRATION_FAILED
 */
export async function ensureLedger(client: pg.ClientBase): Promise<void> {
  try {
    const { rows } = await client.query<{ there: boolean }>(
      `SELECT to_regclass('public.${appliedTable}') IS NOT NULL AND to_regclass('gameops.state') IS NOT NULL AS there`,
    );
    if (rows[0]?.there) await client.query(raiseFormat);
    else await client.query(`BEGIN;${tables}\nCOMMIT;`);
  } catch (error) {
    await client.query('ROLLBACK').catch(() => {});
    throw ledgerFailed(error);
  }
}

/** SQLSTATE of a read-only server: a standby, or a server with default_transaction_read_only. */
export const readOnly = '25006';
export const nextForReadOnly = [
  'name the primary in DB_HOST: this server is read-only',
  'or turn off default_transaction_read_only on this server',
] as const;

/** The server refused a write into the ledger; failures of migrations have their own error. */
export function ledgerFailed(error: unknown): OpsError {
  const code = codeOf(error);
  const rights =
    'allow the role to write it: GRANT CREATE ON DATABASE <DB_NAME> TO <DB_USER>; GRANT CREATE ON SCHEMA public TO <DB_USER>';
  return new OpsError('MIGRATION_FAILED', {
    message: `the ledger of migrations could not be written: ${messageOf(error)}; players are not affected`,
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
  /** SQL of the down script, as known when the migration is applied. */
  down: string | null;
  release: number | null;
  origin: LedgerRow['origin'];
  /** ISO time; default: now. */
  appliedAt?: string;
}

const literal = (value: string | number | boolean | null): string =>
  value === null ? 'NULL' : typeof value === 'string' ? pg.escapeLiteral(value) : String(value);

/** SQL for the migration's own transaction. It fails when the migration is in the ledger already. */
export function entrySql({ migration, down, release, origin, appliedAt }: Entry): string {
  const { name, phase, reversible, isTransactional, kind, up } = migration;
  const values = [
    name,
    release,
    phase,
    reversible,
    isTransactional,
    kind,
    up,
    down,
    checksum(up),
    down === null ? null : checksum(down),
    origin,
  ];
  return `INSERT INTO gameops.migrations (${entryColumns.join(', ')})
    VALUES (${values.map(literal).join(', ')}, ${appliedAt === undefined ? 'now()' : literal(appliedAt)});`;
}

const entryColumns = [
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
  'origin',
  'applied_at',
];

export const removalSql = (name: string): string =>
  `DELETE FROM gameops.migrations WHERE name = ${literal(name)};`;

export const floorSql = (floor: string | null): string =>
  `UPDATE gameops.state SET floor = ${literal(floor)};`;

export const journalEndSql = (name: string): string =>
  `DELETE FROM gameops.steps WHERE migration = ${literal(name)};`;

/**
 * Makes the ledger agree with node-pg-migrate's table: a migration that is only in that table is adopted from its file, a
 * migration that is no longer in it is removed. Under the lock. @returns the new ledger, and notes for people
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
  if (adopted.length === 0 && before.withdrawn.length === 0) return { ledger: before, notes: [] };
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
    ...before.withdrawn.map(removalSql),
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
        ? [`${named(adopted.map(({ migration }) => migration.name))} adopted from node-pg-migrate's table`]
        : []),
      ...(before.withdrawn.length > 0
        ? [
            `${named(before.withdrawn)} removed from the ledger: no longer in node-pg-migrate's table, so somebody reverted without gameops`,
          ]
        : []),
    ],
  };
}
