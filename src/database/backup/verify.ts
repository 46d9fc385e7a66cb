/**
 * Proves a backup: that its bytes are unchanged, that all of them can be unpacked, or that it can be restored. Never
 * touches the live database.
 */
import { OpsError } from '../../errors.ts';
import type { DatabaseEndpoint } from '../server/connection.ts';
import { hashDump, readDump, writeManifest } from './files.ts';
import type { Backup, Damage, Level, Manifest } from './model.ts';
import { isAtLeast } from './model.ts';
import type { Tools } from './pg-tools.ts';
import { lastWords, withStaging } from './staging.ts';

export interface Proof {
  tools: Tools;
  endpoint: DatabaseEndpoint;
  level: Level;
  signal?: AbortSignal;
}

/** Compares the dump at `path` with its manifest. @throws BACKUP_DAMAGED */
export async function proveDump(path: string, manifest: Manifest, proof: Proof): Promise<void> {
  if ((await hashDump(path)) !== manifest.sha256) throw damaged(manifest.id, path, 'content differs');
  proof.signal?.throwIfAborted();
  // A trial restore reads every byte, too.
  if (proof.level === 'read') await readThrough(path, manifest.id, proof);
  if (proof.level === 'restore') {
    const { endpoint, tools, signal } = proof;
    await withStaging(
      { endpoint, tools, path, manifest, ...(signal ? { signal } : {}) },
      async () => undefined,
    );
  }
}

/** A file that lost half of its content still has a readable list of contents: only reading all of it shows the damage. */
async function readThrough(path: string, id: string, { tools, signal }: Proof): Promise<void> {
  const { exitCode, stderr } = await tools.run(['pg_restore', '--file=/dev/null'], {
    input: readDump(path),
    ...(signal ? { signal } : {}),
  });
  if (exitCode !== 0) throw damaged(id, path, 'unreadable', lastWords(stderr));
}

/** The same for a backup in the folder; a better proof than before is written into its manifest. */
export async function verifyBackup(folder: string, backup: Backup, proof: Proof): Promise<Backup> {
  const { manifest, damage, id, path } = backup;
  if (manifest === null || damage !== null) throw damaged(id, path, damage ?? 'no manifest');
  const began = performance.now();
  await proveDump(path, manifest, proof);
  if (!isAtLeast(proof.level, manifest.verified.level)) return backup;
  const ms = Math.round(performance.now() - began);
  const verified = { level: proof.level, at: new Date().toISOString(), ms };
  const proven = { ...manifest, verified };
  await writeManifest(folder, proven);
  return { ...backup, manifest: proven };
}

export function damaged(id: string, path: string, damage: Damage, words = ''): OpsError {
  return new OpsError('BACKUP_DAMAGED', {
    message: `The backup ${id} is damaged: ${damage}${words === '' ? '' : ` (${words})`}. The database was not touched.`,
    next: ['gameops db backups', 'gameops db backup'],
    facts: { id, path, damage },
  });
}
