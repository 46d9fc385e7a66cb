/**
 * What the Docker Engine answers, in the words of the catalogue. Promises that no raw dockerode error leaves the engine
 * room, and that errors which are no answer of the engine (bugs) pass unchanged.
 */
import { OpsError } from '../../errors.ts';
import { diskFull, engineFailed, engineUnreachable, portTaken } from '../failures.ts';

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

/** The port out of "Bind for 127.0.0.1:8080 failed: port is already allocated" and its relatives, else null. */
export function portTakenBy(error: unknown, asked: readonly number[]): OpsError | null {
  const { message } = answerOf(error);
  if (!/port is already allocated|address already in use|ports are not available/i.test(message)) return null;
  const named = [...message.matchAll(/:(\d{1,5})\b/g)].map((match) => Number(match[1]));
  const port =
    asked.find((candidate) => candidate !== 0 && named.includes(candidate)) ?? named[0] ?? asked[0] ?? 0;
  return portTaken(port, error);
}
