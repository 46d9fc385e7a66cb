/**
 * How fast a draining server lets its players go. PURE.
 * Every player who reconnects costs the new fleet a handshake and a hello. If all of them were closed in one tick they
 * would arrive at once, and deploys elsewhere have taken down databases that way.
 */

export interface Pace {
  tickMs: number;
  /** Sockets closed per tick; at least 1. */
  perTick: number;
}

const tickMs = 20;

/** A handful of players leave one per tick, some within a second, many at 500 per second; always within half the drain. */
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
  /** The next fleet's joins, 99th percentile of the slowest replica, ms; null when nobody joined. */
  joinMs: number | null;
}

const strained = { lagMs: 50, joinMs: 250 } as const;

/** Follows the strain of both fleets, not the clock: half as fast when strained, a quarter faster when calm. */
export function nextHandoverPace(perSecond: number, { lagMs, joinMs }: Strain): number {
  const isStrained = lagMs > strained.lagMs || (joinMs ?? 0) > strained.joinMs;
  const wished = isStrained ? perSecond / 2 : perSecond * 1.25;
  return Math.min(handoverPace.ceiling, Math.max(handoverPace.floor, wished));
}

/** How long the server waits for a player who was told to move, before it tells another player instead. */
export const patience = { firstMs: 2_000, leastMs: 100, mostMs: 2_000 } as const;

const timesAsLong = 4;
const learned = 1 / 16;
const lessForSilence = 0.5;

/**
 * Learns how long moving takes from the players who move, and waits a few times that. A player who does not move makes it
 * shorter, because a crowd of clients that know no handover would otherwise slow it down to the pace of its silence. A
 * player who moves after all, but late, shows a fleet that falls behind: everybody is then waited for as long as them.
 * @param movedAfterMs null: the player did not move in that time
 * @param together how many players are on their way at the same time: if all of them are silent, a quarter is left
 */
export function nextPatience(nowMs: number, movedAfterMs: number | null, together: number): number {
  if (movedAfterMs === null)
    return Math.max(patience.leastMs, nowMs * lessForSilence ** (2 / (together + 1)));
  const fromThisMs = movedAfterMs * timesAsLong;
  const isLate = movedAfterMs > nowMs;
  const wishedMs = isLate ? fromThisMs : nowMs + (fromThisMs - nowMs) * learned;
  return Math.min(patience.mostMs, Math.max(patience.leastMs, wishedMs));
}
