/** The real clock, and the one way to wait until something is so. */
import { setTimeout as wait } from 'node:timers/promises';
import { OpsError } from './errors.ts';

export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Rejects with the signal's reason when it aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** The result of the work, or STEP_TIMED_OUT: an engine that hangs must not hang gameops. */
  bounded<T>(work: Promise<T>, ms: number, what: string): Promise<T>;
}

export const realClock: Clock = {
  now: () => Date.now(),
  sleep: async (ms, signal) => {
    await wait(ms, undefined, signal ? { signal } : {}).catch((error) => {
      throw signal?.aborted ? signal.reason : error;
    });
  },
  bounded: async (work, ms, what) => {
    const timer = new AbortController();
    const late = wait(ms, undefined, { signal: timer.signal }).then(() => {
      throw new OpsError('STEP_TIMED_OUT', {
        message: `${what} did not end within ${Math.round(ms / 1000)} s.`,
        next: ['gameops doctor', 'gameops status'],
        facts: { what, afterMs: ms },
      });
    });
    try {
      return await Promise.race([work, late]);
    } finally {
      timer.abort();
      late.catch(() => {});
    }
  },
};

/**
 * Calls `look` every `everyMs` until it returns something other than null, at least once and once more at the deadline.
 * @returns null when the deadline passed first. An error of `look`, or an abort of the signal, ends the wait.
 */
export async function until<T>(
  clock: Clock,
  options: { deadlineMs: number; everyMs: number; signal?: AbortSignal | undefined },
  look: () => Promise<T | null>,
): Promise<T | null> {
  const end = clock.now() + options.deadlineMs;
  for (;;) {
    options.signal?.throwIfAborted();
    const seen = await look();
    if (seen !== null) return seen;
    if (clock.now() >= end) return null;
    await clock.sleep(Math.min(options.everyMs, Math.max(1, end - clock.now())), options.signal);
  }
}
