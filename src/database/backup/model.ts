/**
 * The types of backups, and the decisions about them. PURE: no file, no clock, no server.
 * Promises that retention never removes the newest backup that was read to its end, nor one that a release points to.
 */
import { formatBytes, megabyte } from '../../units.ts';
import { areComparable } from '../server/catalogue.ts';

/**
 * How well a backup is proven. sha256: its bytes are those that were dumped. read: every byte was unpacked.
 * restore: a database was made from it, with the rows and the schema of the dumped one.
 */
export const levels = ['sha256', 'read', 'restore'] as const;
export type Level = (typeof levels)[number];

export interface TableActivity {
  inserted: number;
  updated: number;
  deleted: number;
}

/** The server's own counters; they start again from zero after a reset, a crash, or in another database. */
export interface Activity {
  databaseOid: number;
  since: string | null;
  tables: Record<string, TableActivity>;
}

export interface DatabaseFacts {
  /** "18.6" */
  serverVersion: string;
  databaseBytes: number;
  /** Fingerprint of the schema, see catalogue.ts. gameops' own tables are not in it. */
  fingerprint: string;
  newestMigration: string | null;
  /** "public.discoveries" → exact count. */
  rows: Record<string, number>;
}

export interface Manifest extends DatabaseFacts {
  format: 1;
  id: string;
  project: string;
  database: string;
  /** The role that owns everything for which the dump names no other owner; older manifests have none. */
  owner?: string | undefined;
  /** Moment of the snapshot, by the server's clock. */
  takenAt: string;
  /** Time that dumping and verifying took. */
  ms: number;
  bytes: number;
  sha256: string;
  /** Version of pg_dump. */
  toolVersion: string;
  /** Image that pg_dump came from. */
  image: string;
  /** The release that served; null when none did or it was not known. */
  release: number | null;
  reason: string;
  activity: Activity;
  verified: { level: Level; at: string; ms: number };
}

export type Damage =
  | 'no manifest'
  | 'manifest damaged'
  | 'file missing'
  | 'size differs'
  | 'content differs'
  | 'unreadable'
  | 'restored content differs';

export interface Backup {
  id: string;
  path: string;
  /** Null when it can't be read; `damage` then says why. */
  manifest: Manifest | null;
  damage: Damage | null;
}

export function isAtLeast(level: Level, wanted: Level): boolean {
  return levels.indexOf(level) >= levels.indexOf(wanted);
}

// Names ----------------------------------------------------------------------------------------------------------------

/** Sorts by time: 20261124-223005-1a2b */
export function backupId(at: Date, random: string): string {
  const digits = at.toISOString().replace(/\D/g, '');
  return `${digits.slice(0, 8)}-${digits.slice(8, 14)}-${random}`;
}

export const backupIdPattern = /^\d{8}-\d{6}-[0-9a-f]{4}$/;

/** Names of connections. A dump or a staging database whose owner has no connection any more is an orphan. */
export const applicationNames = {
  owner: (id: string) => `gameops-backup-${id}`,
  dump: (id: string) => `gameops-dump-${id}`,
} as const;

const identifierBytesMax = 63;

/** Name of the database that a restore puts aside: its former name, and when it was replaced. */
export function undoName(database: string, at: Date): string {
  const suffix = `_before_${at.toISOString().replace(/\D/g, '').slice(0, 14)}`;
  let kept = database;
  while (Buffer.byteLength(kept + suffix) > identifierBytesMax) kept = kept.slice(0, -1);
  return kept + suffix;
}

export const stagingPrefix = 'gameops_new_';

/** Name of a staging database, which no player uses yet; its maker's connection has the same name. */
export const stagingName = (id: string, random: string): string =>
  `${stagingPrefix}${id.replaceAll('-', '_')}_${random}`;

// Retention --------------------------------------------------------------------------------------------------------------

/**
 * What may go, oldest first. A damaged one neither counts as kept nor is removed: somebody should look at it.
 * @param pinned ids that a kept release points to
 */
export function expendable(backups: readonly Backup[], keep: number, pinned: ReadonlySet<string>): Backup[] {
  const whole = backups
    .filter((one) => one.manifest !== null && one.damage === null)
    .sort((a, b) => (a.id < b.id ? 1 : -1));
  const lastProven = whole.find(({ manifest }) => manifest && isAtLeast(manifest.verified.level, 'read'));
  return whole
    .slice(Math.max(keep, 1))
    .filter((one) => one !== lastProven && !pinned.has(one.id))
    .reverse();
}

// Room -------------------------------------------------------------------------------------------------------------------

