/**
 * Token buckets: how much one player may send. PURE but for the bucket that is given. Promises that a client which sends
 * everything again after a resume stays well within the bound on frames.
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
  /** Messages that are told to others. Beyond it a message is refused. */
  saying: { perSecond: 10, burst: 30 },
  /** Requests for messages that were missed: up to a thousand may have to be read from Redis. */
  resync: { perSecond: 1, burst: 5 },
  /** Frames of any kind. Beyond it the player is disconnected: our client never sends so much. */
  frames: { perSecond: 200, burst: 1_000 },
} as const satisfies Record<string, Rate>;

export function fullBucket(rate: Rate, now: number): Bucket {
  return { left: rate.burst, filledAt: now };
}

/** @returns whether the bucket had a token, which is taken */
export function takeFrom(bucket: Bucket, rate: Rate, now: number): boolean {
  const refill = ((now - bucket.filledAt) / 1_000) * rate.perSecond;
  bucket.left = Math.min(rate.burst, bucket.left + refill);
  bucket.filledAt = now;
  if (bucket.left < 1) return false;
  bucket.left -= 1;
  return true;
}
