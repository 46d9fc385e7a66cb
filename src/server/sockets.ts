/**
 * The players: `ws` on Fastify's upgrade event, so that an upgrade costs no HTTP request life cycle.
 * A socket is nobody until its hello carried a good token; nobody gets five seconds. Promises bounded memory per
 * socket (small frames, no compression, a slow reader is closed) and that no loop over all sockets fills a tick.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Logger } from 'pino';
import { type RawData, type ServerOptions, WebSocket, WebSocketServer } from 'ws';
import { endpoint } from '../contract.ts';
import {
  type CloseReason,
  closeCode,
  type Downward,
  limits,
  lobby,
  type Person,
  parseUpward,
  protocolVersion,
  type RoomMessage,
  type Upward,
} from '../protocol.ts';
import type { TokenCheck } from '../tokens.ts';
import type { Bus } from './bus.ts';
import { startWheel } from './heartbeat.ts';
import type { Metrics } from './metrics.ts';
import { drainPace } from './pace.ts';
import type { Identity } from './settings.ts';

interface Player {
  socket: WebSocket;
  person: Person;
  misses: number;
  /** Messages he may still send now; refilled over time. */
  allowance: number;
  refilledAt: number;
}

export interface Sockets {
  count(): number;
  deliver(message: RoomMessage): void;
  /** Takes no more players, and closes those here at a pace. Resolves when the last socket is gone or at the deadline. */
  drain(drainMs: number): Promise<void>;
  stop(): void;
}

export interface SocketsRequest {
  server: Server;
  identity: Identity;
  verify: (token: string) => TokenCheck;
  /** Called for each message, because the bus is opened with the sockets' `deliver`. */
  bus: () => Bus;
  metrics: Metrics;
  log: Logger;
}

const fanOutPerTick = 500;
const missesAllowed = 2;
const recordMs = 100;
const perSecond = { messages: 10, burst: 30 };

