/** What the verbs about backups have in common: the record beside them, and how a backup and a loss are told. */
import type { Backup, Manifest, WritesSince } from '../../database/backup/model.ts';
import { isOpsError } from '../../errors.ts';
import { type ProjectRecord, readRecord } from '../../record/record.ts';
import type { Context } from '../context.ts';

/** For people who read the list; a backup needs no record. */
export async function recordOrNull(context: Context): Promise<ProjectRecord | null> {
  try {
    return await readRecord(await context.engine(), context.project);
  } catch (error) {
    if (isOpsError(error, 'RECORD_UNREADABLE', 'FORMAT_TOO_NEW')) return null;
    throw error;
  }
}

/** "3 h", "12 min", "5 d" */
export function ageOf(iso: string, now = Date.now()): string {
  const ms = Math.max(0, now - Date.parse(iso));
  const hours = ms / 3_600_000;
  if (hours >= 48) return `${Math.floor(hours / 24)} d`;
  if (hours >= 1) return `${Math.floor(hours)} h`;
  return ms >= 60_000 ? `${Math.floor(ms / 60_000)} min` : `${Math.floor(ms / 1_000)} s`;
}

/** A backup as scripts get it. */
export function backupResult({ id, path, manifest, damage }: Backup): object {
  if (manifest === null) return { id, path, damage };
  const { bytes, sha256, takenAt, database, release, newestMigration, reason, verified, ms } = manifest;
  const { serverVersion, databaseBytes, rows } = manifest;
  const of = { takenAt, database, databaseBytes, serverVersion, newestMigration, release, reason };
  return { id, path, bytes, sha256, ...of, rows, verified, ms, damage };
}

/** What a restore loses, in words. */
export function lossText(manifest: Manifest, { writes, tables }: WritesSince): string {
  const since = `since ${manifest.takenAt.slice(11, 16)} UTC`;
  const most = tables.slice(0, 3).map(({ table, rowsThen, rowsNow, writes: sum }) => {
    const rows = rowsNow === null ? '' : ` (${rowsThen ?? 0} rows then, ${rowsNow} now)`;
    return sum === null ? `${table}${rows}` : `${sum} in ${table}${rows}`;
  });
  const where = most.length === 0 ? '' : `: ${most.join(', ')}${tables.length > 3 ? ' and others' : ''}`;
  if (writes === null) {
    return `It is unknown how much was written ${since}, because the database server restarted its counters${where}. All of it is lost.`;
  }
  const { inserted, updated, deleted } = writes;
  if (inserted + updated + deleted === 0)
    return `Nothing was written ${since}, according to the counters of the database server.`;
  return `Everything written ${since} is lost: ${inserted} rows added, ${updated} changed, ${deleted} removed${where}.`;
}
