/** The schema state of a database, as deploys and rollbacks need it: applied and pending migrations. Changes nothing. */
import { type DatabaseEndpoint, withClient } from '../server/connection.ts';
import { hasTables } from '../server/facts.ts';
import { listMigrations, type Migration } from './files.ts';
import { type PendingMigrations, pendingOf } from './forward.ts';
import { type Ledger, readLedger } from './ledger.ts';

export interface SchemaState {
  ledger: Ledger;
  applied: ReadonlySet<string>;
  /** The migrations of the folder, in order. */
  files: readonly Migration[];
  pending: PendingMigrations;
  /** Whether there is a table that a backup could bring back. */
  isFilled: boolean;
}

/**
 * @param dir null when there is no folder; then nothing is pending
 * @throws MIGRATION_INVALID, DATABASE_UNREACHABLE
 */
export async function schemaStateOf(endpoint: DatabaseEndpoint, dir: string | null): Promise<SchemaState> {
  const files = dir === null ? [] : await listMigrations(dir);
  return withClient(endpoint, async (client) => {
    const ledger = await readLedger(client);
    return { ...schemaStateBy(ledger, files), isFilled: await hasTables(client) };
  });
}

/** For a database that is not made yet: everything is pending. */
export async function schemaStateOfNewDatabase(dir: string | null): Promise<SchemaState> {
  const ledger: Ledger = { applied: [], withdrawn: [], floor: null, unfinished: [], drift: null };
  return { ...schemaStateBy(ledger, dir === null ? [] : await listMigrations(dir)), isFilled: false };
}

function schemaStateBy(ledger: Ledger, files: readonly Migration[]): Omit<SchemaState, 'isFilled'> {
  const applied = new Set(ledger.applied.map(({ name }) => name));
  return { ledger, applied, files, pending: pendingOf(files, ledger) };
}
