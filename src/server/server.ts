/**
 * The game server, put together. Listens at once, is ready when Postgres, the schema, Redis and the bus have answered,
 * and leaves without refusing a request.
 */
import type { Logger } from 'pino';
import type { ImageNeeds } from '../boot-rule.ts';
import type { ServerSettings } from '../env/schema.ts';
import { limits } from '../protocol.ts';
import { tokenVerifier } from '../tokens.ts';
import { listenForAdmin } from './admin.ts';
import { leave } from './drain.ts';
import { createHttp } from './http/http.ts';
import { watchLoop } from './loop-lag.ts';
import { createMetrics, type Metrics } from './metrics.ts';
import type { Ground } from './players/admission.ts';
import { openHandover } from './players/handover.ts';
import type { Player } from './players/player.ts';
import { tellWithAcknowledgements } from './players/receive.ts';
import { openRooms } from './players/rooms.ts';
import { openSockets, type Sockets } from './players/sockets.ts';
import { createReadiness, type Readiness } from './readiness.ts';
import { openBus } from './redis/bus.ts';
import { openCounts } from './redis/counts.ts';
import { startPulse } from './redis/exchange.ts';
import { openPresence, type PresenceTimes, presenceTimes } from './redis/presence.ts';
import type { Identity } from './settings.ts';
import { listenOnUnixSocket } from './unix-socket.ts';
import { openStore } from './world/store.ts';

/**
 * When a neighbour dies, all of its players are here within a quarter of a second. With Node's own 511 connections time
 * out then, or are refused, and Nginx takes this server for dead, too: with nobody left to ask it refuses everybody for a second.
 */
const backlog = 4_096;

export interface ServerRequest {
  settings: ServerSettings;
  identity: Identity;
  log: Logger;
  adminPort: number;
  needs: ImageNeeds | null;
  /** This server can never run on the schema that it found. */
  onTooOld(floor: string): void;
  times?: PresenceTimes;
}

export interface GameServer {
  /** Drains; resolves when nothing is open any more. */
  leave(why: string): Promise<void>;
}

const host = '0.0.0.0';
const lossGraceMs = 5_000;

export async function startServer(request: ServerRequest): Promise<GameServer> {
  const { settings, identity, log, adminPort, times = presenceTimes } = request;
  const readiness = createReadiness(lossGraceMs);
  const metrics = createMetrics(identity);
  const verify = tokenVerifier(settings);
  // Both connect while the rest is being set up: a deploy waits for this process.
  const { needs, onTooOld } = request;
  const store = openStore({ settings, readiness, log, needs, onTooOld });
  const ground = openGround(
    { url: settings.REDIS_URL, identity, readiness, metrics, log, times },
    () => sockets,
  );
  const { bus, presence } = ground;
  const counts = openCounts(bus, identity, log);
  const http = createHttp({
    ...{ identity, readiness, metrics, store, bus, presence, verify, log },
    secret: settings.JWT_SECRET,
  });
  const sockets: Sockets = openSockets({
    ...{ server: http.app.server, ground, verify, counts },
    onJoined: (player) => handover.joined(player),
    onLeft: (player, how) => handover.left(player, how),
  });
  const gauges = watchLoop();
  const handover = openHandover({
    ...{ identity, bus, counts, metrics, log },
    players: () => sockets.players,
    lagMs: () => pulse.lagMs(),
    isDraining: readiness.isDraining,
  });
  const pulse = startPulse({
    ...{ identity, bus, gauges, metrics, log, presence, sweepMs: times.sweepMs },
    sockets: () => sockets,
    handover: () => handover,
  });

  const admin = await listenForAdmin({ registry: metrics.registry, log, port: adminPort, host });
  await http.app.listen({ port: settings.PORT, host, backlog });
  const { unixSocket } = identity;
  const local = unixSocket === null ? null : await listenOnUnixSocket(http.app.server, unixSocket, backlog);
  readiness.set('listening', true);
  log.info({ port: settings.PORT, bootMs: Math.round(performance.now()) }, 'listening');

  return {
    async leave(why) {
      await leave({ why, identity, readiness, http, sockets, log });
      local?.close();
      pulse.stop();
      handover.stop();
      admin.close();
      await counts.gone();
      bus.close();
      await store.close();
    },
  };
}

interface GroundRequest {
  url: string;
  identity: Identity;
  readiness: Readiness;
  metrics: Metrics;
  log: Logger;
  times: PresenceTimes;
}

/** What players stand on: rooms, fed by the bus. */
function openGround({ url, readiness, times, ...shared }: GroundRequest, sockets: () => Sockets): Ground {
  const { identity, metrics, log } = shared;
  const rooms = openRooms<Player>({
    ringLength: limits.replayMessages,
    onDelivered: (count) => metrics.deliveries.inc(count),
  });
  const unacknowledged = new Set<Player>();
  const beginAnew = (why: 'epoch' | 'missed') => {
    rooms.forget();
    // What Redis has forgotten must not be acknowledged: he says it again.
    if (why === 'epoch') unacknowledged.clear();
    // After a hole they can go on from what they have, with what Redis has; in another epoch they can't.
    void sockets().sendAway(why === 'epoch' ? 'resync' : 'restart');
  };
  const bus = openBus({
    ...{ url, identity, readiness, log },
    onEntries(entries) {
      tellWithAcknowledgements(unacknowledged, () => {
        const how = rooms.take(entries);
        if (how === 'again') void bus.renew().catch(() => undefined);
        if (how === 'hole') beginAnew('missed');
      });
    },
    onBreak: beginAnew,
  });
  return { ...shared, bus, rooms, unacknowledged, presence: openPresence(bus, identity.project, times) };
}
