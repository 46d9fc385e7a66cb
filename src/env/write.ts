/**
 * Puts a new text in the place of a .env: complete or not at all, with the mode and the owner it had. Nobody can read
 * it meanwhile who could not before.
 */
import {
  chownSync,
  closeSync,
  fchmodSync,
  fsyncSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { dirname, join } from 'node:path';

export function replaceFile(path: string, text: string): void {
  const target = realpathSync(path);
  const { mode, uid, gid } = statSync(target);
  const aside = join(dirname(target), `.env-${process.pid}.new`);
  const file = openSync(aside, 'wx', 0o600);
  try {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; ) at += writeSync(file, bytes, at);
    fchmodSync(file, mode & 0o777);
    fsyncSync(file);
    closeSync(file);
    if (process.getuid?.() === 0) chownSync(aside, uid, gid);
    renameSync(aside, target);
  } catch (error) {
    rmSync(aside, { force: true });
    throw error;
  }
}
