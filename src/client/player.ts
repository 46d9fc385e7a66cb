/**
 * A player without a screen: the CLI's join probe and its load players. Speaks the wire protocol as any client does,
 * with the same retry rules. Promises to hold no timer and no socket after `stop` or after the answer.
 */
import { WebSocket } from 'ws';
import {
  backoffMs,
  closeCode,
  type Downward,
  parseDownward,
  protocolVersion,
  retryAfter,
} from '../protocol.ts';

export type Welcome = Extract<Downward, { t: 'welcome' }>;

export type Join =
  | { ok: true; welcome: Welcome; ms: number }
  /** `code` is the close code, null when there was no WebSocket to close. */
  | { ok: false; reason: string; code: number | null; ms: number };

/** Joins, is welcomed, leaves. Never rejects. @param url such as ws://127.0.0.1:8080/ws */
export function joinOnce(url: string, token: string, timeoutMs: number): Promise<Join> {
  const began = performance.now();
  const ms = () => Math.round(performance.now() - began);
  return new Promise((resolve) => {
    const socket = open(url);
    const end = (join: Join) => {
      clearTimeout(timer);
      resolve(join);
    };
    const timer = setTimeout(() => {
      end({ ok: false, reason: `no welcome within ${timeoutMs} ms`, code: null, ms: ms() });
      socket.terminate();
    }, timeoutMs);
    socket.on('open', () => socket.send(hello(token)));
    socket.on('message', (raw) => {
      const message = parseDownward(raw.toString());
      if (message.t !== 'welcome') return;
      end({ ok: true, welcome: message, ms: ms() });
      socket.close(closeCode.done);
    });
    socket.on('error', (error) => end({ ok: false, reason: error.message, code: null, ms: ms() }));
    socket.on('close', (code, text) =>
      end({ ok: false, reason: text.toString() || `closed with ${code}`, code, ms: ms() }),
    );
  });
}

export interface PlayerCounts {
  /** Welcomes, the first one included. */
  joins: number;
  /** Closed by a drain. */
  restarts: number;
  /** Closed or refused in any other way while it wanted to stay. */
  breaks: number;
  received: number;
  /** Each time without a welcome between two joins, ms. */
  gapsMs: number[];
  /** Echo times, ms; the latest thousand. */
  rttMs: number[];
  /** How the last break came about, null when there was none. */
  lastReason: string | null;
}

export interface LoadPlayer {
  readonly counts: PlayerCounts;
  isOn(): boolean;
  /** `<release>/<replica>` of the present welcome, null while off. */
  servedBy(): string | null;
  say(text: string): boolean;
  stop(): void;
}

export interface LoadPlayerRequest {
  url: string;
  token: string;
  /** How often it measures its echo; 0 for never. */
  pingEveryMs?: number;
  onMessage?: (message: Downward) => void;
  /** Told each break, in words. */
  onBreak?: (how: string) => void;
}

/** Stays on until stopped: comes back after every close that the protocol allows to come back from. */
export function startPlayer(request: LoadPlayerRequest): LoadPlayer {
  const { url, token, pingEveryMs = 0, onMessage, onBreak } = request;
  const counts: PlayerCounts = {
    joins: 0,
    restarts: 0,
    breaks: 0,
    received: 0,
    gapsMs: [],
    rttMs: [],
    lastReason: null,
  };
  let socket: WebSocket | null = null;
  let welcome: Welcome | null = null;
  let lostAt: number | null = null;
  let tries = 0;
  let stopped = false;
  let retry: NodeJS.Timeout | undefined;

  const connect = () => {
    const own = open(url);
    socket = own;
    own.on('open', () => own.send(hello(token)));
    own.on('message', (raw) => {
      const message = parseDownward(raw.toString());
      counts.received += 1;
      if (message.t === 'welcome') welcomed(message);
      else if (message.t === 'pong') note(counts.rttMs, performance.now() - message.at);
      if (message.t !== 'unknown') onMessage?.(message);
    });
    let failure = '';
    own.on('error', (error) => {
      failure = error.message;
    });
    // Always follows, after an error too.
    own.on('close', (code, reason) => lost(code, failure || reason.toString()));
  };

  const welcomed = (message: Welcome) => {
    welcome = message;
    counts.joins += 1;
    tries = 0;
    if (lostAt !== null) note(counts.gapsMs, performance.now() - lostAt);
    lostAt = null;
  };

  const lost = (code: number, reason: string) => {
    if (stopped) return;
    const where = welcome === null ? 'before a welcome' : `on ${welcome.release}/${welcome.replica}`;
    if (welcome !== null) lostAt = performance.now();
    welcome = null;
    if (code === closeCode.restart) counts.restarts += 1;
    else {
      counts.breaks += 1;
      counts.lastReason = `closed with ${code}${reason && ` (${reason})`} ${where}`;
      onBreak?.(counts.lastReason);
    }
    if (retryAfter(code) !== 'retry') return;
    retry = setTimeout(connect, backoffMs(tries));
    tries += 1;
  };

  const pinging =
    pingEveryMs > 0 ? setInterval(() => tell({ t: 'ping', at: performance.now() }), pingEveryMs) : undefined;
  const tell = (message: object): boolean => {
    if (welcome === null || socket?.readyState !== WebSocket.OPEN) return false;
    socket.send(JSON.stringify(message));
    return true;
  };

  connect();
  return {
    counts,
    isOn: () => welcome !== null,
    servedBy: () => (welcome === null ? null : `${welcome.release}/${welcome.replica}`),
    say: (text) => tell({ t: 'say', room: welcome?.rooms[0] ?? '', text }),
    stop() {
      stopped = true;
      clearTimeout(retry);
      clearInterval(pinging);
      // A closing handshake needs an open socket; one that is still connecting is dropped.
      if (socket?.readyState === WebSocket.OPEN) socket.close(closeCode.done);
      else socket?.terminate();
    },
  };
}

function open(url: string): WebSocket {
  return new WebSocket(url, protocolVersion, {
    perMessageDeflate: false,
    handshakeTimeout: 10_000,
    closeTimeout: 2_000,
  } as object);
}

const hello = (token: string) => JSON.stringify({ t: 'hello', v: 1, token });

function note(samples: number[], value: number): void {
  samples.push(value);
  if (samples.length > 1_000) samples.shift();
}
