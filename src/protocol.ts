/**
 * The WebSocket wire protocol that server and client share, subprotocol `gameops.v1`: JSON text frames, each an
 * object with `t`, its type. Promises that it grows without breaking anybody: receivers ignore fields they do not
 * know, clients ignore types they do not know, fields are never renamed or given another meaning. So an older
 * server and a newer client can always talk, which is what switching back needs.
 * A token travels in the first message only: never in a URL, where access logs would keep it.
 */
import * as z from 'zod/mini';

export const protocolVersion = 'gameops.v1';

export const limits = {
  /** Between the upgrade and the hello. */
  helloMs: 5_000,
  /** Every socket is pinged once in this time; two misses end it. */
  heartbeatMs: 30_000,
  /** Largest frame a client may send. */
  frameBytes: 4_096,
  /** Unsent bytes at which a reader counts as too slow. */
  bufferedBytes: 262_144,
  chatLength: 500,
} as const;

/** 44xx: come back, after what the rule says. 45xx: do not come back with the same hello. */
export const closeCode = {
  done: 1000,
  tooBig: 1009,
  restart: 1012,
  slow: 4008,
  tokenExpired: 4401,
  helloTimeout: 4408,
  badMessage: 4500,
  badToken: 4501,
} as const;

export type CloseReason = keyof typeof closeCode;

/** What a client does after a close: at once (then backing off), with a fresh token, or not at all. */
export function retryAfter(code: number): 'retry' | 'refresh' | 'never' {
  if (code === closeCode.tokenExpired) return 'refresh';
  if (code === closeCode.done || code === closeCode.tooBig || (code >= 4500 && code < 4600)) return 'never';
  return 'retry';
}

/** Wait before try `n` (from 0), ms: exponential with full jitter, so that a fleet's players never come in step. */
export function backoffMs(n: number, random: () => number = Math.random): number {
  return random() * Math.min(250 * 2 ** n, 8_000);
}

/** The room everybody is in. */
export const lobby = 'lobby';

const room = () => z.string().check(z.minLength(1), z.maxLength(64));

const upward = /* @__PURE__ */ (() =>
  z.discriminatedUnion('t', [
    z.object({ t: z.literal('hello'), v: z.literal(1), token: z.string().check(z.maxLength(2_048)) }),
    z.object({
      t: z.literal('say'),
      room: room(),
      text: z.string().check(z.minLength(1), z.maxLength(limits.chatLength)),
    }),
    z.object({ t: z.literal('ping'), at: z.number() }),
  ]))();

export type Upward = z.infer<typeof upward>;

export interface Person {
  id: string;
  name: string;
}

export interface Discovery {
  id: string;
  player: Person;
  region: string;
  what: string;
  /** ISO time */
  at: string;
}

/** Whatever is announced to a room. It gains an `offset` when rooms can be replayed. */
export type RoomMessage =
  | { t: 'said'; room: string; from: Person; text: string; at: string }
  | { t: 'discovered'; room: string; discovery: Discovery };

export type Downward =
  | {
      t: 'welcome';
      session: string;
      player: Person;
      release: number;
      replica: number;
      heartbeatMs: number;
      rooms: string[];
    }
  | { t: 'pong'; at: number }
  | { t: 'refused'; what: string; why: 'too-fast' | 'unavailable' | 'unknown-room' }
  | RoomMessage;

/** null for anything that is not a message of this version. Never throws: what comes in is not trusted. */
export function parseUpward(text: string): Upward | null {
  const parsed = upward.safeParse(parseJson(text));
  return parsed.success ? parsed.data : null;
}

/** The client trusts its own server's shapes, but not that it knows every type. */
export function parseDownward(text: string): Downward | { t: 'unknown' } {
  const value = parseJson(text);
  const type = isRecord(value) ? value.t : undefined;
  return typeof type === 'string' && known.has(type) ? (value as Downward) : { t: 'unknown' };
}

const known: ReadonlySet<string> = /* @__PURE__ */ new Set([
  'welcome',
  'pong',
  'refused',
  'said',
  'discovered',
] satisfies Downward['t'][]);

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
