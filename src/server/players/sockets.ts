/**
 * The players' sockets: `ws` on Fastify's upgrade event, so that an upgrade costs no HTTP request life cycle.
 * A socket is nobody until its hello carried a good token; nobody gets five seconds. Promises bounded memory per
 * socket (small frames, no compression, a slow reader is closed) and that no loop over all sockets fills a tick.
 */
import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { type RawData, type WebSocket, WebSocketServer } from 'ws';
import { isProbe } from '../../contract.ts';
import { type CloseReason, closeCode, limits, movedReason, parseUpward } from '../../protocol.ts';
import type { TokenCheck } from '../../tokens.ts';
import type { Counts } from '../redis/counts.ts';
import { admit, type Ground } from './admission.ts';
import { drainPace } from './pace.ts';
import { hereOf, type Player } from './player.ts';
import { receive } from './receive.ts';
import { startWheel } from './timer-wheel.ts';
import { fullBucket, rates, takeFrom } from './token-bucket.ts';
import { refusalOf, socketOptions } from './upgrade.ts';
import { close, frameOf, isOpen, type Link, openLink, send } from './wire.ts';

export interface Sockets {
  players: ReadonlySet<Player>;
  /** Without those of a gate: whoever counts asks whether somebody is to be waited for. */
  count(): number;
  /** From hello to welcome, ms, since the last call. */
  takeJoins(): number[];
  /** Takes no more players, and closes those here at a pace. Resolves when the last socket is gone or at the deadline. */
  drain(drainMs: number): Promise<void>;
  /** Closes everybody at a pace, and goes on taking players: they come back to this server or another one. */
  sendAway(reason: CloseReason): Promise<void>;
  stop(): void;
}

export interface SocketsRequest {
  server: Server;
  ground: Ground;
  verify: (token: string) => TokenCheck;
  counts: Counts;
  /** Told of every player who is welcome, and of every one who goes. */
  onJoined: (player: Player) => void;
  onLeft: (player: Player, how: 'moved' | 'done' | 'other') => void;
}

/** One socket from its upgrade to its end. */
interface Visit {
  link: Link;
  player: Player | null;
  isAsking: boolean;
  /** What came in the same breath as the hello, before the welcome. */
  early: (string | null)[];
  frames: Player['frames'];
  timer: NodeJS.Timeout;
}

const missesAllowed = 2;
const recordMs = 100;
const strangersMax = 10_000;
const earlyMax = 32;
const refreshEveryMs = 1_000;
/** A client on its new socket closes the old one itself: only one that does not is told. */
const replacedGraceMs = 2_000;

