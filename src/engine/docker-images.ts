/**
 * Images: ask, pull, build, import, remove.
 * Promises that success means the image is on the engine: progress streams report failures in-band with status 200,
 * and dockerode's own followers drop them, so every event is read and the image is inspected afterwards.
 */
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { label } from '../contract.ts';
import { OpsError } from '../errors.ts';
import { type Connection, orDone, orNull } from './docker-client.ts';
import { answerOf } from './docker-errors.ts';
import { engineFailed, imageMissing } from './failures.ts';
import type { Engine, FileEntry, ImageInfo, Progress } from './port.ts';
import { registryAuth } from './registry-auth.ts';
import { tarOf } from './tar.ts';

interface ProgressEvent {
  id?: string;
  status?: string;
  stream?: string;
  error?: string;
  errorDetail?: { message?: string };
  progressDetail?: { current?: number; total?: number };
}

const linesKept = 20;

export function imageVerbs(connection: Connection) {
  return {
    image: (ref: string) => image(connection, ref),
    pullImage: (ref: string, progress?: Progress) => pullImage(connection, ref, progress),
    buildImage: (
      build: { tag: string; context: readonly FileEntry[]; labels: Record<string, string> },
      progress?: Progress,
    ) => buildImage(connection, build, progress),
    importImage: (
      source: { tag: string; tarPath: string; changes: readonly string[] },
      progress?: Progress,
    ) => importImage(connection, source, progress),
    removeImage: (ref: string) => orDone(connection.docker.getImage(ref).remove()),
  } satisfies Partial<Engine>;
}

async function image({ docker }: Connection, ref: string): Promise<ImageInfo | null> {
  const info = await orNull(docker.getImage(ref).inspect());
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

async function pullImage(connection: Connection, ref: string, progress?: Progress): Promise<ImageInfo> {
  const auth = await registryAuth(ref);
  let failed: string | null;
  try {
    const options = auth === null ? {} : { authconfig: auth };
    const stream: unknown = await connection.docker.pull(ref, options);
    failed = await follow(stream as Readable, layersOf(progress));
  } catch (error) {
    if (answerOf(error).status === null) throw error;
    failed = answerOf(error).message;
  }
  if (failed !== null) throw pullFailed(ref, failed);
  return imageNow(connection, ref);
}

/** Layers report one by one; people want one bar. */
function layersOf(progress: Progress = () => undefined): (event: ProgressEvent) => void {
  const layers = new Map<string, { current: number; total: number }>();
  return ({ id, status = '', progressDetail }) => {
    if (id === undefined || status !== 'Downloading' || !progressDetail?.total) return;
    layers.set(id, { current: progressDetail.current ?? 0, total: progressDetail.total });
    const sum = (pick: 'current' | 'total') =>
      [...layers.values()].reduce((bytes, layer) => bytes + layer[pick], 0);
    progress({ message: 'downloading', done: sum('current'), total: sum('total') });
  };
}

function pullFailed(ref: string, words: string): OpsError {
  // "not found" of a name server is no answer of the registry, so the network's words are looked for first.
  const nobodyAnswers =
    /no such host|server misbehaving|connection refused|timeout|deadline exceeded|no route to host|network is unreachable|connection reset|x509|tls:|EOF|temporary failure|50[0234]/i;
  if (nobodyAnswers.test(words)) {
    return new OpsError('REGISTRY_UNREACHABLE', {
      message: `The registry of ${ref} does not answer: ${words}`,
      next: [
        'gameops images prepare --source debian',
        'check the network and proxy settings of the engine, then try again',
      ],
      facts: { image: ref },
    });
  }
  if (
    /not found|denied|unauthorized|manifest unknown|does not exist|no basic auth|invalid reference|no matching manifest/i.test(
      words,
    )
  ) {
    return imageMissing(ref, words);
  }
  return engineFailed(words, { image: ref });
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
  const file = createReadStream(source.tarPath, { highWaterMark: 1024 * 1024 });
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

/** Reads the stream to its end. The error it reported in-band, or null. */
async function follow(stream: Readable, onEvent: (event: ProgressEvent) => void): Promise<string | null> {
  let failed: string | null = null;
  for await (const line of createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })) {
    if (line.trim() === '') continue;
    const event = JSON.parse(line) as ProgressEvent;
    if (event.error !== undefined) failed ??= event.errorDetail?.message ?? event.error;
    onEvent(event);
  }
  return failed;
}
