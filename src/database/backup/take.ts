/**
 * Takes a backup while players play. Promises that the backup it returns is complete, on the disk and verified; that a
 * failure leaves no file that looks like a backup; and that no pg_dump outlives it.
 */
import { randomBytes } from 'node:crypto';
import type pg from 'pg';
import type { Piped } from '../../engine/port.ts';
import { isOpsError, OpsError } from '../../errors.ts';
import type { Emit } from '../../report/events.ts';
import { counted, formatBytes } from '../../units.ts';
import { codeOf, endedBy, isDisconnected, messageOf, unreachable, withClient } from '../server/connection.ts';
import { readActivity, readFacts } from '../server/facts.ts';
import {
  createDump,
  type DumpFile,
  freeBytes,
  listBackups,
  openFolder,
  publish,
  removeBackup,
  sweepPartials,
} from './files.ts';
import {
  type Activity,
  applicationNames,
  type Backup,
  backupId,
  copyEstimate,
  type DatabaseFacts,
  dumpEstimate,
  expendable,
  type Level,
  type Manifest,
  shortOfRoom,
} from './model.ts';
import { dropOrphans, endOrphans, keepAlive, livingBackups } from './orphans.ts';
import { majorOf, type Tools, type ToolsAccess, withTools } from './pg-tools.ts';
import { dayMs, lastWords } from './staging.ts';
import { proveDump } from './verify.ts';

export interface BackupAccess extends ToolsAccess {
  /** Folder of this project alone. */
  folder: string;
  emit: Emit;
  signal?: AbortSignal;
}

export interface BackupRequest {
  level: Level;
  /** The release that serves now. */
  release: number | null;
  /** Why it was taken, for people: "by hand", "before release 41". */
  reason: string;
}

export type TakenBackup = Backup & { manifest: Manifest };

/** How long pg_dump may queue for a table that a migration holds. */
const lockWaitMs = 10_000;

/** @throws BACKUP_FAILED, BACKUP_DAMAGED, DISK_TOO_FULL, DATABASE_UNREACHABLE; the reason of `signal` */
export async function takeBackup(access: BackupAccess, request: BackupRequest): Promise<TakenBackup> {
  const id = backupId(new Date(), randomBytes(2).toString('hex'));
  const owner = { application: applicationNames.owner(id), statementMs: dayMs, lockMs: lockWaitMs };
  return withClient(
    access.endpoint,
    async (client) => {
      try {
        await keepAlive(client);
        await openFolder(access.folder);
        await tidyUp(access, client);
        await mustHaveRoom(access, client, request.level);
        return await withTools(access, (tools) => dumpAndProve(access, request, client, tools, id));
      } catch (error) {
        throw inWords(access, error);
      }
    },
    owner,
  );
}

async function tidyUp({ folder, emit }: BackupAccess, client: pg.Client): Promise<void> {
  const say = (message: string) => emit({ type: 'note', level: 'info', message });
  const ended = await endOrphans(client);
  if (ended > 0) say(`ended ${counted(ended, 'dump')} of a killed gameops`);
  for (const name of await dropOrphans(client)) say(`dropped ${name}, which a killed restore left`);
  for (const name of await sweepPartials(folder, await livingBackups(client)))
    say(`removed ${name}, which a killed backup left`);
}

/** Called before anything else begins; the backup itself checks again. @throws DISK_TOO_FULL, DATABASE_UNREACHABLE */
export const mustHaveRoomForBackup = (access: BackupAccess, level: Level): Promise<void> =>
  withClient(access.endpoint, (client) => mustHaveRoom(access, client, level));

/** @throws DISK_TOO_FULL */
async function mustHaveRoom(access: BackupAccess, client: pg.Client, level: Level): Promise<void> {
  const { rows } = await client.query<{ bytes: string }>(
    'SELECT pg_database_size(current_database()) AS bytes',
  );
  const databaseBytes = Number(rows[0]?.bytes ?? 0);
  const last = (await listBackups(access.folder)).find(({ manifest }) => manifest !== null);
  const bytes = dumpEstimate(databaseBytes, last?.manifest ?? null);
  const short = shortOfRoom({ bytes, where: access.folder }, await freeBytes(access.folder));
  if (short) throw noRoom(short, access.folder);
  if (level === 'restore') await mustHaveRoomForCopy(access, databaseBytes, bytes);
}

/**
 * The disk is known only for a server that gameops runs. The dump may be on the same disk, so both must fit.
 * @throws DISK_TOO_FULL
 */
export async function mustHaveRoomForCopy(
  { engine, project, image, endpoint }: ToolsAccess,
  databaseBytes: number,
  besideBytes = 0,
): Promise<void> {
  if (endpoint.accessory === null) return;
  const free = await engine.freeDiskBytes(project, image);
  const where = 'the disk of the database';
  const short = shortOfRoom({ bytes: copyEstimate(databaseBytes) + besideBytes, where }, free);
  if (short) throw noRoom(short, where);
}

function noRoom(short: string, where: string): OpsError {
  return new OpsError('DISK_TOO_FULL', {
    message: `${short}. Nothing was changed, and players are not affected.`,
    next: ['free space there, or set backup.dir in gameops.yaml to a larger disk', 'gameops prune'],
    facts: { where },
  });
}