export function openSockets(request: SocketsRequest): Sockets {
  const { server, ground, counts } = request;
  const { metrics, log, identity, presence, rooms } = ground;
  const players = new Set<Player>();
  const latestOf = new Map<string, Player>();
  const strangers = new Set<Visit>();
  let joins: number[] = [];
  let draining = false;
  let connections = 0;
  let due: Player[] = [];
  const wss = new WebSocketServer(socketOptions);
  const wheel = startWheel<Player>(limits.heartbeatMs, beat);
  const refreshing = setInterval(() => void refresh(), refreshEveryMs);

  server.on('upgrade', (incoming: IncomingMessage, stream: Duplex, head: Buffer) => {
    stream.on('error', () => stream.destroy());
    const refusal = refusalOf(incoming, { isDraining: draining, isFull: strangers.size >= strangersMax });
    if (refusal === null) {
      wss.handleUpgrade(incoming, stream, head, (socket) => greet(socket, stream));
    } else {
      stream.end(`HTTP/1.1 ${refusal}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
    }
  });

  function greet(socket: WebSocket, stream: Duplex): void {
    const link = openLink(socket, stream, (reason) => {
      metrics.closed.inc({ reason });
      // The connection may take long to end, and hears nothing more.
      if (visit.player !== null) rooms.leave(visit.player);
    });
    // What came while this process stood still is read first.
    const timer = setTimeout(() => {
      setImmediate(() => {
        if (!visit.isAsking) close(link, 'helloTimeout');
      });
    }, limits.helloMs);
    const frames = fullBucket(rates.frames, performance.now());
    const visit: Visit = { link, player: null, isAsking: false, early: [], frames, timer };
    strangers.add(visit);
    socket.on('error', (error) => log.debug({ reason: error.message }, 'socket error'));
    socket.on('message', (raw: RawData, isBinary: boolean) => {
      if (mayStillSend(visit)) hear(visit, isBinary ? null : raw.toString());
    });
    socket.on('ping', (data: Buffer) => {
      if (mayStillSend(visit)) send(link, frameOf(data, 'pong'));
    });
    socket.on('pong', () => {
      if (mayStillSend(visit) && visit.player !== null) visit.player.misses = 0;
    });
    socket.on('close', (code: number, reason: Buffer) => end(visit, code, reason.toString()));
  }

  function mayStillSend({ link, frames }: Visit): boolean {
    if (takeFrom(frames, rates.frames, performance.now())) return isOpen(link);
    // A slow one has long to read what is on its way to him, not to send.
    if (link.closedFor === 'slow') link.socket.terminate();
    else close(link, 'flood');
    return false;
  }

  function hear(visit: Visit, text: string | null): void {
    if (visit.player !== null) receive(ground, visit.player, text);
    else if (!visit.isAsking) void ask(visit, text);
    else if (visit.early.length < earlyMax) visit.early.push(text);
    else close(visit.link, 'badMessage');
  }

  /** The hello. What comes after it waits in the connection. */
  async function ask(visit: Visit, text: string | null): Promise<void> {
    const began = performance.now();
    const { link } = visit;
    visit.isAsking = true;
    clearTimeout(visit.timer);
    const hello = text === null ? null : parseUpward(text);
    if (hello?.t !== 'hello') return close(link, 'badMessage');
    const check = request.verify(hello.token);
    if (!check.ok) {
      log.debug({ why: check.why }, 'not welcome');
      return close(link, check.why === 'expired' ? 'tokenExpired' : 'badToken');
    }
    if (draining) return close(link, 'restart');
    link.socket.pause();
    connections += 1;
    const owner = `${identity.release}/${identity.replica}/${process.pid}.${connections}`;
    const player = await admit(ground, {
      ...{ hello, link, owner },
      person: check.player,
      frames: visit.frames,
    });
    link.socket.resume();
    if (typeof player === 'string') return close(link, player);
    if (!isOpen(link)) return forget(player, false);
    strangers.delete(visit);
    visit.player = player;
    joined(player);
    joins.push(performance.now() - began);
    for (const early of visit.early.splice(0)) receive(ground, player, early);
  }

  function joined(player: Player): void {
    const { id } = player.person;
    const older = latestOf.get(id);
    if (older !== undefined) replaceLater(older);
    latestOf.set(id, player);
    players.add(player);
    wheel.add(player);
    metrics.connections.set(players.size);
    if (draining) close(player.link, 'restart');
    else request.onJoined(player);
  }

  function end(visit: Visit, code: number, reason: string): void {
    const { player, timer } = visit;
    clearTimeout(timer);
    strangers.delete(visit);
    if (visit.link.closedFor === null) metrics.closed.inc({ reason: reasonOf(code) });
    if (player === null) return;
    const isMoved = code === closeCode.done && reason === movedReason;
    const isDone = code === closeCode.done && !isMoved;
    players.delete(player);
    if (latestOf.get(player.person.id) === player) latestOf.delete(player.person.id);
    wheel.remove(player);
    metrics.connections.set(players.size);
    forget(player, isDone);
    request.onLeft(player, isMoved ? 'moved' : isDone ? 'done' : 'other');
  }

  /** What others know of him. */
  function forget(player: Player, isClean: boolean): void {
    rooms.leave(player);
    presence.leave(hereOf(player), isClean).catch(() => undefined);
  }

  function replaceLater(older: Player): void {
    // The newer one may have gone by then: nobody has replaced this one any more.
    endLater(older, () => latestOf.has(older.person.id));
  }

  function endLater({ link }: Player, isStillSo = () => true): void {
    setTimeout(() => {
      if (isStillSo()) close(link, 'replaced');
    }, replacedGraceMs).unref();
  }

  function beat(player: Player): void {
    player.misses += 1;
    if (player.misses > missesAllowed) {
      player.link.socket.terminate();
      return;
    }
    player.link.socket.ping();
    if (!isProbe(player.person.id)) due.push(player);
  }

  /** Those whose turn it was, in one go. */
  async function refresh(): Promise<void> {
    const turn = due.filter((player) => isOpen(player.link));
    due = [];
    try {
      const away = new Set(await presence.refresh(turn.map(hereOf)));
      for (const player of turn) if (away.has(player.owner)) endLater(player);
    } catch {
      // Redis is away: a second later is early enough, the next turn of these may not be.
      due.push(...turn);
    }
  }

  return {
    players,
    count: () => [...players].filter(({ link, person }) => isOpen(link) && !isProbe(person.id)).length,
    takeJoins() {
      const taken = joins;
      joins = [];
      return taken;
    },
    async drain(drainMs) {
      draining = true;
      for (const { link } of strangers) close(link, 'restart');
      const deadline = performance.now() + drainMs;
      await closeAtAPace(players, { reason: 'restart', drainMs, counts });
      while (players.size > 0 && performance.now() < deadline) await sleep(10);
    },
    sendAway: (reason) => closeAtAPace(players, { reason, drainMs: limits.resumeMs, counts: null }),
    stop() {
      wheel.stop();
      clearInterval(refreshing);
      for (const { link } of [...strangers, ...players]) link.socket.terminate();
      wss.close();
    },
  };
}

/** Other codes come from peers and proxies; as labels they would be without bound. */
function reasonOf(code: number): string {
  const known = Object.entries(closeCode).find(([, value]) => value === code);
  return known ? known[0] : 'gone';
}

interface Closing {
  reason: CloseReason;
  drainMs: number;
  counts: Counts | null;
}

async function closeAtAPace(
  players: ReadonlySet<Player>,
  { reason, drainMs, counts }: Closing,
): Promise<void> {
  const deadline = performance.now() + drainMs;
  const pace = drainPace(players.size, drainMs);
  const waiting = [...players];
  while (waiting.length > 0) {
    const group = waiting.splice(0, pace.perTick).filter((player) => players.has(player));
    const letGo = group.filter(({ link }) => isOpen(link));
    // Recorded first: a quick player is back, and struck off, before a later record would name him lost.
    // A Redis that hangs may cost the count, never the pace.
    if (letGo.length > 0 && counts !== null) {
      await Promise.race([counts.closed(letGo), sleep(recordMs)]);
    }
    for (const { link } of group) close(link, reason);
    if (waiting.length > 0 && performance.now() < deadline) await sleep(pace.tickMs);
  }
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
