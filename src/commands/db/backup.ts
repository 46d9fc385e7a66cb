/** gameops db backup: a verified dump of the database, taken while players play. Afterwards backups beyond the kept number are removed. */

import { pruneBackups, takeBackup } from '../../database/backup/take.ts';
import type { Context, Outcome } from '../../operations/context.ts';
import { backupResult, recordOrNull } from '../../operations/database/backups.ts';
import { backupAccess } from '../../operations/database/database.ts';
import { sweepLeavings } from '../../operations/project.ts';
import { pinnedBackups } from '../../runner/act.ts';
import { formatBytes, formatMs } from '../../units.ts';

export interface BackupOptions {
  verify: 'sha256' | 'read' | 'restore';
}

export async function run(context: Context, { verify }: BackupOptions): Promise<Outcome> {
  await sweepLeavings(context);
  const access = await backupAccess(context);
  const record = await recordOrNull(context);
  const release = record?.releases.find(({ verdict }) => verdict === 'live')?.id ?? null;
  const taken = await takeBackup(access, { level: verify, release, reason: 'by hand' });
  const pinned = record ? pinnedBackups(record, context.config.deploy.keep) : [];
  const removed = await pruneBackups(
    access.folder,
    context.config.backup.keep,
    new Set([taken.id, ...pinned]),
  );
  const { bytes, databaseBytes, ms, rows } = taken.manifest;
  const count = Object.values(rows).reduce((sum, n) => sum + n, 0);
  const proof = {
    sha256: 'the file on disk has the checksum of the dump',
    read: 'the dump unpacks to its end',
    restore: 'restored into a database of its own, and equal',
  }[verify];
  return {
    ok: true,
    result: { ...backupResult(taken), removed },
    text: (style) =>
      [
        `${style.bold(`backup ${taken.id}`)}: ${formatBytes(bytes)} of a database of ${formatBytes(databaseBytes)}, ${count} rows, in ${formatMs(ms)}`,
        `  verified: ${proof}`,
        `  ${taken.path}`,
        ...(removed.length === 0 ? [] : [`  removed older backups: ${removed.join(', ')}`]),
      ].join('\n'),
  };
}
