/**
 * How fast a draining server lets its players go. PURE.
 * A fleet's reconnect wave costs the new fleet a handshake and a hello each: closed in one tick it would arrive at
 * once, which is how deploys of others have taken down databases.
 */

export interface Pace {
  tickMs: number;
  /** Sockets closed per tick; at least 1. */
  perTick: number;
}

const tickMs = 20;

/** One a tick for a handful, over a second for some, 500/s for many; always within half the drain. */
export function drainPace(players: number, drainMs: number): Pace {
  const wishedMs = Math.max(Math.min(1_000, players * tickMs), players * 2);
  const overMs = Math.max(tickMs, Math.min(wishedMs, drainMs / 2));
  return { tickMs, perTick: Math.max(1, Math.ceil((players * tickMs) / overMs)) };
}

/** Players per second that a whole fleet sends to another one. */
export const handoverPace = { first: 500, floor: 20, ceiling: 1_000 } as const;

export interface Strain {
  /** The worst of both fleets' event loops, 99th percentile, ms. */
  lagMs: number;
  /** The slowest of the next fleet's joins, 99th percentile, ms; null when nobody joined. */
  joinMs: number | null;
}

const strained = { lagMs: 50, joinMs: 250 } as const;

/** By how the fleets feel, not by the clock: half as fast when strained, a quarter faster when calm. */
export function nextHandoverPace(perSecond: number, { lagMs, joinMs }: Strain): number {
  const isStrained = lagMs > strained.lagMs || (joinMs ?? 0) > strained.joinMs;
  const wished = isStrained ? perSecond / 2 : perSecond * 1.25;
  return Math.min(handoverPace.ceiling, Math.max(handoverPace.floor, wished));
}

/** How long one who was told to move is waited for before another one sets out in his place. */
export const patience = { firstMs: 2_000, leastMs: 100, mostMs: 2_000 } as const;

const timesAsLong = 4;
const learned = 1 / 16;
const lessForSilence = 0.5;

/**
 * Learns how long moving takes from those who move, and waits a few times that. Who is waited for in vain makes it
 * shorter, or a fleet of clients that know no handover would be told at the pace of its silence; one who moves after
 * all, only late, shows a fleet that falls behind, and everybody is waited for as long as him.
 * @param movedAfterMs null: he was not waited for any longer
 * @param together how many are on the way at the same time: all of them silent, and it is a quarter
 */
export function nextPatience(nowMs: number, movedAfterMs: number | null, together: number): number {
  if (movedAfterMs === null)
    return Math.max(patience.leastMs, nowMs * lessForSilence ** (2 / (together + 1)));
  const fromHimMs = movedAfterMs * timesAsLong;
  const isLate = movedAfterMs > nowMs;
  const wishedMs = isLate ? fromHimMs : nowMs + (fromHimMs - nowMs) * learned;
  return Math.min(patience.mostMs, Math.max(patience.leastMs, wishedMs));
}
