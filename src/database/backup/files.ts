/**
 * Backups as files: `<id>.dump` and beside it `<id>.json`, in a folder of the project that only its owner can enter.
 * Promises that a file named .dump was complete and on the disk when it got that name, that the manifest is written last
 * and never in part, and that a full disk leaves nothing behind.
 */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import {
  chmod,
  type FileHandle,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  statfs,
  writeFile,
} from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { OpsError } from '../../errors.ts';
import { formatBytes } from '../../units.ts';
import { type Backup, backupIdPattern, type Damage, levels, type Manifest } from './model.ts';

const dumpPath = (folder: string, id: string): string => join(folder, `${id}.dump`);
const manifestPath = (folder: string, id: string) => join(folder, `${id}.json`);
const partialPath = (folder: string, id: string) => join(folder, `${id}.partial`);

const counts = z.record(z.string(), z.number());
const activity = z.object({ inserted: z.number(), updated: z.number(), deleted: z.number() });
const manifestReader = z.object({
  format: z.literal(1),
  id: z.string().regex(backupIdPattern),
  project: z.string(),
  database: z.string(),
  owner: z.string().optional(),
  takenAt: z.iso.datetime(),
  ms: z.number(),
  bytes: z.int().positive(),
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  serverVersion: z.string(),
  toolVersion: z.string(),
  image: z.string(),
  databaseBytes: z.number(),
  fingerprint: z.string(),
  newestMigration: z.string().nullable(),
  rows: counts,
  release: z.number().nullable(),
  reason: z.string(),
  activity: z.object({
    databaseOid: z.number(),
    since: z.string().nullable(),
    tables: z.record(z.string(), activity),
  }),
  verified: z.object({ level: z.enum(levels), at: z.iso.datetime(), ms: z.number() }),
}) satisfies z.ZodType<Manifest>;
/** The manifest has a checksum, too: otherwise a damaged manifest would be believed. */
const envelope = z.object({ sha256: z.string(), manifest: z.unknown() });

/** @throws BACKUP_FAILED */
export async function openFolder(folder: string): Promise<void> {
  try {
    await makeFolder(folder);
    await chmod(folder, 0o700);
    // The folder may be inside a repository, and players' data must not get into it.
    await writeFile(join(folder, '.gitignore'), '*\n', { flag: 'wx', mode: 0o600 }).catch(ignoreExisting);
  } catch (error) {
    throw unwritable(folder, error);
  }
}

/** Level by level: Node's own `recursive` never returns below /proc (https://github.com/nodejs/node/issues/31481). */
async function makeFolder(folder: string): Promise<void> {
  if (await stat(folder).catch(() => null)) return;
  await makeFolder(dirname(folder));
  await mkdir(folder, { mode: 0o700 }).catch(ignoreExisting);
}

function ignoreExisting(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EEXIST') throw error;
}

/** Bytes that this user can still write, where the folder is or will be. */
export async function freeBytes(folder: string): Promise<number> {
  const there = await statfs(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' && dirname(folder) !== folder) return null;
    throw unwritable(folder, error);
  });
  return there === null ? freeBytes(dirname(folder)) : there.bavail * there.bsize;
}

// Writing ---------------------------------------------------------------------------------------------------------

export interface Written {
  bytes: number;
  sha256: string;
}

export interface DumpFile {
  /** Under its partial name. */
  path: string;
  write(bytes: Uint8Array): Promise<void>;
  bytes(): number;
  /** Writes it to the disk; it keeps its partial name. */
  seal(): Promise<Written>;
  /** Removes it. */
  discard(): Promise<void>;
}

/** @throws BACKUP_FAILED, DISK_TOO_FULL; so do its methods */
export async function createDump(folder: string, id: string): Promise<DumpFile> {
  const path = partialPath(folder, id);
  const file = await open(path, 'wx', 0o600).catch((error: unknown) => {
    throw unwritable(path, error);
  });
  const hash = createHash('sha256');
  let bytes = 0;
  let isOpen = true;
  const close = async () => {
    if (isOpen) await file.close();
    isOpen = false;
  };
  return {
    path,
    async write(piece) {
      await writeAll(file, hash, piece).catch((error: unknown) => {
        throw unwritable(path, error, bytes);
      });
      bytes += piece.length;
    },
    bytes: () => bytes,
    async seal() {
      try {
        await file.sync();
        await close();
      } catch (error) {
        throw unwritable(path, error, bytes);
      }
      return { bytes, sha256: hash.digest('hex') };
    },
    async discard() {
      await close().catch(() => undefined);
      await rm(path, { force: true });
    },
  };
}

async function writeAll(file: FileHandle, hash: Hash, piece: Uint8Array): Promise<void> {
  hash.update(piece);
  for (let at = 0; at < piece.length; ) at += (await file.write(piece, at, piece.length - at)).bytesWritten;
}

/** Makes the partial file a backup: it gets its name first, and its manifest last. */
export async function publish(folder: string, manifest: Manifest): Promise<Backup> {
  const path = dumpPath(folder, manifest.id);
  try {
    await rename(partialPath(folder, manifest.id), path);
    await writeManifest(folder, manifest);
  } catch (error) {
    await removeBackup(folder, manifest.id);
    throw unwritable(path, error);
  }
  return { id: manifest.id, path, manifest, damage: null };
}

