/**
 * Restores a backup. Promises that players stay on the present database until the new one is filled and compared with what
 * was dumped; that they are disconnected only while two names are exchanged; and that the present database is kept.
 */

import type pg from 'pg';
import { isOpsError, OpsError } from '../../errors.ts';
import { isDisconnected, unreachable, withClient } from '../server/connection.ts';
import { countRows, readActivity } from '../server/facts.ts';
import { hashDump, listBackups } from './files.ts';
import { type Backup, type Manifest, undoName, type WritesSince, writesSince } from './model.ts';
import { dropOrphans, endOrphans } from './orphans.ts';
import { majorOf, type Tools, withTools } from './pg-tools.ts';
import { type Staging, type StagingRequest, withAdmin, withStaging } from './staging.ts';
import { type Swap, type Swapped, swapDatabases } from './swap.ts';
import { type BackupAccess, mustHaveRoomForCopy } from './take.ts';
import { damaged } from './verify.ts';

export type RestoreMoment =
  | Parameters<NonNullable<StagingRequest['at']>>[0]
  | Parameters<NonNullable<Swap['at']>>[0];

export interface Restored extends Swapped {
  /** Name of the database that served until now. */
  undo: string;
}

/** A database that a restore has put aside. */
export interface Undo {
  name: string;
  bytes: number;
  /** Its comment: when it was replaced, and by which backup. */
  comment: string;
}

/** @throws BACKUP_UNKNOWN, BACKUP_DAMAGED (cut, changed or lost); found before the server is asked */
export async function findBackup(folder: string, id: string): Promise<Backup & { manifest: Manifest }> {
  const backups = await listBackups(folder);
  const backup = backups.find((one) => one.id === id);
  if (!backup)
    throw unknown(
      id,
      backups.map((one) => one.id),
      folder,
    );
  const { manifest, damage, path } = backup;
  if (manifest === null || damage !== null) throw damaged(id, path, damage ?? 'no manifest');
  if ((await hashDump(path)) !== manifest.sha256) throw damaged(id, path, 'content differs');
  return { ...backup, manifest };
}

export function unknown(id: string, known: readonly string[], folder: string): OpsError {
  const newest = known.length === 0 ? 'there are none' : `the newest is ${known[0]}`;
  return new OpsError('BACKUP_UNKNOWN', {
    message: `There is no backup ${id} in ${folder}: ${newest}. Nothing was changed.`,
    next: ['gameops db backups'],
    facts: { id, folder },
  });
}

/** Counting must not delay a decision: when it takes longer, only the server's counters are reported. */
const countMsMax = 20_000;

/** The writes of the database since the backup. Changes nothing. @throws DATABASE_UNREACHABLE */
export async function writesSinceBackup(
  access: BackupAccess,
  manifest: Manifest,
): Promise<WritesSince & { bytes: number }> {
  return withClient(
    access.endpoint,
    async (client) => {
      const activity = await readActivity(client);
      const { rows } = await client.query<{ bytes: string }>(
        'SELECT pg_database_size(current_database()) AS bytes',
      );
      const now = await countRows(client).catch(() => null);
      return { ...writesSince(manifest, activity, now), bytes: Number(rows[0]?.bytes ?? 0) };
    },
    { statementMs: countMsMax },
  );
}

/**
 * Callers hold the project's lock: no migration or deploy may run during the exchange.
 * @param why goes into the comment of the database that is put aside
 * @throws BACKUP_DAMAGED, RESTORE_FAILED, DISK_TOO_FULL, DATABASE_UNREACHABLE; the reason of `signal`
 */
export async function restoreBackup(
  access: BackupAccess,
  backup: Backup & { manifest: Manifest },
  at: (moment: RestoreMoment) => void = () => undefined,
  why = '',
): Promise<Restored> {
  const { manifest, path } = backup;
  const present = await prepare(access, manifest);
  return withTools(access, (tools) => {
    if (majorOf(tools.version) > majorOf(present)) throw tooNew(tools, present, manifest);
    if (majorOf(tools.version) < majorOf(manifest.toolVersion)) throw tooOld(tools.version, manifest);
    const { endpoint, signal } = access;
    const request: StagingRequest = { endpoint, tools, path, manifest, at, ...(signal ? { signal } : {}) };
    return withStaging(request, async ({ name, admin }: Staging) => {
      signal?.throwIfAborted();
      const moment = new Date();
      const undo = await freeUndoName(admin, endpoint.database, moment);
      const comment = commentOf(moment, `backup ${manifest.id}${why}`);
      const swap: Swap = { live: endpoint.database, incoming: name, aside: undo, comment, at };
      return { ...(await swapDatabases(endpoint, admin, swap)), undo };
    });
  });
}

