/**
 * Durations, sizes and image ids as people write them. Imports nothing, so that the command line can check an option
 * without loading the schema library.
 *
 * One meaning of kB, MB and GB in everything that gameops reads and shows: powers of 1024, because Docker's memory
 * limits and Postgres' settings count so. "512m" in gameops.yaml, `docker stats` and a message then agree.
 */

export const megabyte = 1024 ** 2;

const durationUnitMs = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 } as const;

/** Node's timers end at once when they are asked to wait for 2^31 ms or longer. The margins that are added to a duration must fit, too. */
const durationMsMax = 500 * durationUnitMs.h;

/** What a message says when a duration is wrong. */
export const expectedDuration = 'a duration such as 500ms, 30s, 5m or 2h, at most 500h';

/** "500ms", "30s", "5m", "2h" → milliseconds, or null. */
export function parseDurationMs(text: string): number | null {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text.trim());
  if (!match) return null;
  const ms = Math.round(Number(match[1]) * durationUnitMs[match[2] as keyof typeof durationUnitMs]);
  return ms <= durationMsMax ? ms : null;
}

/** "512m", "2g", "64k" or bytes → bytes, or null. */
export function parseBytes(text: string): number | null {
  const match = /^(\d+(?:\.\d+)?)([kmg]?)b?$/i.exec(text.trim());
  if (!match) return null;
  const factor = { '': 1, k: 1024, m: megabyte, g: 1024 ** 3 }[(match[2] ?? '').toLowerCase()] ?? 1;
  const bytes = Math.round(Number(match[1]) * factor);
  return Number.isSafeInteger(bytes) ? bytes : null;
}

/** 1234 → "1.2 s": for people, never for machines. */
export function formatMs(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`;
  const minutes = Math.floor(ms / 60_000);
  const seconds = Math.round((ms % 60_000) / 1_000);
  return seconds === 0 ? `${minutes} min` : `${minutes} min ${seconds} s`;
}

/** 536870912 → "512 MB", 2147483648 → "2 GB" */
export function formatBytes(bytes: number): string {
  if (bytes >= 1024 ** 3) return `${Number((bytes / 1024 ** 3).toFixed(1))} GB`;
  if (bytes >= megabyte) return `${Math.round(bytes / megabyte)} MB`;
  return `${Math.round(bytes / 1024)} kB`;
}

/** 1, "volume" → "1 volume"; 2 → "2 volumes" */
export function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}

/** "sha256:f1258a277e40…" → "f1258a277e40", as `docker images` shows it. */
export function shortId(id: string): string {
  return id.replace('sha256:', '').slice(0, 12);
}