async function dumpAndProve(
  access: BackupAccess,
  request: BackupRequest,
  client: pg.Client,
  tools: Tools,
  id: string,
): Promise<TakenBackup> {
  const began = performance.now();
  const { rows } = await client.query<{ version: string; owner: string }>(
    `SELECT current_setting('server_version') AS version, current_user AS owner`,
  );
  mustKnow(tools, rows[0]?.version ?? '');
  const file = await createDump(access.folder, id);
  try {
    const seen = await dump(access, client, tools, file, id);
    const written = await file.seal();
    const dumpedMs = Math.round(performance.now() - began);
    access.emit({
      type: 'note',
      level: 'detail',
      message: `dumped ${formatBytes(written.bytes)} in ${dumpedMs} ms`,
    });
    const verified = { level: request.level, at: new Date().toISOString(), ms: 0 };
    const base: Manifest = {
      format: 1,
      id,
      project: access.project,
      database: access.endpoint.database,
      owner: rows[0]?.owner,
      takenAt: seen.takenAt,
      ms: dumpedMs,
      ...written,
      ...seen.facts,
      activity: seen.activity,
      toolVersion: tools.version,
      image: tools.image,
      release: request.release,
      reason: request.reason,
      verified,
    };
    const proof = {
      tools,
      endpoint: access.endpoint,
      level: request.level,
      ...(access.signal ? { signal: access.signal } : {}),
    };
    await proveDump(file.path, base, proof);
    const ms = Math.round(performance.now() - began);
    const manifest = {
      ...base,
      ms,
      verified: { ...verified, at: new Date().toISOString(), ms: ms - dumpedMs },
    };
    return { ...(await publish(access.folder, manifest)), manifest };
  } catch (error) {
    await file.discard();
    throw error;
  }
}

/**
 * pg_dump refuses a newer server only half a minute later, with its own message. Its dump of an older server can't be
 * restored there: pg_restore 18 uses settings that Postgres 16 does not know. @throws BACKUP_FAILED
 */
export function mustKnow(tools: Pick<Tools, 'version' | 'image'>, serverVersion: string): void {
  const [tool, server] = [majorOf(tools.version), majorOf(serverVersion)];
  if (tool === server) return;
  const why = tool < server ? "can't dump it" : 'makes dumps that could not be restored there';
  throw new OpsError('BACKUP_FAILED', {
    message: `The server is Postgres ${serverVersion.split(' ')[0]}, but pg_dump of ${tools.image} is ${tools.version} and ${why}. The database was not touched.`,
    next: [`set images.postgres in gameops.yaml to postgres:${server}`],
    facts: { serverVersion, toolVersion: tools.version, image: tools.image },
  });
}

interface Dumped {
  takenAt: string;
  facts: DatabaseFacts;
  activity: Activity;
}

/** pg_dump and our own counting use one snapshot, so that the manifest says exactly what is in the file. */
async function dump(
  access: BackupAccess,
  client: pg.Client,
  tools: Tools,
  file: DumpFile,
  id: string,
): Promise<Dumped> {
  const activity = await readActivity(client);
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  const { rows } = await client.query<{ snapshot: string; at: Date }>(
    'SELECT pg_export_snapshot() AS snapshot, now() AS at',
  );
  const [{ snapshot, at }] = rows as [{ snapshot: string; at: Date }];
  // When one of them fails, the other is stopped.
  const failed = new AbortController();
  const signal = access.signal ? AbortSignal.any([access.signal, failed.signal]) : failed.signal;
  const giveUp = (error: unknown) => {
    failed.abort(error);
    throw error;
  };
  const command = [
    'pg_dump',
    '--format=custom',
    '--compress=1',
    '--no-password',
    `--lock-wait-timeout=${lockWaitMs}`,
    `--snapshot=${snapshot}`,
  ];
  const tell = progressOf(access.emit);
  const dumping = tools.run(command, {
    database: access.endpoint.database,
    application: applicationNames.dump(id),
    signal,
    output: async (bytes) => {
      await file.write(bytes);
      tell(file.bytes());
    },
  });
  // Wait for both: nothing may write into a file that is being removed.
  const [facts] = await Promise.allSettled([
    endedBy(signal, client, readFacts).catch(giveUp),
    dumping.then(mustHaveSucceeded).catch(giveUp),
  ]);
  if (failed.signal.aborted) throw failed.signal.reason;
  if (facts.status === 'rejected') throw facts.reason;
  await client.query('COMMIT');
  return { takenAt: at.toISOString(), facts: facts.value, activity };
}

function mustHaveSucceeded({ exitCode, stderr }: Piped): void {
  if (exitCode !== 0) throw failure(`pg_dump ended with ${exitCode}: ${lastWords(stderr)}`);
}

function progressOf(emit: Emit): (bytes: number) => void {
  let toldAt = performance.now();
  return (bytes) => {
    if (performance.now() - toldAt < 500) return;
    toldAt = performance.now();
    emit({ type: 'progress', label: 'backup', done: bytes, total: null, unit: 'bytes' });
  };
}

function inWords(access: BackupAccess, error: unknown): unknown {
  if (isOpsError(error) || access.signal?.aborted) return error;
  if (isDisconnected(error)) return unreachable(access.endpoint, error);
  // An error without a code is a bug, and is passed on unchanged.
  return codeOf(error) === '' ? error : failure(messageOf(error), error);
}

function failure(what: string, cause?: unknown): OpsError {
  return new OpsError('BACKUP_FAILED', {
    message: `No backup was made: ${what}. The database was not touched, and players are not affected.`,
    next: ['correct the cause, then run gameops db backup', 'gameops doctor'],
    facts: { sqlstate: codeOf(cause) },
    cause,
  });
}

/** @param pinned ids that a kept release points to. @returns what was removed */
export async function pruneBackups(
  folder: string,
  keep: number,
  pinned: ReadonlySet<string> = new Set(),
): Promise<string[]> {
  const removed: string[] = [];
  for (const { id } of expendable(await listBackups(folder), keep, pinned)) {
    await removeBackup(folder, id);
    removed.push(id);
  }
  return removed;
}