export function openSockets(request: SocketsRequest): Sockets {
  const { server, metrics, log } = request;
  const players = new Set<Player>();
  const strangers = new Set<WebSocket>();
  let draining = false;
  const wss = new WebSocketServer(socketOptions);
  const wheel = startWheel<Player>(limits.heartbeatMs, (player) => beat(player));

  server.on('upgrade', (incoming: IncomingMessage, stream: Duplex, head: Buffer) => {
    stream.on('error', () => stream.destroy());
    const refusal = refusalOf(incoming, draining);
    if (refusal !== null) {
      stream.end(`HTTP/1.1 ${refusal}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
      return;
    }
    wss.handleUpgrade(incoming, stream, head, greet);
  });

  function greet(socket: WebSocket): void {
    strangers.add(socket);
    const timer = setTimeout(() => closeFor(socket, 'helloTimeout'), limits.helloMs);
    let player: Player | null = null;
    socket.on('error', (error) => log.debug({ reason: error.message }, 'socket error'));
    socket.on('message', (raw: RawData, isBinary: boolean) => {
      const message = isBinary ? null : parseUpward(raw.toString());
      if (socket.readyState !== WebSocket.OPEN) return;
      if (player !== null) {
        receive(player, message);
        return;
      }
      clearTimeout(timer);
      player = admit(socket, message);
    });
    socket.on('pong', () => {
      if (player !== null) player.misses = 0;
    });
    socket.on('close', (code: number) => {
      clearTimeout(timer);
      strangers.delete(socket);
      if (player !== null) {
        players.delete(player);
        wheel.remove(player);
        metrics.connections.set(players.size);
      }
      metrics.closed.inc({ reason: reasonOf(code) });
    });
  }

  function admit(socket: WebSocket, message: Upward | null): Player | null {
    if (message?.t !== 'hello') return closeFor(socket, 'badMessage');
    const check = request.verify(message.token);
    if (!check.ok) return closeFor(socket, check.why === 'expired' ? 'tokenExpired' : 'badToken');
    if (draining) return closeFor(socket, 'restart');
    const player = {
      socket,
      person: check.player,
      misses: 0,
      allowance: perSecond.burst,
      refilledAt: Date.now(),
    };
    strangers.delete(socket);
    players.add(player);
    wheel.add(player);
    metrics.connections.set(players.size);
    void request.bus().recordBack(player.person.id);
    const { release, replica } = request.identity;
    tell(socket, {
      t: 'welcome',
      session: randomUUID(),
      player: player.person,
      release,
      replica,
      heartbeatMs: limits.heartbeatMs,
      rooms: [lobby],
    });
    return player;
  }

  function receive(player: Player, message: Upward | null): void {
    player.misses = 0;
    if (message === null || message.t === 'hello') {
      closeFor(player.socket, 'badMessage');
    } else if (!mayStillSend(player, Date.now())) {
      tell(player.socket, { t: 'refused', what: message.t, why: 'too-fast' });
    } else if (message.t === 'ping') {
      tell(player.socket, { t: 'pong', at: message.at });
    } else if (message.room !== lobby) {
      tell(player.socket, { t: 'refused', what: 'say', why: 'unknown-room' });
    } else {
      const at = new Date().toISOString();
      request
        .bus()
        .announce({ t: 'said', room: message.room, from: player.person, text: message.text, at })
        .catch(() => tell(player.socket, { t: 'refused', what: 'say', why: 'unavailable' }));
    }
  }

  function beat(player: Player): void {
    player.misses += 1;
    if (player.misses > missesAllowed) player.socket.terminate();
    else player.socket.ping();
  }

  const deliver = fanOut(players);
  return {
    count: () => players.size,
    deliver,
    async drain(drainMs) {
      draining = true;
      for (const socket of strangers) closeFor(socket, 'restart');
      await closeAtAPace(players, drainMs, request.bus());
    },
    stop() {
      wheel.stop();
      for (const socket of [...strangers, ...[...players].map((player) => player.socket)]) socket.terminate();
      wss.close();
    },
  };
}

// `closeTimeout` is newer than the published types.
const socketOptions: ServerOptions & { closeTimeout: number } = {
  noServer: true,
  clientTracking: false,
  perMessageDeflate: false,
  maxPayload: limits.frameBytes,
  // The default of 30 s would let one silent client stretch every drain by as much.
  closeTimeout: 2_000,
  handleProtocols: () => protocolVersion,
};

/** An HTTP status line, or null when the upgrade is welcome. */
function refusalOf(incoming: IncomingMessage, draining: boolean): string | null {
  const [path] = (incoming.url ?? '').split('?');
  if (path !== endpoint.socket) return '404 Not Found';
  if (draining) return '503 Service Unavailable';
  const offered = (incoming.headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim());
  return offered.includes(protocolVersion) ? null : '400 Bad Request';
}

function closeFor(socket: WebSocket, reason: CloseReason): null {
  socket.close(closeCode[reason], reason);
  return null;
}

function tell(socket: WebSocket, message: Downward): void {
  if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function mayStillSend(player: Player, now: number): boolean {
  const refill = ((now - player.refilledAt) / 1_000) * perSecond.messages;
  player.allowance = Math.min(perSecond.burst, player.allowance + refill) - 1;
  player.refilledAt = now;
  if (player.allowance >= 0) return true;
  player.allowance = Math.max(player.allowance, -1);
  return false;
}

/** Other codes come from peers and proxies; as labels they would be without bound. */
function reasonOf(code: number): string {
  const known = Object.entries(closeCode).find(([, value]) => value === code);
  return known ? known[0] : 'gone';
}

/** One message after the other, some players a tick: in order for everybody, and no tick is long. */
function fanOut(players: ReadonlySet<Player>): (message: RoomMessage) => void {
  const waiting: string[] = [];
  const pump = async () => {
    while (waiting[0] !== undefined) {
      let sent = 0;
      for (const { socket } of [...players]) {
        if (socket.readyState === WebSocket.OPEN) {
          if (socket.bufferedAmount > limits.bufferedBytes) closeSlow(socket);
          else socket.send(waiting[0]);
        }
        sent += 1;
        if (sent % fanOutPerTick === 0) await new Promise(setImmediate);
      }
      waiting.shift();
    }
  };
  return (message) => {
    waiting.push(JSON.stringify(message));
    if (waiting.length === 1) void pump();
  };
}

/** Its buffer is full, so the close frame would wait behind what it does not read. */
function closeSlow(socket: WebSocket): void {
  closeFor(socket, 'slow');
  setTimeout(() => socket.terminate(), 1_000).unref();
}

async function closeAtAPace(players: ReadonlySet<Player>, drainMs: number, bus: Bus): Promise<void> {
  const deadline = performance.now() + drainMs;
  const pace = drainPace(players.size, drainMs);
  const waiting = [...players];
  while (waiting.length > 0) {
    const group = waiting.splice(0, pace.perTick).filter((player) => players.has(player));
    // Recorded first: a quick player is back, and struck off, before a later record would name him lost.
    // A Redis that hangs may cost the count, never the pace.
    if (group.length > 0) {
      await Promise.race([bus.recordClosed(group.map((player) => player.person.id)), sleep(recordMs)]);
    }
    for (const { socket } of group) closeFor(socket, 'restart');
    if (waiting.length > 0 && performance.now() < deadline) await sleep(pace.tickMs);
  }
  while (players.size > 0 && performance.now() < deadline) await sleep(10);
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
