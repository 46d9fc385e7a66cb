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