export const folderReserveBytes = 64 * megabyte;

/** Size of the next dump: as the last one and half as much again, or the size of the database when there is none. */
export function dumpEstimate(
  databaseBytes: number,
  last: Pick<Manifest, 'bytes' | 'databaseBytes'> | null,
): number {
  if (!last || last.databaseBytes <= 0) return databaseBytes;
  const ratio = Math.min(1, (last.bytes / last.databaseBytes) * 1.5);
  return Math.round(databaseBytes * ratio);
}

/** Size of a second copy on the server's disk, with the log that making it writes. */
export const copyEstimate = (databaseBytes: number): number => Math.ceil(databaseBytes * 1.2);

/** Null when there is room. */
export function shortOfRoom(need: { bytes: number; where: string }, freeBytes: number): string | null {
  const wanted = need.bytes + folderReserveBytes;
  if (freeBytes >= wanted) return null;
  return `${need.where} has ${formatBytes(freeBytes)} free, and up to ${formatBytes(wanted)} are needed`;
}

// What a restore loses -------------------------------------------------------------------------------------------

export interface WritesSince {
  /** From the server's counters; null when they started again since. Rolled back writes count, too. */
  writes: TableActivity | null;
  /** Tables with a write or another number of rows, the most written first. */
  tables: { table: string; rowsThen: number | null; rowsNow: number | null; writes: number | null }[];
}

/** Tables of gameops itself: no player misses what is written there. */
const ourBooks = new Set([
  'public.pgmigrations',
  'gameops.migrations',
  'gameops.state',
  'gameops.steps',
  'gameops.rescues',
]);

/** The writes of the database since the backup. @param rows null when counting takes too long */
export function writesSince(
  then: Manifest,
  activity: Activity,
  rows: Record<string, number> | null,
): WritesSince {
  const isComparable =
    then.activity.databaseOid === activity.databaseOid &&
    then.activity.since === activity.since &&
    !hasBegunAnew(then.activity, activity);
  const writes = isComparable ? { inserted: 0, updated: 0, deleted: 0 } : null;
  const tables: WritesSince['tables'] = [];
  const names = new Set([
    ...Object.keys(then.rows),
    ...Object.keys(rows ?? {}),
    ...Object.keys(activity.tables),
  ]);
  for (const table of [...names].filter((name) => !ourBooks.has(name)).sort()) {
    const since = writes ? difference(then.activity.tables[table], activity.tables[table]) : null;
    if (writes && since) {
      writes.inserted += since.inserted;
      writes.updated += since.updated;
      writes.deleted += since.deleted;
    }
    const sum = since ? since.inserted + since.updated + since.deleted : null;
    const rowsThen = then.rows[table] ?? null;
    const rowsNow = rows?.[table] ?? null;
    const hasChanged = rows !== null && rowsThen !== rowsNow;
    if (hasChanged || sum) tables.push({ table, rowsThen, rowsNow, writes: sum });
  }
  return { writes, tables: tables.sort((a, b) => (b.writes ?? 0) - (a.writes ?? 0)) };
}

/** A crash resets the counters without a trace. */
function hasBegunAnew(then: Activity, now: Activity): boolean {
  return Object.entries(now.tables).some(([table, { inserted, updated, deleted }]) => {
    const before = then.tables[table];
    return before && (inserted < before.inserted || updated < before.updated || deleted < before.deleted);
  });
}

/** The counters of a table that was dropped and made again start from zero. */
function difference(then: TableActivity | undefined, now: TableActivity | undefined): TableActivity {
  const since = (key: keyof TableActivity) => Math.max(0, (now?.[key] ?? 0) - (then?.[key] ?? 0));
  return { inserted: since('inserted'), updated: since('updated'), deleted: since('deleted') };
}

/** Tables whose rows differ, and whether the schema does; [] when they are equal. */
export function differences(
  wanted: Pick<DatabaseFacts, 'rows' | 'fingerprint'>,
  found: Pick<DatabaseFacts, 'rows' | 'fingerprint'>,
): string[] {
  const tables = new Set([...Object.keys(wanted.rows), ...Object.keys(found.rows)]);
  const rows = [...tables]
    .filter((table) => wanted.rows[table] !== found.rows[table])
    .map(
      (table) => `${table}: ${found.rows[table] ?? 'no table'} instead of ${wanted.rows[table] ?? 'none'}`,
    );
  const isSame =
    wanted.fingerprint === found.fingerprint || !areComparable(wanted.fingerprint, found.fingerprint);
  return isSame ? rows : [...rows, 'the schema differs'];
}
