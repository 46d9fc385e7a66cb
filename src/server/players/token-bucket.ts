/**
 * How much one player may send. PURE but for the bucket it is given. Two bounds: what is told to others, and frames of
 * any kind; a client that sends everything again after a resume stays well within the second.
 */

export interface Bucket {
  left: number;
  filledAt: number;
}

export interface Rate {
  perSecond: number;
  burst: number;
}

export const rates = {
  /** Told to others: beyond it a message is refused. */
  saying: { perSecond: 10, burst: 30 },
  /** Asking again for what was missed: it may have to be read from Redis, a thousand messages of it. */
  resync: { perSecond: 1, burst: 5 },
  /** Beyond it the player is closed: no client of ours sends so much. */
  frames: { perSecond: 200, burst: 1_000 },
} as const satisfies Record<string, Rate>;

export function fullBucket(rate: Rate, now: number): Bucket {
  return { left: rate.burst, filledAt: now };
}

/** Takes one, when there is one. */
export function takeFrom(bucket: Bucket, rate: Rate, now: number): boolean {
  const refill = ((now - bucket.filledAt) / 1_000) * rate.perSecond;
  bucket.left = Math.min(rate.burst, bucket.left + refill);
  bucket.filledAt = now;
  if (bucket.left < 1) return false;
  bucket.left -= 1;
  return true;
}
