/** Reads files of any kind as text, up to a limit: a device that never ends must not take all memory. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { megabyte } from '../../units.ts';

/** A .env is a page of text; a file of this size can still be checked in seconds. */
export const envBytesMax = 64 * megabyte;
/** gameops.yaml: a larger file takes minutes to parse, and nobody wrote it by hand. */
export const configBytesMax = megabyte;
/** One value. */
export const valueBytesMax = megabyte;

const chunkBytes = 64 * 1024;

/** @param from path or open file @throws the system's error, or one with the code EFBIG */
export function readUpTo(from: string | number, bytesMax: number): string {
  const file = typeof from === 'number' ? from : openSync(from, 'r');
  try {
    // A file that is too large already need not be read. A folder fails when it is read.
    if (fstatSync(file).size > bytesMax) throw tooLarge();
    const chunks: Buffer[] = [];
    let total = 0;
    for (;;) {
      const chunk = Buffer.allocUnsafe(chunkBytes);
      const count = readSync(file, chunk, 0, chunkBytes, null);
      if (count === 0) return Buffer.concat(chunks).toString('utf8');
      total += count;
      if (total > bytesMax) throw tooLarge();
      chunks.push(chunk.subarray(0, count));
    }
  } finally {
    if (typeof from !== 'number') closeSync(file);
  }
}

function tooLarge(): Error {
  return Object.assign(new Error('too large'), { code: 'EFBIG' });
}
