/**
 * Millions of times in a few kilobytes: each bucket is 1 % wider than the one before, so a percentile is right to 1 %,
 * and the longest time is exact.
 */

export interface Histogram {
  buckets: Uint32Array;
  count: number;
  max: number;
}

const from = 0.1;
const growth = 1.01;
/** Up to about four hours. */
const bucketsCount = 1_900;

export function newHistogram(): Histogram {
  return { buckets: new Uint32Array(bucketsCount), count: 0, max: 0 };
}

export function note(histogram: Histogram, ms: number): void {
  const bucket = ms <= from ? 0 : Math.ceil(Math.log(ms / from) / Math.log(growth));
  const at = Math.min(bucket, bucketsCount - 1);
  histogram.buckets[at] = (histogram.buckets[at] ?? 0) + 1;
  histogram.count += 1;
  if (ms > histogram.max) histogram.max = ms;
}

/** @returns `all`, with everything that the other histogram noted */
export function addTo(all: Histogram, { buckets, count, max }: Histogram): Histogram {
  for (const [bucket, times] of buckets.entries()) all.buckets[bucket] = (all.buckets[bucket] ?? 0) + times;
  all.count += count;
  all.max = Math.max(all.max, max);
  return all;
}

/** Milliseconds with one decimal; 0 when nothing was noted. */
export function percentile(histogram: Histogram, share: number): number {
  let rest = Math.ceil(histogram.count * share);
  if (rest === 0) return 0;
  for (const [bucket, count] of histogram.buckets.entries()) {
    rest -= count;
    if (rest <= 0) return rounded(bucket === 0 ? Math.min(from, histogram.max) : upperOf(bucket, histogram));
  }
  return rounded(histogram.max);
}

export const rounded = (ms: number): number => Math.round(ms * 10) / 10;

const upperOf = (bucket: number, { max }: Histogram): number => Math.min(from * growth ** bucket, max);
