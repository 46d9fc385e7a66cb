/**
 * Looks for texts in all that an image carries: every file of every layer, also one that a later layer has removed, and
 * its configuration with environment, labels and build history. Streams it once; nothing is written anywhere.
 * Promises to hand on names and places, never a text that was looked for.
 */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import tar from 'tar-stream';
import type { ImageSearch } from '../../port.ts';
import { type Connection, orNull } from '../client.ts';

/** Name → the forms its text may be met in. */
export type Needles = ReadonlyMap<string, readonly string[]>;

type Bytes = AsyncIterable<Uint8Array>;

/** @returns null when the engine has no such image */
export async function searchImage(
  { docker }: Connection,
  ref: string,
  needles: Needles,
  signal: AbortSignal,
): Promise<ImageSearch | null> {
  const found: ImageSearch = { hits: [], envFiles: [], isWhole: true };
  if (signal.aborted) return { ...found, isWhole: false };
  const image = docker.getImage(ref);
  if ((await orNull(image.inspect())) === null) return null;
  const stream = await begun(image.get(), signal);
  if (stream === null) return { ...found, isWhole: false };
  const end = () => stream.destroy(new Error('not searched in time'));
  signal.addEventListener('abort', end, { once: true });
  if (signal.aborted) end();
  try {
    await eachEntry(stream, (_name, bytes) => searchPart(found, needles, bytes));
  } catch {
    found.isWhole = false;
  } finally {
    signal.removeEventListener('abort', end);
    stream.destroy();
  }
  return found;
}

/** An engine that does not begin to answer must not hold anybody up either. @returns null when it did not in time */
function begun(asked: Promise<unknown>, signal: AbortSignal): Promise<Readable | null> {
  return new Promise((resolve, reject) => {
    const giveUp = () => resolve(null);
    signal.addEventListener('abort', giveUp, { once: true });
    if (signal.aborted) giveUp();
    asked.then((answer) => {
      const stream = answer as Readable;
      signal.removeEventListener('abort', giveUp);
      // An answer that comes too late is not read, and its end is no error.
      if (signal.aborted) stream.on('error', () => undefined).destroy();
      resolve(stream);
    }, reject);
  });
}

/** A layer, as a tar or a compressed one, or a document about the image. */
async function searchPart(found: ImageSearch, needles: Needles, bytes: Bytes): Promise<void> {
  const { head, all } = await withHead(bytes, 512);
  const isGzip = head[0] === 0x1f && head[1] === 0x8b;
  const isZstd = head.subarray(0, 4).equals(Buffer.from([0x28, 0xb5, 0x2f, 0xfd]));
  const isTar = head.subarray(257, 262).toString('latin1') === 'ustar';
  if (isZstd) found.isWhole = false;
  if (isGzip || isTar) return searchLayer(found, needles, isGzip ? gunzipped(all) : all);
  for (const key of await namesIn(all, needles)) note(found, key, null);
}

async function searchLayer(found: ImageSearch, needles: Needles, bytes: Bytes): Promise<void> {
  await eachEntry(bytes, async (path, content) => {
    if (/(^|\/)\.env(\.(?!example|sample|template)[\w.-]+)?$/.test(path)) found.envFiles.push(path);
    for (const key of await namesIn(content, needles)) note(found, key, path);
  });
}

function note({ hits }: ImageSearch, key: string, path: string | null): void {
  if (!hits.some((hit) => hit.key === key && hit.path === path)) hits.push({ key, path });
}

/** Regular files, one after the other; a use that reads less than all of one is no trouble. */
async function eachEntry(bytes: Bytes, use: (name: string, content: Bytes) => Promise<void>): Promise<void> {
  const extract = tar.extract();
  const fed = pipeline(Readable.from(bytes), extract as unknown as NodeJS.WritableStream);
  fed.catch(() => undefined);
  for await (const entry of extract) {
    if (entry.header.type === 'file' && (entry.header.size ?? 0) > 0)
      await use(entry.header.name.replace(/^(\.?\/)+/, ''), entry as unknown as Bytes);
    entry.resume();
  }
  await fed;
}

async function* gunzipped(bytes: Bytes): AsyncGenerator<Uint8Array> {
  const gunzip = createGunzip();
  const fed = pipeline(Readable.from(bytes), gunzip);
  fed.catch(() => undefined);
  yield* gunzip;
  await fed;
}

/** The first bytes, and all of them. */
async function withHead(bytes: Bytes, count: number): Promise<{ head: Buffer; all: Bytes }> {
  const iterator = bytes[Symbol.asyncIterator]();
  let head = Buffer.alloc(0);
  while (head.length < count) {
    const { value, done } = await iterator.next();
    if (done) break;
    head = Buffer.concat([head, value]);
  }
  async function* all() {
    if (head.length > 0) yield head;
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value;
  }
  return { head, all: all() };
}

/** In one pass, with memory for the longest of them. */
async function namesIn(bytes: Bytes, needles: Needles): Promise<Set<string>> {
  const forms = [...needles].flatMap(([key, texts]) =>
    texts.map((text) => ({ key, text: Buffer.from(text) })),
  );
  const overlap = Math.max(0, ...forms.map(({ text }) => text.length - 1));
  const names = new Set<string>();
  let kept = Buffer.alloc(0);
  for await (const chunk of bytes) {
    const window = kept.length === 0 ? Buffer.from(chunk) : Buffer.concat([kept, chunk]);
    for (const { key, text } of forms) if (!names.has(key) && window.includes(text)) names.add(key);
    kept = window.subarray(Math.max(0, window.length - overlap));
  }
  return names;
}
