/**
 * Pulls. Promises that a failure names its cause, whichever way the engine told it: as a status or in-band, and that an
 * interrupted pull ends at once: the engine drops it when nobody listens. Touches nothing that runs.
 */
import type { Readable } from 'node:stream';
import { OpsError } from '../../../errors.ts';
import { engineFailed } from '../../failures.ts';
import type { Progress } from '../../port.ts';
import type { Connection } from '../client.ts';
import { answerOf } from '../errors.ts';
import { follow, type ProgressEvent } from './progress.ts';
import { registryAuth, registryOf } from './registry-auth.ts';

/** @throws REGISTRY_UNREACHABLE, REGISTRY_DENIED, IMAGE_NOT_FOUND; AbortError once `signal` is */
export async function pull(
  connection: Connection,
  ref: string,
  progress: Progress = () => undefined,
  signal?: AbortSignal,
): Promise<void> {
  const auth = await registryAuth(ref);
  let failed: string | null;
  try {
    const options = {
      ...(auth === null ? {} : { authconfig: auth }),
      ...(signal === undefined ? {} : { abortSignal: signal }),
    };
    const stream: unknown = await connection.docker.pull(ref, options);
    failed = await follow(stream as Readable, layersOf(progress));
  } catch (error) {
    signal?.throwIfAborted();
    if (answerOf(error).status === null) throw error;
    failed = answerOf(error).message;
  }
  if (failed !== null) throw pullFailed(ref, failed, auth !== null);
}

/** The engine drops events that nobody fetched in time: any of these may be the first that tells. */
const isDownloaded = /^(Verifying Checksum|Download complete|Extracting|Pull complete)$/;

/** Layers report one by one; people want one bar, and to know why it stands still. */
function layersOf(progress: Progress): (event: ProgressEvent) => void {
  const layers = new Map<string, { current: number; total: number }>();
  const waits = new Map<string, number>();
  const tell = () => {
    const sum = (pick: 'current' | 'total') =>
      [...layers.values()].reduce((bytes, layer) => bytes + layer[pick], 0);
    progress({ message: 'downloading', done: sum('current'), total: sum('total') });
  };
  return ({ id, status = '', progressDetail }) => {
    if (id === undefined) return;
    const wait = Number(/^Retrying in (\d+) /.exec(status)?.[1] ?? 0);
    // The engine counts the seconds down, an event each.
    if (wait > (waits.get(id) ?? 0)) {
      const message = `the registry broke off; the engine tries again in ${wait} seconds`;
      progress({ message, isTrouble: true });
    }
    waits.set(id, wait);
    const known = layers.get(id);
    if (status === 'Downloading' && progressDetail?.total) {
      layers.set(id, { current: progressDetail.current ?? 0, total: progressDetail.total });
      tell();
    } else if (known && known.current < known.total && isDownloaded.test(status)) {
      known.current = known.total;
      tell();
    }
  };
}

const nobodyAnswers =
  /no such host|server misbehaving|connection refused|timeout|deadline exceeded|no route to host|network is unreachable|connection reset|x509|tls:|\bEOF\b|temporary failure|status(?: code)?:? 5\d\d/i;
/** What Docker Hub says of a private image and of a missing one is the same: that counts as missing. */
const isDenied =
  /unauthorized|authentication required|no basic auth credentials|toomanyrequests|forbidden|denied/i;
const isMissing = /not found|unknown|does not exist|invalid reference|no matching manifest/i;
const untouched = 'Nothing that runs was touched; players are where they were.';

/** Pure. @param words the engine's own; text is all that tells its failures apart */
export function pullFailed(ref: string, words: string, hadCredentials: boolean): OpsError {
  const registry = registryOf(ref);
  const facts = { image: ref, registry };
  const sentence = words.replace(/[.\s]*$/, '.');
  // An image may be called anything, and a port or a digest may look like a status.
  const said = words.replaceAll(ref, '').replaceAll(ref.replace(/[:@][^/]*$/, ''), '');
  // "not found" of a name server is no answer of the registry, so the network's words are looked for first.
  if (nobodyAnswers.test(said)) {
    return new OpsError('REGISTRY_UNREACHABLE', {
      message: `The registry of ${ref} does not answer: ${sentence} ${untouched}`,
      next: [
        'check that reference, and the network and proxy settings of the engine, then run the command again',
        `or docker load the archive of ${ref} into the engine`,
      ],
      facts,
    });
  }
  const login = `docker login${ref.startsWith(`${registry}/`) ? ` ${registry}` : ''}`;
  if (isDenied.test(said) && !/does not exist/i.test(said)) {
    const asked = hadCredentials
      ? 'with the credentials that docker login left'
      : 'without credentials: docker login left none';
    return new OpsError('REGISTRY_DENIED', {
      message: `The registry refuses to give ${ref}, asked ${asked}: ${sentence} ${untouched}`,
      next: [`${login}, as the user that runs gameops, then run the command again`],
      facts: { ...facts, hadCredentials },
    });
  }
  if (!isMissing.test(said)) return engineFailed(words, { image: ref });
  const isPartly = /unknown blob|blob unknown/i.test(said);
  return new OpsError('IMAGE_NOT_FOUND', {
    message: `${isPartly ? `The registry has only a part of ${ref}` : `No registry has ${ref}`}: ${sentence} ${untouched}`,
    next: isPartly
      ? [`push ${ref} again, then run the command again`]
      : ['check its name', `if the image is private: ${login}`],
    facts,
  });
}
