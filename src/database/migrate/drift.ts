/**
 * Whether somebody changed the live schema without a migration: it is compared with the schema at the end of the last
 * run. Reads the catalogue; writes only its own column.
 */
import type pg from 'pg';
import {
  areComparable,
  catalogueOf,
  type Difference,
  differenceOf,
  fingerprintOf,
} from '../server/catalogue.ts';
import type { Ledger } from './ledger.ts';

/** The applied migrations that the remembered schema belongs to. After a killed run they differ, and drift is not known. */
const headSql = `SELECT coalesce(count(*) || ':' || max(id), '') AS head FROM public.pgmigrations`;

/** Under the lock. */
export async function rememberSchema(client: pg.ClientBase): Promise<void> {
  const catalogue = await catalogueOf(client);
  const { rows } = await client.query<{ head: string }>(headSql);
  await client.query('UPDATE gameops.state SET drift = $1', [
    JSON.stringify({
      fingerprint: fingerprintOf(catalogue),
      head: rows[0]?.head ?? '',
      catalogue: catalogue.lines,
    }),
  ]);
}

export type Drift =
  /** Not known: no run has ended yet, the last run was killed, or the server has another version now. */
  { known: false; fingerprint: string } | ({ known: true; fingerprint: string } & Difference);

export async function driftOf(client: pg.ClientBase, ledger: Ledger): Promise<Drift> {
  const catalogue = await catalogueOf(client);
  const fingerprint = fingerprintOf(catalogue);
  const { drift } = ledger;
  // An index that is only half built is not drift: the next run continues it.
  if (!drift || ledger.unfinished.length > 0 || !areComparable(drift.fingerprint, fingerprint))
    return { known: false, fingerprint };
  const { rows } = await client.query<{ head: string }>(headSql);
  if (rows[0]?.head !== drift.head) return { known: false, fingerprint };
  return { known: true, fingerprint, ...differenceOf(drift.catalogue, catalogue.lines) };
}
