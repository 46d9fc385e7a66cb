/**
 * The game server, put together. Listens at once, is ready when Postgres, the schema, Redis and the bus have answered,
 * and leaves without refusing a request.
 */
import type { Logger } from 'pino';
import type { ImageNeeds } from '../boot-rule.ts';
import type { ServerSettings } from '../env/settings.ts';
import { tokenVerifier } from '../tokens.ts';
import { listenForAdmin } from './admin.ts';
import { leave } from './drain.ts';
import { createHttp } from './http/http.ts';
import { watchLoopLag } from './loop-lag.ts';
import { createMetrics } from './metrics.ts';
import { openGame } from './players/game.ts';
import { openHandover } from './players/handover.ts';
import { openSockets } from './players/sockets.ts';
import { createReadiness } from './readiness.ts';
import { openCounts } from './redis/counts.ts';
import { startExchange } from './redis/exchange.ts';
import { type PresenceTimes, presenceTimes } from './redis/presence.ts';
import type { Identity } from './settings.ts';
import { listenOnUnixSocket } from './unix-socket.ts';
import { openStore } from './world/store.ts';

/**
 * When another server dies, all of its players are here within a quarter of a second. With Node's own 511, connections
 * would time out then or be refused, and Nginx would take this server for dead, too: with no server left to ask, it
 * refuses everybody for a second.
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
  const { settings, identity, log, adminPort, needs, onTooOld, times = presenceTimes } = request;
  const { PORT: port, JWT_SECRET: secret, REDIS_URL: url } = settings;
  const readiness = createReadiness(lossGraceMs);
  const metrics = createMetrics(identity);
  const verify = tokenVerifier(settings);
  // Both connect while the rest is being set up: a deploy waits for this process.
  const store = openStore({ settings, readiness, log, needs, onTooOld });
  const game = openGame({ url, identity, readiness, metrics, log, times });
  const { bus, presence, players } = game;
  const counts = openCounts(bus, identity, log);
  const http = createHttp({ identity, readiness, metrics, store, bus, presence, secret, verify, log });
  const loopLag = watchLoopLag((worstMs) => metrics.loopLag.set(worstMs / 1_000));
  const handover = openHandover({
    identity,
    bus,
    counts,
    metrics,
    log,
    players,
    lagMs: loopLag.worstMs,
    isDraining: readiness.isDraining,
  });
  const sockets = openSockets({
    server: http.app.server,
    game,
    verify,
    counts,
    onJoined: handover.joined,
    onLeft: handover.left,
  });
  const { sweepMs } = times;
  const exchange = startExchange({ identity, bus, loopLag, log, presence, sweepMs, sockets, handover });

  const admin = await listenForAdmin({ registry: metrics.registry, log, port: adminPort, host });
  await http.app.listen({ port, host, backlog });
  const { unixSocket } = identity;
  const local = unixSocket === null ? null : await listenOnUnixSocket(http.app.server, unixSocket, backlog);
  readiness.set('listening', true);
  log.info({ port, bootMs: Math.round(performance.now()) }, 'listening');

  return {
    async leave(why) {
      await leave({ why, identity, readiness, http, sockets, log });
      local?.close();
      exchange.stop();
      loopLag.stop();
      handover.stop();
      admin.close();
      await counts.gone();
      bus.close();
      await store.close();
    },
  };
}
