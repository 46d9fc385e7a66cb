/** What may become of a backup, each with the least proof that has to find it; and the asking. */
import { createHash } from 'node:crypto';
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { listBackups, writeManifest } from '../../../src/database/backup/files.ts';
import type { Backup, Level } from '../../../src/database/backup/model.ts';
import { withTools } from '../../../src/database/backup/pg-tools.ts';
import { verifyBackup } from '../../../src/database/backup/verify.ts';
import { isOpsError } from '../../../src/errors.ts';
import { type BackupLab, change, type copyOf, manifestIn } from './backups.ts';

export type Copy = Awaited<ReturnType<typeof copyOf>>;

export interface Damage {
  what: string;
  level: Level;
  /** @param other a backup of other content */
  damage(copy: Copy, other: Backup): Promise<unknown>;
}

export const cut = (share: number) => (content: Buffer) =>
  content.subarray(0, Math.floor(content.length * share));
export const flip = (at: (content: Buffer) => number) => (content: Buffer) => {
  content[at(content)] = (content[at(content)] ?? 0) ^ 0x10;
  return content;
};
/** In the middle of the packed rows, not in the list of contents before or behind them. */
export const middle = ({ length }: Buffer) => Math.floor(length / 2);

/** As whoever damaged it unseen would: the manifest says that it has to be like this. */
async function seal({ folder, dump, manifest }: Copy, change: object = {}): Promise<void> {
  const content = await readFile(dump);
  const sha256 = createHash('sha256').update(content).digest('hex');
  await writeManifest(folder, { ...(await manifestIn(manifest)), sha256, bytes: content.length, ...change });
}

function exchangeBlocks(content: Buffer): Buffer {
  const at = middle(content);
  const [a, b] = [content.subarray(at, at + 512), content.subarray(at + 512, at + 1024)];
  return Buffer.concat([content.subarray(0, at), b, a, content.subarray(at + 1024)]);
}

/** Of the dump, seen by its size or its checksum. */
const inDump = (what: string, by: (content: Buffer) => Buffer): Damage => ({
  what,
  level: 'sha256',
  damage: ({ dump }) => change(dump, by),
});

const unseen = (what: string, by: (content: Buffer) => Buffer): Damage => ({
  what: `${what}, and a manifest that agrees`,
  level: 'read',
  async damage(copy) {
    await change(copy.dump, by);
    await seal(copy);
  },
});

const inFiles = (what: string, damage: Damage['damage']): Damage => ({ what, level: 'sha256', damage });

export const damages: readonly Damage[] = [
  inDump('an empty dump', () => Buffer.alloc(0)),
  inDump('a dump of one byte', (content) => content.subarray(0, 1)),
  inDump('half a dump', cut(0.5)),
  inDump('a dump without its last byte', (content) => content.subarray(0, -1)),
  inDump('a byte too many', (content) => Buffer.concat([content, Buffer.from([0])])),
  inDump(
    'a bit of the first byte',
    flip(() => 0),
  ),
  inDump(
    'a bit of the list of contents',
    flip(() => 100),
  ),
  inDump('a bit in the middle', flip(middle)),
  inDump(
    'a bit of the last byte',
    flip(({ length }) => length - 1),
  ),
  inDump('a block of zeros', (content) => content.fill(0, middle(content), middle(content) + 512)),
  inDump('two blocks exchanged', exchangeBlocks),
  inFiles('the dump of another backup', async ({ dump }, other) =>
    writeFile(dump, await readFile(other.path)),
  ),
  inFiles('no dump', ({ dump }) => rm(dump)),
  inFiles('no manifest', ({ manifest }) => rm(manifest)),
  inFiles('half a manifest', ({ manifest }) => change(manifest, cut(0.5))),
  inFiles('a manifest that says something else', ({ manifest }) =>
    change(manifest, (text) =>
      Buffer.from(text.toString().replace('"public.players": 500', '"public.players": 501')),
    ),
  ),
  unseen('half a dump', cut(0.5)),
  unseen('most of a dump', cut(0.95)),
  unseen('a bit in the middle', flip(middle)),
  {
    what: 'a manifest that is sealed over other rows',
    level: 'restore',
    async damage(copy) {
      const { rows } = await manifestIn(copy.manifest);
      await seal(copy, { rows: { ...rows, 'public.players': 501 } });
    },
  },
  {
    what: 'a manifest that is sealed over another schema',
    level: 'restore',
    async damage(copy) {
      const { fingerprint } = await manifestIn(copy.manifest);
      await seal(copy, { fingerprint: fingerprint.replace(/[^:]*$/, 'f'.repeat(64)) });
    },
  },
  inFiles('a dump that a killed gameops had not finished', async ({ dump, manifest }) => {
    await rename(dump, dump.replace(/dump$/, 'partial'));
    await rm(manifest);
  }),
];

/** @returns "not whole" by the list, "damaged" by the proof, "whole", or what else went wrong */
export async function proven(lab: BackupLab, folder: string, level: Level): Promise<string> {
  const access = await lab.open({ folder });
  return withTools(access, async (tools) => {
    const [listed] = await listBackups(folder);
    if (listed === undefined || listed.damage !== null) return 'not whole';
    return verifyBackup(folder, listed, { tools, endpoint: lab.endpoint, level }).then(
      () => 'whole',
      (error: Error) => (isOpsError(error, 'BACKUP_DAMAGED') ? 'damaged' : error.message),
    );
  });
}