/** Writes it completely or leaves the old one, also when a better proof of the dump replaces the manifest. */
export async function writeManifest(folder: string, manifest: Manifest): Promise<void> {
  const path = manifestPath(folder, manifest.id);
  const text = JSON.stringify({ sha256: checksum(manifest), manifest }, null, 2);
  const file = await open(`${path}.new`, 'w', 0o600);
  try {
    await file.writeFile(`${text}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
  await syncFolder(folder);
}

/** A rename is on the disk only when its folder is; not every file system can open a folder. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => null);
  await handle?.sync().catch(() => undefined);
  await handle?.close();
}

const checksum = (manifest: unknown) => createHash('sha256').update(JSON.stringify(manifest)).digest('hex');

// Reading ---------------------------------------------------------------------------------------------------------

/** Newest first. Looks at sizes and manifests, and reads no dump. */
export async function listBackups(folder: string): Promise<Backup[]> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw unwritable(folder, error);
  });
  const found = names.flatMap((name) => /^(.+)\.(?:dump|json)$/.exec(name)?.[1] ?? []);
  const ids = [...new Set(found)].filter((id) => backupIdPattern.test(id));
  const backups = await Promise.all(ids.map((id) => readBackup(folder, id)));
  return backups.sort((a, b) => (a.id < b.id ? 1 : -1));
}

async function readBackup(folder: string, id: string): Promise<Backup> {
  const path = dumpPath(folder, id);
  const [text, file] = await Promise.all([
    readFile(manifestPath(folder, id), 'utf8').catch(() => null),
    stat(path).catch(() => null),
  ]);
  const manifest = text === null ? null : parseManifest(text, id);
  const damage = ((): Damage | null => {
    if (text === null) return 'no manifest';
    if (manifest === null) return 'manifest damaged';
    if (file === null) return 'file missing';
    return file.size === manifest.bytes ? null : 'size differs';
  })();
  return { id, path, manifest, damage };
}

function parseManifest(text: string, id: string): Manifest | null {
  try {
    const { sha256, manifest } = envelope.parse(JSON.parse(text));
    const parsed = manifestReader.parse(manifest);
    return sha256 === checksum(manifest) && parsed.id === id ? parsed : null;
  } catch {
    return null;
  }
}

/** @throws BACKUP_DAMAGED when it can't be read to its end */
export async function hashDump(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const piece of readDump(path)) hash.update(piece);
  return hash.digest('hex');
}

export async function* readDump(path: string): AsyncGenerator<Uint8Array> {
  try {
    for await (const piece of createReadStream(path, { highWaterMark: 256 * 1024 })) yield piece as Buffer;
  } catch (error) {
    throw new OpsError('BACKUP_DAMAGED', {
      message: `The backup ${path} can't be read: ${(error as Error).message}. The database was not touched.`,
      next: ['gameops db backups'],
      facts: { path, reason: (error as NodeJS.ErrnoException).code ?? 'unknown' },
      cause: error,
    });
  }
}

// Removing --------------------------------------------------------------------------------------------------------

/** The manifest is removed first: if gameops is killed in between, the rest no longer counts as a backup. */
export async function removeBackup(folder: string, id: string): Promise<void> {
  await rm(manifestPath(folder, id), { force: true });
  await rm(dumpPath(folder, id), { force: true });
}

/** A younger file may belong to a gameops whose connection is just starting. */
const settledMs = 60_000;

/**
 * Removes files that a killed gameops left, never a backup.
 * @param living ids of backups that are being made now
 */
export async function sweepPartials(folder: string, living: ReadonlySet<string>): Promise<string[]> {
  const swept: string[] = [];
  for (const name of await readdir(folder).catch(() => [])) {
    const id = /^(.+)\.(?:partial|json\.new)$/.exec(name)?.[1];
    if (id === undefined || !backupIdPattern.test(id) || living.has(id)) continue;
    const seen = await stat(join(folder, name)).catch(() => null);
    if (seen === null || Date.now() - seen.mtimeMs < settledMs) continue;
    await rm(join(folder, name), { force: true });
    swept.push(name);
  }
  return swept;
}

// Failures --------------------------------------------------------------------------------------------------------

/** EFBIG and EDQUOT are limits that an administrator set, with the same consequence. */
const full = new Set(['ENOSPC', 'EDQUOT', 'EFBIG']);

function unwritable(path: string, error: unknown, bytes = 0): OpsError {
  if (error instanceof OpsError) return error;
  const code = (error as NodeJS.ErrnoException).code ?? 'unknown';
  if (full.has(code)) {
    return new OpsError('DISK_TOO_FULL', {
      message: `The disk became full after ${formatBytes(bytes)} of ${path} (${code}). The incomplete file was removed; the database was not touched.`,
      next: ['free space there, or set backup.dir in gameops.yaml to a larger disk', 'gameops db backups'],
      facts: { path, bytes, reason: code },
      cause: error,
    });
  }
  return new OpsError('BACKUP_FAILED', {
    message: `${path} can't be used (${code}). The database was not touched.`,
    next: ['make the folder writable for this user, or set backup.dir in gameops.yaml'],
    facts: { path, reason: code },
    cause: error,
  });
}
