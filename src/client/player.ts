/**
 * A load player: a player without a screen who counts, for `gameops load`, the quickstart and tests. Plays with the same
 * client as the page and does not trust it: checks once more that offsets follow each other, and that the numbers of
 * every room mate do.
 */
import { isIP } from 'node:net';
import { connect, createSecureContext, type SecureContext, type TLSSocket } from 'node:tls';
import { WebSocket } from 'ws';
import { closeCode, protocolVersion, type RoomMessage } from '../protocol.ts';
import { type Client, createClient, type Socket } from './client.ts';
import type { ClientEvent } from './core-state.ts';
import { type Histogram, newHistogram, note } from './histogram.ts';

export interface PlayerCounts {
  /** Welcomes, the first one included. */
  joins: number;
  /** How many of them came on a second socket while the first one was still open. */
  moves: number;
  /** Came back when the session was lost, and got a new one. */
  anew: number;
  /** Closed by a drain. */
  restarts: number;
  /** Closed or refused in any other way although the player wanted to stay. */
  breaks: number;
  sent: number;
  acknowledged: number;
  /** What rooms said. */
  received: number;
  /** Holes in the room's offsets, or in what a room mate counted: whichever shows more. */
  lost: number;
  duplicated: number;
  /** Room mates of the same run whom the server announced as having left. */
  matesLeft: number;
  /** Longest time without a live socket, ms. */
  longestGapMs: number;
  /** Code of the last close that was not a restart, null when there was none. */
  lastCode: number | null;
}

/** Times of many players together. */
export interface Times {
  gap: Histogram;
  rtt: Histogram;
  /** From the moment a player says something until a room mate hears it. Both must be on one machine. */
  delivery: Histogram;
}

export interface LoadPlayer {
  readonly counts: Readonly<PlayerCounts>;
  isOn(): boolean;
  hasGivenUp(): boolean;
  /** `<release>/<replica>` of the last welcome, null before the first. */
  servedBy(): string | null;
  say(text: string): boolean;
  /** Says the next number of this player, which room mates check. */
  count(): boolean;
  /** Said and not yet acknowledged. */
  waiting(): number;
  /** The room where the player is, and the newest offset they have of it. */
  place(): { room: string; offset: number } | null;
  stop(): void;
}

export interface PlayerRequest {
  url: string;
  token: string;
  /** Names this load player: "<run>-<number>". Only players of the same run check each other. */
  name?: string;
  region?: string;
  refresh?: () => string;
  pingEveryMs?: number;
  times?: Times;
  /** Default: a WebSocket of `ws`. */
  openSocket?: (url: string) => Socket;
  onEvent?: (event: ClientEvent) => void;
}

export const newTimes = (): Times => ({
  gap: newHistogram(),
  rtt: newHistogram(),
  delivery: newHistogram(),
});

export function startPlayer(request: PlayerRequest): LoadPlayer {
  const { url, token, region, refresh, pingEveryMs, onEvent, name = '' } = request;
  const watch = newWatch(name);
  const client: Client = createClient({
    url,
    token,
    ...(region === undefined ? {} : { region }),
    ...(pingEveryMs === undefined ? {} : { pingEveryMs }),
    ...(refresh && { refresh: async () => refresh() }),
    openSocket: request.openSocket ?? openSocket,
    onEvent(event) {
      see(watch, event, request.times);
      onEvent?.(event);
    },
  });
  const say = (text: string): boolean => {
    const isKept = client.say(text);
    if (isKept) watch.counts.sent += 1;
    return isKept;
  };
  client.start();
  return {
    counts: watch.counts,
    isOn: () => client.status() === 'online' || client.status() === 'moving',
    hasGivenUp: () => client.status() === 'gave-up',
    servedBy: client.servedBy,
    say,
    count() {
      if (!say(`${name}:${watch.said + 1}:${Date.now()}`)) return false;
      watch.said += 1;
      return true;
    },
    waiting: client.waiting,
    place: () => watch.place,
    stop: client.stop,
  };
}

/** What one player has seen, and what is needed to know that nothing is missing. */
interface Watch {
  counts: PlayerCounts;
  run: string;
  said: number;
  place: { room: string; offset: number } | null;
  holes: number;
  /** Room mate's number → the newest number that they said. */
  mates: Map<number, number>;
  missedOfMates: number;
}

