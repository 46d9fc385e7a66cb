/**
 * One socket, from its upgrade to its end. A socket belongs to nobody until its hello carried a good token, and has five
 * seconds for that. Promises that a flood is bounded before anything is parsed, and that whatever comes in the same
 * breath as the hello is kept until the welcome.
 */
import type { Duplex } from 'node:stream';
import type { RawData, WebSocket } from 'ws';
import { closeCode, limits, movedReason, parseUpward } from '../../protocol.ts';
import type { TokenCheck } from '../../tokens.ts';
import { admit } from './admission.ts';
import { closeReplaced } from './closing.ts';
import type { Game } from './game.ts';
import type { KeepAlive } from './keep-alive.ts';
import { hereOf, type Player } from './player.ts';
import { receive } from './receive.ts';
import { fullBucket, rates, takeFrom } from './token-bucket.ts';
import { close, frameOf, isOpen, type Link, openLink, send } from './wire.ts';

/** How a player's connection ended: they are on another server, they meant to leave, or neither. */
export type Left = 'moved' | 'done' | 'other';

/** What all sockets of this server share. */
export interface Visits {
  readonly game: Game;
  readonly verify: (token: string) => TokenCheck;
  readonly keepAlive: KeepAlive;
  readonly onJoined: (player: Player) => void;
  readonly onLeft: (player: Player, how: Left) => void;
  /** Sockets without a welcome. */
  readonly strangers: Set<Visit>;
  /** Person's id → their newest connection here. */
  readonly latestOf: Map<string, Player>;
  /** From hello to welcome, ms, since they were last taken. */
  joins: number[];
  /** Counts hellos: part of a connection's name in Redis. */
  connections: number;
  isDraining: boolean;
}

export interface Visit {
  link: Link;
  player: Player | null;
  isAsking: boolean;
  /** What came in the same breath as the hello, before the welcome. */
  early: (string | null)[];
  frames: Player['frames'];
  timer: NodeJS.Timeout;
}

const earlyMax = 32;

export function greet(visits: Visits, socket: WebSocket, stream: Duplex): void {
  const { metrics, log, rooms } = visits.game;
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
  visits.strangers.add(visit);
  socket.on('error', (error) => log.debug({ reason: error.message }, 'socket error'));
  socket.on('message', (raw: RawData, isBinary: boolean) => {
    if (mayStillSend(visit)) hear(visits, visit, isBinary ? null : raw.toString());
  });
  socket.on('ping', (data: Buffer) => {
    if (mayStillSend(visit)) send(link, frameOf(data, 'pong'));
  });
  socket.on('pong', () => {
    if (mayStillSend(visit) && visit.player !== null) visit.player.misses = 0;
  });
  socket.on('close', (code: number, reason: Buffer) => end(visits, visit, code, reason.toString()));
}

function mayStillSend({ link, frames }: Visit): boolean {
  if (takeFrom(frames, rates.frames, performance.now())) return isOpen(link);
  // A slow reader has long to read what is on its way to them, not to send.
  if (link.closedFor === 'slow') link.socket.terminate();
  else close(link, 'flood');
  return false;
}

function hear(visits: Visits, visit: Visit, text: string | null): void {
  if (visit.player !== null) receive(visits.game, visit.player, text);
  else if (!visit.isAsking) void ask(visits, visit, text);
  else if (visit.early.length < earlyMax) visit.early.push(text);
  else close(visit.link, 'badMessage');
}

/** The hello. What comes after it waits in the connection. */
async function ask(visits: Visits, visit: Visit, text: string | null): Promise<void> {
  const began = performance.now();
  const { game } = visits;
  const { link, frames } = visit;
  visit.isAsking = true;
  clearTimeout(visit.timer);
  const hello = text === null ? null : parseUpward(text);
  if (hello?.t !== 'hello') return close(link, 'badMessage');
  const check = visits.verify(hello.token);
  if (!check.ok) {
    game.log.debug({ why: check.why }, 'token refused');
    return close(link, check.why === 'expired' ? 'tokenExpired' : 'badToken');
  }
  if (visits.isDraining) return close(link, 'restart');
  link.socket.pause();
  visits.connections += 1;
  const { release, replica } = game.identity;
  const owner = `${release}/${replica}/${process.pid}.${visits.connections}`;
  const player = await admit(game, { hello, link, owner, person: check.player, frames });
  link.socket.resume();
  if (typeof player === 'string') return close(link, player);
  if (!isOpen(link)) return forget(game, player, false);
  visits.strangers.delete(visit);
  visit.player = player;
  joined(visits, player);
  visits.joins.push(performance.now() - began);
  for (const early of visit.early.splice(0)) receive(game, player, early);
}

function joined(visits: Visits, player: Player): void {
  const { game, latestOf } = visits;
  const { id } = player.person;
  const older = latestOf.get(id);
  // The newer connection may have ended by then: nobody has replaced the older one any more.
  if (older !== undefined) closeReplaced(older, () => latestOf.has(id));
  latestOf.set(id, player);
  game.players.add(player);
  visits.keepAlive.add(player);
  game.metrics.connections.set(game.players.size);
  if (visits.isDraining) close(player.link, 'restart');
  else visits.onJoined(player);
}

function end(visits: Visits, visit: Visit, code: number, reason: string): void {
  const { game, latestOf } = visits;
  const { player, timer } = visit;
  clearTimeout(timer);
  visits.strangers.delete(visit);
  if (visit.link.closedFor === null) game.metrics.closed.inc({ reason: reasonOf(code) });
  if (player === null) return;
  const isMoved = code === closeCode.done && reason === movedReason;
  const isDone = code === closeCode.done && !isMoved;
  game.players.delete(player);
  if (latestOf.get(player.person.id) === player) latestOf.delete(player.person.id);
  visits.keepAlive.remove(player);
  game.metrics.connections.set(game.players.size);
  forget(game, player, isDone);
  visits.onLeft(player, isMoved ? 'moved' : isDone ? 'done' : 'other');
}

/** Ends what others know of this player. */
function forget({ rooms, presence }: Game, player: Player, isClean: boolean): void {
  rooms.leave(player);
  presence.leave(hereOf(player), isClean).catch(() => undefined);
}

/** Other codes come from peers and proxies. As labels they would be without bound. */
function reasonOf(code: number): string {
  const known = Object.entries(closeCode).find(([, value]) => value === code);
  return known ? known[0] : 'gone';
}
