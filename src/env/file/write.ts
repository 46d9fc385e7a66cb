/**
 * Puts a new text in the place of a .env: complete or not at all, with the mode and the owner it had. Nobody can read
 * it meanwhile who could not before.
 */
import {
  closeSync,
  existsSync,
  fchmodSync,
  fchownSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';

export function replaceFile(path: string, text: string): void {
  const target = realpathSync(path);
  const was = statSync(target);
  // A pipe or a device would be gone, and whoever has it open would never know.
  if (!was.isFile()) throw Object.assign(new Error('no regular file'), { code: 'ENOTREG' });
  sweep(dirname(target));
  const aside = join(dirname(target), `.env-${process.pid}.new`);
  const file = openSync(aside, 'wx', 0o600);
  try {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
    keepOwner(file, was);
    fchmodSync(file, was.mode & 0o777);
    fsyncSync(file);
    closeSync(file);
    renameSync(aside, target);
  } catch (error) {
    rmSync(aside, { force: true });
    throw error;
  }
}

/** Before the mode, which else would let another group in. @throws EPERM where the group may, and can't be kept */
function keepOwner(file: number, { uid, gid, mode }: Stats): void {
  const isRoot = process.getuid?.() === 0;
  try {
    fchownSync(file, isRoot ? uid : -1, gid);
  } catch (error) {
    if (isRoot || (mode & 0o070) !== 0) throw error;
  }
}

/** What a killed one left beside it holds secrets, too. */
function sweep(folder: string): void {
  for (const name of readdirSync(folder)) {
    const pid = /^\.env-(\d+)\.new$/.exec(name)?.[1];
    if (pid !== undefined && !isAlive(Number(pid))) rmSync(join(folder, name), { force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return pid !== process.pid;
  } catch (error) {
    // Somebody else's process is one, too.
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/**
 * For this user alone. Level by level: Node's own `recursive` never returns below /proc
 * (https://github.com/nodejs/node/issues/31481).
 */
export function makeFolder(folder: string): void {
  if (existsSync(folder)) return;
  makeFolder(dirname(folder));
  mkdirSync(folder, { mode: 0o700 });
}