function newWatch(name: string): Watch {
  const counts: PlayerCounts = {
    joins: 0,
    moves: 0,
    anew: 0,
    restarts: 0,
    breaks: 0,
    sent: 0,
    acknowledged: 0,
    received: 0,
    lost: 0,
    duplicated: 0,
    matesLeft: 0,
    longestGapMs: 0,
    lastCode: null,
  };
  const run = name.replace(/\d+$/, '');
  return { counts, run, said: 0, place: null, holes: 0, mates: new Map(), missedOfMates: 0 };
}

function see(watch: Watch, event: ClientEvent, times: Times | undefined): void {
  const { counts } = watch;
  if (event.type === 'message') hear(watch, event.message, times);
  else if (event.type === 'acked') counts.acknowledged += event.messages;
  else if (event.type === 'rtt' && times) note(times.rtt, event.ms);
  else if (event.type === 'welcome') counts.joins += 1;
  else if (event.type === 'snapshot') {
    const { room, offset } = event.snapshot;
    watch.holes += event.missed;
    watch.place = { room, offset };
    judge(watch);
  } else if (event.type === 'handover') {
    if (event.how === 'moved') counts.moves += 1;
    if (event.how === 'anew') counts.anew += 1;
    counts.longestGapMs = Math.max(counts.longestGapMs, event.gapMs);
    if (times) note(times.gap, event.gapMs);
  } else if (event.type === 'state' && event.code !== null) {
    if (event.code === closeCode.restart) counts.restarts += 1;
    else {
      counts.breaks += 1;
      counts.lastCode = event.code;
    }
  }
}

function hear(watch: Watch, message: RoomMessage, times: Times | undefined): void {
  const { counts, place } = watch;
  counts.received += 1;
  const isHere = place?.room === message.room;
  if (isHere && message.offset <= place.offset) {
    counts.duplicated += 1;
    return;
  }
  if (isHere) watch.holes += message.offset - place.offset - 1;
  watch.place = { room: message.room, offset: message.offset };
  if (watch.run !== '') {
    if (message.t === 'said') hearMate(watch, message.text, times);
    if (message.t === 'left' && message.player.id.startsWith(watch.run)) counts.matesLeft += 1;
  }
  judge(watch);
}

/** "<run>-<number>:<count>:<when>" */
function hearMate(watch: Watch, text: string, times: Times | undefined): void {
  if (!text.startsWith(watch.run)) return;
  const [mate = Number.NaN, count = Number.NaN, at = Number.NaN] = text
    .slice(watch.run.length)
    .split(':')
    .map(Number);
  const before = watch.mates.get(mate);
  if (before !== undefined && count <= before) {
    watch.counts.duplicated += 1;
    return;
  }
  if (before !== undefined) watch.missedOfMates += count - before - 1;
  watch.mates.set(mate, count);
  if (times) note(times.delivery, Math.max(0, Date.now() - at));
}

/** A missing message leaves a hole in both counts, so they are not added up. */
function judge({ counts, holes, missedOfMates }: Watch): void {
  counts.lost = Math.max(holes, missedOfMates);
}

/** Made once: reading the machine's certificates for every socket costs more than the handshake. */
let trust: SecureContext | null = null;
/** Host → the ticket that resumes TLS with it, as browsers do. */
const tlsTickets = new Map<string, Buffer>();

function openSocket(url: string): Socket {
  const { protocol, host } = new URL(url);
  return new WebSocket(url, protocolVersion, {
    perMessageDeflate: false,
    handshakeTimeout: 10_000,
    // Newer than the published types.
    closeTimeout: 2_000,
    ...(protocol === 'wss:' ? { createConnection: () => connectSecurely(new URL(url), host) } : {}),
  } as object) as Socket;
}

function connectSecurely({ hostname, port }: URL, host: string): TLSSocket {
  trust ??= createSecureContext();
  const ticket = tlsTickets.get(host);
  const socket = connect({
    host: hostname,
    port: port === '' ? 443 : Number(port),
    ...(isIP(hostname) === 0 ? { servername: hostname } : {}),
    secureContext: trust,
  });
  // Given as an option Node reads it twice, and each time it parses the server's certificate.
  if (ticket) (socket as TLSSocket & { setSession(ticket: Buffer): void }).setSession(ticket);
  socket.setNoDelay(true);
  socket.on('session', (newest) => tlsTickets.set(host, newest));
  return socket;
}
