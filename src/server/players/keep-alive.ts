/**
 * Keeps players alive: each is pinged once per heartbeat and then kept present in Redis. Promises that a connection
 * which answers nothing is ended after two misses, and that no loop over all players fills a tick.
 */
import { isProbe } from '../../contract.ts';
import { limits } from '../../protocol.ts';
import type { Presence } from '../redis/presence.ts';
import { closeReplaced } from './closing.ts';
import { hereOf, type Player } from './player.ts';
import { startWheel } from './timer-wheel.ts';
import { isOpen } from './wire.ts';

const missesAllowed = 2;
const refreshEveryMs = 1_000;

export interface KeepAlive {
  add(player: Player): void;
  remove(player: Player): void;
  stop(): void;
}

export function startKeepAlive(presence: Presence): KeepAlive {
  /** Players who were pinged and are yet to be refreshed in Redis. */
  const due: Player[] = [];
  const wheel = startWheel<Player>(limits.heartbeatMs, (player) => beat(player, due));
  const refreshing = setInterval(() => void refresh(presence, due), refreshEveryMs);
  return {
    add: wheel.add,
    remove: wheel.remove,
    stop() {
      wheel.stop();
      clearInterval(refreshing);
    },
  };
}

function beat(player: Player, due: Player[]): void {
  player.misses += 1;
  if (player.misses > missesAllowed) {
    player.link.socket.terminate();
    return;
  }
  player.link.socket.ping();
  if (!isProbe(player.person.id)) due.push(player);
}

/** All that are due, in one command. */
async function refresh(presence: Presence, due: Player[]): Promise<void> {
  const turn = due.splice(0).filter((player) => isOpen(player.link));
  try {
    const away = new Set(await presence.refresh(turn.map(hereOf)));
    for (const player of turn) if (away.has(player.owner)) closeReplaced(player);
  } catch {
    // Redis is away: a second later is early enough, their next heartbeat may be too late.
    due.push(...turn);
  }
}
