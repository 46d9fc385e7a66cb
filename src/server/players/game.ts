/**
 * What all players of this server share: who they are, the rooms they hear, the bus that feeds the rooms, and who is
 * present where. Promises that players whose rooms have a hole, or whose Redis forgot, are sent away to come back.
 */
import type { Logger } from 'pino';
import { limits } from '../../protocol.ts';
import type { Metrics } from '../metrics.ts';
import type { Readiness } from '../readiness.ts';
import { type Bus, openBus } from '../redis/bus.ts';
import { openPresence, type Presence, type PresenceTimes } from '../redis/presence.ts';
import type { Identity } from '../settings.ts';
import { tellWithAcknowledgements } from './acknowledge.ts';
import { sendAway } from './closing.ts';
import type { Player } from './player.ts';
import { openRooms, type Rooms } from './rooms.ts';

export interface Game {
  identity: Identity;
  bus: Bus;
  presence: Presence;
  rooms: Rooms<Player>;
  /** Everybody who was welcomed and is connected here. */
  players: Set<Player>;
  /** Players who said something that was accepted and is yet to come from the bus. */
  unacknowledged: Set<Player>;
  metrics: Metrics;
  log: Logger;
}

export interface GameRequest {
  url: string;
  identity: Identity;
  readiness: Readiness;
  metrics: Metrics;
  log: Logger;
  times: PresenceTimes;
}

export function openGame({ url, identity, readiness, metrics, log, times }: GameRequest): Game {
  const players = new Set<Player>();
  const unacknowledged = new Set<Player>();
  const rooms = openRooms<Player>({
    ringLength: limits.replayMessages,
    onDelivered: (count) => metrics.deliveries.inc(count),
  });
  const beginAnew = (why: 'epoch' | 'missed') => {
    rooms.forget();
    // What Redis has forgotten must not be acknowledged: its player says it again.
    if (why === 'epoch') unacknowledged.clear();
    // After a hole, players can go on from what they have with what Redis has; in another epoch they can't.
    void sendAway(players, why === 'epoch' ? 'resync' : 'restart');
  };
  const bus = openBus({
    url,
    identity,
    readiness,
    log,
    onEntries(entries) {
      tellWithAcknowledgements(unacknowledged, () => {
        const how = rooms.take(entries);
        if (how === 'again') void bus.renew().catch(() => undefined);
        if (how === 'hole') beginAnew('missed');
      });
    },
    onBreak: beginAnew,
  });
  const presence = openPresence(bus, identity.project, times);
  return { identity, bus, presence, rooms, players, unacknowledged, metrics, log };
}
