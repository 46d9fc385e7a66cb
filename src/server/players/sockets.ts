/**
 * The players' sockets: `ws` on Fastify's upgrade event, so that an upgrade costs no HTTP request life cycle. Promises
 * bounded memory per socket (small frames, no compression, a slow reader is closed) and that no loop over all sockets
 * fills a tick.
 */
import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocketServer } from 'ws';
import { isProbe } from '../../contract.ts';
import type { TokenCheck } from '../../tokens.ts';
import type { Counts } from '../redis/counts.ts';
import { closeAtAPace } from './closing.ts';
import type { Game } from './game.ts';
import { startKeepAlive } from './keep-alive.ts';
import type { Player } from './player.ts';
import { refusalOf, socketOptions } from './upgrade.ts';
import { greet, type Left, type Visits } from './visit.ts';
import { close, isOpen } from './wire.ts';

export interface Sockets {
  /** Without the players of a gate: whoever counts wants to know whether anybody is to be waited for. */
  count(): number;
  /** From hello to welcome, ms, since the last call. */
  takeJoins(): number[];
  /** Takes no more players, and closes those here at a pace. Resolves when the last socket is gone or at the deadline. */
  drain(drainMs: number): Promise<void>;
  stop(): void;
}

export interface SocketsRequest {
  server: Server;
  game: Game;
  verify: (token: string) => TokenCheck;
  counts: Counts;
  /** Told of every player who is welcomed, and of every player whose connection ends. */
  onJoined: (player: Player) => void;
  onLeft: (player: Player, how: Left) => void;
}

const strangersMax = 10_000;

export function openSockets({ server, game, verify, counts, onJoined, onLeft }: SocketsRequest): Sockets {
  const { players } = game;
  const keepAlive = startKeepAlive(game.presence);
  const visits: Visits = {
    game,
    verify,
    keepAlive,
    onJoined,
    onLeft,
    strangers: new Set(),
    latestOf: new Map(),
    joins: [],
    connections: 0,
    isDraining: false,
  };
  const wss = new WebSocketServer(socketOptions);
  server.on('upgrade', (incoming: IncomingMessage, stream: Duplex, head: Buffer) => {
    upgrade(visits, wss, { incoming, stream, head });
  });
  return {
    count: () => [...players].filter(({ link, person }) => isOpen(link) && !isProbe(person.id)).length,
    takeJoins() {
      const taken = visits.joins;
      visits.joins = [];
      return taken;
    },
    async drain(drainMs) {
      visits.isDraining = true;
      for (const { link } of visits.strangers) close(link, 'restart');
      const deadline = performance.now() + drainMs;
      await closeAtAPace(players, { reason: 'restart', drainMs, counts });
      while (players.size > 0 && performance.now() < deadline) await sleep(10);
    },
    stop() {
      keepAlive.stop();
      for (const { link } of [...visits.strangers, ...players]) link.socket.terminate();
      wss.close();
    },
  };
}

interface Upgrade {
  incoming: IncomingMessage;
  stream: Duplex;
  head: Buffer;
}

function upgrade(visits: Visits, wss: WebSocketServer, { incoming, stream, head }: Upgrade): void {
  const { isDraining, strangers } = visits;
  stream.on('error', () => stream.destroy());
  const refusal = refusalOf(incoming, { isDraining, isFull: strangers.size >= strangersMax });
  if (refusal === null) wss.handleUpgrade(incoming, stream, head, (socket) => greet(visits, socket, stream));
  else stream.end(`HTTP/1.1 ${refusal}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}
