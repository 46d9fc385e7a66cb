/**
 * Images: ask, pull, build, import, remove.
 * Promises that success means the image is on the engine: progress streams report failures in-band with status 200,
 * and dockerode's own followers drop them, so every event is read and the image is inspected afterwards.
 */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import type { Readable } from 'node:stream';
import { label } from '../../../contract.ts';
import { OpsError } from '../../../errors.ts';
import { megabyte } from '../../../units.ts';
import { engineFailed, imageMissing } from '../../failures.ts';
import type { Engine, FileEntry, ImageInfo, Progress } from '../../port.ts';
import { type Connection, orDone, orNull } from '../client.ts';
import { answerOf, isStatus } from '../errors.ts';
import { tarOf } from '../tar.ts';
import { follow, type ProgressEvent } from './progress.ts';
import { pull } from './pull.ts';
import { type Needles, searchImage } from './search.ts';

const linesKept = 20;

export function imageVerbs(connection: Connection) {
  return {
    image: (ref: string) => image(connection, ref),
    async pullImage(ref: string, progress?: Progress, signal?: AbortSignal) {
      await pull(connection, ref, progress, signal);
      return imageNow(connection, ref);
    },
    buildImage: (
      build: { tag: string; context: readonly FileEntry[]; labels: Record<string, string> },
      progress?: Progress,
    ) => buildImage(connection, build, progress),
    importImage: (
      source: { tag: string; tarPath: string; changes: readonly string[] },
      progress?: Progress,
    ) => importImage(connection, source, progress),
    searchImage: (ref: string, needles: Needles, signal: AbortSignal) =>
      searchImage(connection, ref, needles, signal),
    removeImage: (ref: string) => removeImage(connection, ref),
  } satisfies Partial<Engine>;
}

async function removeImage({ docker }: Connection, ref: string): Promise<boolean> {
  try {
    await orDone(docker.getImage(ref).remove());
    return true;
  } catch (error) {
    if (isStatus(error, 409)) return false;
    throw error;
  }
}

async function image({ docker }: Connection, ref: string): Promise<ImageInfo | null> {
  // A reference that is not valid names no image. A pull of it says what is wrong with it.
  const isName = /^[\x21-\x7e]+$/.test(ref);
  const info = isName ? await orNull(docker.getImage(ref).inspect(), 400) : null;
  return info === null
    ? null
    : {
        id: info.Id,
        labels: info.Config?.Labels ?? {},
        user: info.Config?.User ?? '',
        bytes: info.Size,
        repoDigests: info.RepoDigests ?? [],
      };
}

async function imageNow(connection: Connection, ref: string): Promise<ImageInfo> {
  const found = await image(connection, ref);
  if (found === null) throw imageMissing(ref);
  return found;
}

async function buildImage(
  connection: Connection,
  build: { tag: string; context: readonly FileEntry[]; labels: Record<string, string> },
  progress: Progress = () => undefined,
): Promise<ImageInfo> {
  const lines: string[] = [];
  const options = {
    t: build.tag,
    labels: { ...build.labels, [label.role]: 'image' },
    // What goes in comes from the context; a build that downloads is not repeatable.
    networkmode: 'none',
    rm: true,
    forcerm: true,
  };
  const say = (event: ProgressEvent) => {
    const text = (event.stream ?? event.status ?? '').trimEnd();
    if (text === '') return;
    lines.push(text);
    if (lines.length > linesKept) lines.shift();
    progress({ message: text.split('\n').at(-1) ?? text });
  };
  let failed: string | null;
  try {
    const stream: unknown = await connection.docker.buildImage(
      tarOf(build.context) as never,
      options as never,
    );
    failed = await follow(stream as Readable, say);
  } catch (error) {
    if (answerOf(error).status === null) throw error;
    failed = answerOf(error).message;
  }
  if (failed === null) return imageNow(connection, build.tag);
  if (/no space left on device/i.test(failed)) throw engineFailed(failed);
  throw new OpsError('IMAGE_BUILD_FAILED', {
    message: `Building ${build.tag} failed: ${failed}`,
    next: ['read the last lines of the build above', 'gameops images prepare'],
    facts: { tag: build.tag, lastLines: lines },
  });
}

async function importImage(
  connection: Connection,
  source: { tag: string; tarPath: string; changes: readonly string[] },
  progress: Progress = () => undefined,
): Promise<ImageInfo> {
  const { size } = await stat(source.tarPath);
  const { repo, tag } = splitTag(source.tag);
  const file = createReadStream(source.tarPath, { highWaterMark: megabyte });
  let done = 0;
  file.on('data', (chunk) => {
    done += chunk.length;
    progress({ message: 'importing', done, total: size });
  });
  try {
    const options = { repo, tag, changes: [...source.changes] };
    const stream: unknown = await connection.docker.importImage(file as never, options as never);
    const failed = await follow(stream as Readable, () => undefined);
    if (failed !== null) throw engineFailed(failed, { tag: source.tag });
  } finally {
    file.destroy();
  }
  return imageNow(connection, source.tag);
}

function splitTag(ref: string): { repo: string; tag: string } {
  const colon = ref.lastIndexOf(':');
  const hasTag = colon > ref.lastIndexOf('/');
  return hasTag ? { repo: ref.slice(0, colon), tag: ref.slice(colon + 1) } : { repo: ref, tag: 'latest' };
}