/** Removes what killed calls left, and checks that a second copy fits. @returns the version of the server */
async function prepare(access: BackupAccess, manifest: Manifest): Promise<string> {
  const present = await withClient(access.endpoint, async (client) => {
    await endOrphans(client);
    for (const name of await dropOrphans(client)) {
      const message = `dropped ${name}, which a killed restore left`;
      access.emit({ type: 'note', level: 'info', message });
    }
    const { rows } = await client.query<{ version: string }>(
      `SELECT current_setting('server_version') AS version`,
    );
    return rows[0]?.version ?? '';
  });
  if (majorOf(present) < majorOf(manifest.serverVersion)) throw tooOld(present, manifest);
  await mustHaveRoomForCopy(access, manifest.databaseBytes);
  return present;
}

function tooNew(
  { version, image }: Pick<Tools, 'version' | 'image'>,
  present: string,
  { id }: Manifest,
): OpsError {
  const serverVersion = present.split(' ')[0] ?? '';
  return new OpsError('RESTORE_FAILED', {
    message: `The server is Postgres ${serverVersion}, and pg_restore of ${image} is ${version}, which works only with servers of its own version. The database is unchanged.`,
    next: [`set images.postgres in gameops.yaml to postgres:${majorOf(serverVersion)}`],
    facts: { id, serverVersion, toolVersion: version, image },
  });
}

function tooOld(version: string, manifest: Manifest): OpsError {
  const { id, serverVersion } = manifest;
  return new OpsError('RESTORE_FAILED', {
    message: `The backup ${id} is of Postgres ${serverVersion}, and version ${version.split(' ')[0]} can't restore it. The database is unchanged.`,
    next: [`use a server and images.postgres of version ${majorOf(serverVersion)} or newer`],
    facts: { id, serverVersion, version },
  });
}

/** Two restores within a second would use the same name: the later one gets the next second. */
async function freeUndoName(admin: pg.Client, database: string, at: Date): Promise<string> {
  const { rows } = await admin.query<{ name: string }>('SELECT datname AS name FROM pg_database');
  const taken = new Set(rows.map(({ name }) => name));
  let seconds = 0;
  const next = () => undoName(database, new Date(at.getTime() + 1_000 * seconds));
  while (taken.has(next())) seconds += 1;
  return next();
}

const commentPrefix = 'gameops: ';
const commentOf = (at: Date, by: string) =>
  `${commentPrefix}replaced ${at.toISOString().slice(0, 19).replace('T', ' ')} by ${by}`;

/** Newest first. @throws DATABASE_UNREACHABLE */
export async function listUndos(access: Pick<BackupAccess, 'endpoint'>): Promise<Undo[]> {
  return withClient(access.endpoint, async (client) => {
    const { rows } = await client.query<{ name: string; bytes: string; comment: string }>(
      `SELECT datname AS name, pg_database_size(oid) AS bytes, shobj_description(oid, 'pg_database') AS comment
       FROM pg_database WHERE starts_with(shobj_description(oid, 'pg_database'), $1)
         AND datname ~ '_before_[0-9]{14}$' AND starts_with($2, substr(datname, 1, length(datname) - 22))
       ORDER BY right(datname, 14) DESC`,
      [commentPrefix, access.endpoint.database],
    );
    return rows.map(({ name, bytes, comment }) => ({
      name,
      bytes: Number(bytes),
      comment: comment.slice(commentPrefix.length),
    }));
  });
}

/** Goes back to a database that a restore has put aside; the present one is put aside instead. @throws RESTORE_FAILED */
export async function restoreUndo(
  access: Pick<BackupAccess, 'endpoint' | 'signal'>,
  name: string,
  at: (moment: RestoreMoment) => void = () => undefined,
): Promise<Restored> {
  const { endpoint } = access;
  const moment = new Date();
  const comment = commentOf(moment, name);
  try {
    return await withAdmin(endpoint, 'gameops', async (admin) => {
      access.signal?.throwIfAborted();
      const undo = await freeUndoName(admin, endpoint.database, moment);
      const swap: Swap = { live: endpoint.database, incoming: name, aside: undo, comment, at };
      return { ...(await swapDatabases(endpoint, admin, swap)), undo };
    });
  } catch (error) {
    if (!isOpsError(error) && isDisconnected(error)) throw unreachable(endpoint, error);
    throw error;
  }
}
