/**
 * What the Docker Engine answers, in the words of the catalogue. Promises that no raw dockerode error leaves the engine
 * room, and that errors which are no answer of the engine (bugs) pass unchanged.
 */
import { OpsError } from '../errors.ts';

interface Answer {
  status: number | null;
  /** errno name such as ECONNREFUSED. */
  code: string | null;
  message: string;
}

/** The engine's own words, without dockerode's "(HTTP code 500) server error - ". */
export function answerOf(error: unknown): Answer {
  const raw = error as { statusCode?: number; code?: string; json?: { message?: string }; message?: string };
  const words = raw?.json?.message ?? String(raw?.message ?? error).replace(/^\(HTTP code \d+\) [^-]*- /, '');
  return {
    status: raw?.statusCode ?? null,
    code: typeof raw?.code === 'string' ? raw.code : null,
    message: words.trim(),
  };
}

export function isStatus(error: unknown, ...statuses: number[]): boolean {
  const { status } = answerOf(error);
  return status !== null && statuses.includes(status);
}

const unreachable = new Set([
  'ENOENT',
  'ECONNREFUSED',
  'EACCES',
  'EPERM',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ECONNRESET',
  'EPIPE',
  'ENOTSOCK',
]);

export function engineUnreachable(address: string, reason: string, code: string | null = null): OpsError {
  const mayNot = code === 'EACCES' || code === 'EPERM';
  return new OpsError('ENGINE_UNREACHABLE', {
    message: mayNot
      ? `This user may not use the Docker Engine at ${address}.`
      : `The Docker Engine at ${address} does not answer (${reason}). What runs there keeps running.`,
    next: mayNot
      ? ['add this user to the docker group, log in again, then gameops doctor']
      : ['gameops doctor', 'gameops host setup'],
    facts: { address, reason },
  });
}

/** @param address what was dialled, for the message */
export function translate(error: unknown, address: string): unknown {
  if (error instanceof OpsError) return error;
  const { status, code, message } = answerOf(error);
  if (/no space left on device/i.test(message)) return diskFull(message, error);
  // dockerode's connection errors carry `syscall`; an errno of our own file reading does too, but with a path.
  const raw = error as { syscall?: string; path?: string };
  const dialled = raw?.syscall === 'connect' || raw?.path === undefined;
  if (status === null && code !== null && unreachable.has(code) && dialled) {
    return engineUnreachable(address, message, code);
  }
  if (status === null && /socket hang up/.test(message)) return engineUnreachable(address, message, code);
  return status === null ? error : engineFailed(message, { status }, error);
}

export function engineFailed(
  words: string,
  facts: Record<string, string | number> = {},
  cause?: unknown,
): OpsError {
  if (/no space left on device/i.test(words)) return diskFull(words, cause);
  return new OpsError('ENGINE_FAILED', {
    message: `The Docker Engine refused: ${words}`,
    next: ['gameops doctor', 'gameops status'],
    facts,
    cause,
  });
}

function diskFull(words: string, cause: unknown): OpsError {
  return new OpsError('DISK_TOO_FULL', {
    message: `The disk of the Docker Engine is full: ${words}`,
    next: ['gameops prune', 'free space where Docker keeps its data, then run the command again'],
    cause,
  });
}

/** @param kind container, volume or network */
export function foreign(kind: string, name: string, project: string): OpsError {
  return new OpsError('FOREIGN_CONTAINER', {
    message: `A ${kind} named ${name} exists, but it does not belong to project ${project}. Nothing was changed.`,
    next: [`rename or remove that ${kind} yourself`, 'choose another project name with --project'],
    facts: { kind, name, project },
  });
}

/** The port out of "Bind for 127.0.0.1:8080 failed: port is already allocated" and its relatives, else null. */
export function portTaken(error: unknown, asked: readonly number[]): OpsError | null {
  const { message } = answerOf(error);
  if (!/port is already allocated|address already in use|ports are not available/i.test(message)) return null;
  const named = [...message.matchAll(/:(\d{1,5})\b/g)].map((match) => Number(match[1]));
  const port =
    asked.find((candidate) => candidate !== 0 && named.includes(candidate)) ?? named[0] ?? asked[0] ?? 0;
  return new OpsError('PORT_TAKEN', {
    message: `Port ${port} on the engine's host is taken by another program. Nothing was changed.`,
    next: [
      `choose another port in gameops.yaml (0 picks a free one), or stop what listens on ${port}`,
      `ss -ltnp 'sport = :${port}'`,
    ],
    facts: { port },
    cause: error,
  });
}

export function imageMissing(ref: string, words?: string): OpsError {
  return new OpsError('IMAGE_NOT_FOUND', {
    message:
      words === undefined ? `Image ${ref} is not on the engine.` : `Image ${ref} was not found: ${words}`,
    next: ['gameops images prepare', 'check the name, and log in to its registry with docker login'],
    facts: { image: ref },
  });
}
