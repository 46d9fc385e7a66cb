/** gameops db backups: lists the backups. Reads names, sizes and manifests; with --verify it verifies each backup. */

import { listBackups } from '../../database/backup/files.ts';
import type { Backup, Level } from '../../database/backup/model.ts';
import { withTools } from '../../database/backup/pg-tools.ts';
import { listUndos, type Undo } from '../../database/backup/restore.ts';
import { verifyBackup } from '../../database/backup/verify.ts';
import { isOpsError, OpsError } from '../../errors.ts';
import type { Context, Outcome, Style } from '../../operations/context.ts';
import { ageOf, backupResult } from '../../operations/database/backups.ts';
import { backupAccess, backupFolder } from '../../operations/database/database.ts';
import { columns, table } from '../../report/table.ts';
import { formatBytes } from '../../units.ts';

export interface BackupsOptions {
  verify?: 'sha256' | 'read' | 'restore';
}

/** @throws BACKUP_DAMAGED after all were verified, when --verify found a damaged one */
export async function run(context: Context, { verify }: BackupsOptions): Promise<Outcome> {
  const folder = backupFolder(context);
  const listed = await listBackups(folder);
  const backups = verify && listed.length > 0 ? await verifyAll(context, listed, verify) : listed;
  const undos = await undosOf(context);
  const result = { folder, backups: backups.map(backupResult), undos };
  const damaged = backups.filter(({ damage }) => damage !== null);
  if (verify && damaged.length > 0) {
    throw new OpsError('BACKUP_DAMAGED', {
      message: `${damaged.length} of ${backups.length} backups are damaged: ${damaged.map(({ id, damage }) => `${id} (${damage})`).join(', ')}. The database was not touched.`,
      next: ['gameops db backup', `remove the damaged ones from ${folder}`],
      facts: { damaged: damaged.map(({ id }) => id) },
      result,
    });
  }
  return {
    ok: true,
    result,
    text: (style) => [backupsText(style, folder, backups), ...undosText(undos)].join('\n'),
  };
}

/** Databases that a restore has put aside; [] when the server does not answer, because the files can be listed without it. */
async function undosOf(context: Context): Promise<Undo[]> {
  try {
    return await listUndos(await backupAccess(context));
  } catch (error) {
    if (!isOpsError(error)) throw error;
    context.emit({
      type: 'note',
      level: 'detail',
      message: `databases that were put aside are unknown: ${error.message}`,
    });
    return [];
  }
}

function undosText(undos: readonly Undo[]): string[] {
  if (undos.length === 0) return [];
  const rows = undos.map(({ name, bytes, comment }) => [name, formatBytes(bytes), comment]);
  return ['databases that a restore put aside, still on the server:', ...columns(rows, { indent: '  ' })];
}

async function verifyAll(context: Context, backups: readonly Backup[], level: Level): Promise<Backup[]> {
  const access = await backupAccess(context);
  return withTools(access, async (tools) => {
    const proven: Backup[] = [];
    for (const backup of backups) {
      context.signal.throwIfAborted();
      context.emit({ type: 'note', level: 'info', message: `verifying ${backup.id}` });
      const proof = { tools, endpoint: access.endpoint, level, signal: context.signal };
      proven.push(
        await verifyBackup(access.folder, backup, proof).catch((error: unknown) => {
          if (!isOpsError(error, 'BACKUP_DAMAGED')) throw error;
          const damage = (error.facts.damage ?? 'restored content differs') as Backup['damage'];
          return { ...backup, damage };
        }),
      );
    }
    return proven;
  });
}

function backupsText(style: Style, folder: string, backups: readonly Backup[]): string {
  if (backups.length === 0) return 'no backups yet\n  next: gameops db backup';
  const rows = backups.map(({ id, manifest, damage }) => [
    id,
    manifest ? `${ageOf(manifest.takenAt)} old` : '',
    manifest ? formatBytes(manifest.bytes) : '',
    damage
      ? style.red(damage)
      : manifest
        ? `${manifest.verified.level}, ${ageOf(manifest.verified.at)} ago`
        : '',
    manifest?.release ? `release ${manifest.release}` : '',
    manifest?.newestMigration ?? '',
    manifest?.reason ?? '',
  ]);
  const head = ['id', 'taken', 'size', 'verified', 'served', 'newest migration', 'why'];
  return `${table(head, rows, style.dim)}\n${folder}`;
}
