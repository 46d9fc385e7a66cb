/**
 * How this server ends connections of its players: many of them at a pace, or one that another connection has replaced.
 * Promises that no loop over all sockets fills a tick, and that a slow Redis costs the count and never the pace.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type CloseReason, limits } from '../../protocol.ts';
import type { Counts } from '../redis/counts.ts';
import { drainPace } from './pace.ts';
import type { Player } from './player.ts';
import { close, isOpen } from './wire.ts';

const recordMs = 100;
/** A client on its new socket closes the old one itself: only a client that does not is told. */
const replacedGraceMs = 2_000;

export interface Closing {
  reason: CloseReason;
  drainMs: number;
  /** null: closed without being counted. */
  counts: Counts | null;
}

export async function closeAtAPace(
  players: ReadonlySet<Player>,
  { reason, drainMs, counts }: Closing,
): Promise<void> {
  const deadline = performance.now() + drainMs;
  const pace = drainPace(players.size, drainMs);
  const waiting = [...players];
  while (waiting.length > 0) {
    const group = waiting.splice(0, pace.perTick).filter((player) => players.has(player));
    const stillOpen = group.filter(({ link }) => isOpen(link));
    if (stillOpen.length > 0 && counts !== null) await recordClosed(counts, stillOpen);
    for (const { link } of group) close(link, reason);
    if (waiting.length > 0 && performance.now() < deadline) await sleep(pace.tickMs);
  }
}

/** This server goes on taking players: they come back to it or to another one. */
export function sendAway(players: ReadonlySet<Player>, reason: CloseReason): Promise<void> {
  return closeAtAPace(players, { reason, drainMs: limits.resumeMs, counts: null });
}

/**
 * Before they are closed: a quick player is back within moments and is then removed from the record. A record that came
 * after that would count them as lost.
 */
export async function recordClosed(counts: Counts, players: readonly Player[]): Promise<void> {
  await Promise.race([counts.closed(players), sleep(recordMs)]);
}

/** @param isStillSo asked once the client has had its time */
export function closeReplaced({ link }: Player, isStillSo = () => true): void {
  setTimeout(() => {
    if (isStillSo()) close(link, 'replaced');
  }, replacedGraceMs).unref();
}
