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
