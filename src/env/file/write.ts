/**
 * Replaces the text of a .env: completely or not at all, with the same mode and owner. At no moment can anybody read it
 * who could not read the old file.
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
  // Replacing a pipe or a device would remove it, and the program that has it open would never notice.
  if (!was.isFile()) throw Object.assign(new Error('not a regular file'), { code: 'ENOTREG' });
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

/**
 * Before the mode is set, because the mode could let another group in.
 * @throws EPERM when the group has rights on the file and can't be kept
 */
function keepOwner(file: number, { uid, gid, mode }: Stats): void {
  const isRoot = process.getuid?.() === 0;
  try {
    fchownSync(file, isRoot ? uid : -1, gid);
  } catch (error) {
    if (isRoot || (mode & 0o070) !== 0) throw error;
  }
}

/** A killed process leaves its new file, which holds secrets, too. */
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
    // EPERM: the process is alive and belongs to another user.
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}

/**
 * Only this user can enter it. Made level by level, because Node's own `recursive` never returns below /proc
 * (https://github.com/nodejs/node/issues/31481).
 */
export function makeFolder(folder: string): void {
  if (existsSync(folder)) return;
  makeFolder(dirname(folder));
  mkdirSync(folder, { mode: 0o700 });
}
