/**
 * The applied migrations with their full text, in the schema `gameops` beside node-pg-migrate's own table. Promises: a
 * migration is in both or in neither, because both are written in the migration's own transaction; a rollback needs
 * nothing else when the files are gone. node-pg-migrate's table says what is applied, so that a run of node-pg-migrate
 * itself is not overlooked.
 */
import type pg from 'pg';
import { OpsError } from '../../errors.ts';
import { isSumTooNew } from '../sql/sums.ts';
import { byPrefix, type Migration } from './files.ts';

export const appliedTable = 'pgmigrations';
export const ledgerFormat = 1;

export interface LedgerRow {
  release: number | null;
  phase: Migration['phase'];
  reversible: Migration['reversible'];
  isTransactional: boolean;
  kind: Migration['kind'];
  upSum: string;
  downSum: string | null;
  /** applied: by gameops. adopted: found in node-pg-migrate's table. baseline: entered by `db baseline`. */
  origin: 'applied' | 'adopted' | 'baseline';
}

export interface AppliedMigration {
  name: string;
  /** ISO time */
  appliedAt: string;
  /** null: it is only in node-pg-migrate's table. */
  row: LedgerRow | null;
}

export interface Ledger {
  /** In the order in which they were applied. */
  applied: AppliedMigration[];
  /** In the ledger, but no longer in node-pg-migrate's table: somebody else reverted it. */
  withdrawn: string[];
  /** Newest applied contract migration: images that do not know it are too old. */
  floor: string | null;
  /** Begun outside of a transaction and never ended: the next run continues them. */
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
    return { applied: [], withdrawn: [], floor: null, unfinished: [], drift: null };
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
  if (all.rows.some(({ upSum }) => upSum !== null && isSumTooNew(upSum))) throw tooNewSums();
  return {
    applied: all.rows
      .filter((row) => row.applied)
      .map(({ name, at, applied: _, ...row }) => ({
        name,
        appliedAt: at.toISOString(),
        row: row.upSum === null ? null : row,
      })),
    withdrawn: all.rows.filter((row) => !row.applied).map(({ name }) => name),
    floor: state?.floor ?? null,
    unfinished: state?.unfinished ?? [],
    drift: state?.drift ?? null,
  };
}

async function readBareTable(client: pg.ClientBase): Promise<Pick<Ledger, 'applied' | 'withdrawn'>> {
  const { rows } = await client.query<{ name: string; at: Date }>(
    `SELECT name, run_on::timestamptz AS at FROM public.${appliedTable} ORDER BY id`,
  );
  return {
    applied: rows.map(({ name, at }) => ({ name, appliedAt: at.toISOString(), row: null })),
    withdrawn: [],
  };
}

const upgrade: [string] = ['upgrade gameops on this machine'];

function tooNew(format: number): OpsError {
  return new OpsError('FORMAT_TOO_NEW', {
    message: `the ledger of this database has format ${format}, and this gameops knows formats up to ${ledgerFormat}: a newer gameops wrote it. Nothing was changed.`,
    next: upgrade,
    facts: { format },
  });
}

function tooNewSums(): OpsError {
  return new OpsError('FORMAT_TOO_NEW', {
    message:
      'the ledger of this database has checksums that a newer gameops made, and this one does not know their rule. Nothing was changed.',
    next: upgrade,
    facts: { format: ledgerFormat },
  });
}

export interface MigrationText {
  up: string;
  /** null: code whose down function needs its file. */
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

/** Newest applied contract migration, by its number. */
export function floorOf(applied: readonly AppliedMigration[]): string | null {
  const names = applied.filter(({ row }) => row?.phase === 'contract').map(({ name }) => name);
  return names.sort(byPrefix).at(-1) ?? null;
}
