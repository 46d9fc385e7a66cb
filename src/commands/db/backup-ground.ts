/** What the verbs about backups stand on: the database as .env names it, the folder, the tools. Reaches nothing by itself. */
import { resolve } from 'node:path';
import type { BackupGround } from '../../database/backup.ts';
import type { Backup } from '../../database/backup-model.ts';
import { type DatabaseEndpoint, databaseEndpoint } from '../../database/connection.ts';
import { resolveImages } from '../../engine/images.ts';
import { isOpsError, OpsError } from '../../errors.ts';
import { readRecord } from '../../runner/record.ts';
import { formatMs } from '../../units.ts';
import type { Context } from '../context.ts';

/** A folder for each project: two that share a gameops.yaml's folder must not prune each other's. */
export const backupFolder = ({ cwd, config, project }: Context): string =>
  resolve(cwd, config.backup.dir, project);

/** @throws ENV_INVALID, DATABASE_UNREACHABLE */
export async function backupGround(context: Context): Promise<BackupGround> {
  const engine = await context.engine();
  const { postgres } = await resolveImages(engine, context.config);
  return {
    engine,
    project: context.project,
    endpoint: await endpointOf(context),
    image: postgres.info?.id ?? postgres.ref,
    folder: backupFolder(context),
    emit: context.emit,
    signal: context.signal,
  };
}

async function endpointOf(context: Context): Promise<DatabaseEndpoint> {
  const { database } = context.readEnv().settings;
  if (database === null) {
    throw new OpsError('ENV_INVALID', {
      message: `${context.envPath} names no database: there is no DB_HOST. Nothing was changed.`,
      next: [`add DB_HOST, DB_NAME, DB_USER and DB_PASSWORD to ${context.envPath}`],
      facts: { file: context.envPath, keys: ['DB_HOST'] },
    });
  }
  try {
    return await databaseEndpoint(await context.engine(), context.project, database);
  } catch (error) {
    // It is the container of ours that is absent or stopped: the engine itself has answered.
    if (!isOpsError(error, 'ENGINE_FAILED')) throw error;
    throw new OpsError('DATABASE_UNREACHABLE', {
      message: `The database of ${context.project} does not run. Nothing was changed.`,
      next: ['gameops status', 'gameops deploy (starts it again)'],
      facts: { host: database.DB_HOST, database: database.DB_NAME },
      cause: error,
    });
  }
}

/** A courtesy to whoever reads the list: a backup needs no record. */
export async function liveRelease(context: Context): Promise<number | null> {
  try {
    const record = await readRecord(await context.engine(), context.project);
    return record?.releases.find(({ verdict }) => verdict === 'live')?.id ?? null;
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
  return ms >= 60_000 ? `${Math.floor(ms / 60_000)} min` : formatMs(Math.floor(ms / 1_000) * 1_000);
}

/** What scripts get of a backup. */
export function backupResult({ id, path, manifest, damage }: Backup): object {
  if (manifest === null) return { id, path, damage };
  const { bytes, sha256, takenAt, database, release, newestMigration, reason, verified, ms } = manifest;
  const { serverVersion, databaseBytes, rows } = manifest;
  const of = { takenAt, database, databaseBytes, serverVersion, newestMigration, release, reason };
  return { id, path, bytes, sha256, ...of, rows, verified, ms, damage };
}
