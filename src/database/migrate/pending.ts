/** Where a database stands, as far as deploys and rollbacks ask. One connection, changes nothing. */
import { type DatabaseEndpoint, withClient } from '../server/connection.ts';
import { hasTables } from '../server/facts.ts';
import { listMigrations, type Migration } from './files.ts';
import { type PendingMigrations, pendingOf } from './forward.ts';
import { type Ledger, readLedger } from './ledger.ts';

export interface Standing {
  ledger: Ledger;
  applied: ReadonlySet<string>;
  /** What the folder holds, in order. */
  files: readonly Migration[];
  pending: PendingMigrations;
  /** There is a table that a backup could bring back. */
  isFilled: boolean;
}

/**
 * @param dir null: there is no folder, so nothing is pending
 * @throws MIGRATION_INVALID, DATABASE_UNREACHABLE
 */
export async function standingOf(endpoint: DatabaseEndpoint, dir: string | null): Promise<Standing> {
  const files = dir === null ? [] : await listMigrations(dir);
  return withClient(endpoint, async (client) => {
    const ledger = await readLedger(client);
    return { ...standingBy(ledger, files), isFilled: await hasTables(client) };
  });
}

/** Of a database that is still to be made: everything is pending. */
export async function standingOfNone(dir: string | null): Promise<Standing> {
  const ledger: Ledger = { applied: [], orphans: [], floor: null, unfinished: [], drift: null };
  return { ...standingBy(ledger, dir === null ? [] : await listMigrations(dir)), isFilled: false };
}

function standingBy(ledger: Ledger, files: readonly Migration[]): Omit<Standing, 'isFilled'> {
  const applied = new Set(ledger.applied.map(({ name }) => name));
  return { ledger, applied, files, pending: pendingOf(files, ledger) };
}
