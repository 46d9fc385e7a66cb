/**
 * The WebSocket wire protocol that server and client share, subprotocol `gameops.v1`: JSON text frames, each an
 * object with `t`, its type. docs/protocol.md describes it in words.
 *
 * Promises that it grows without breaking anybody: receivers ignore fields they do not know, clients ignore types they
 * do not know, and fields are never renamed or given another meaning. So an older server and a newer client can always
 * talk, which is what switching back needs.
 *
 * Nothing is lost and nothing comes twice: whatever a room hears carries the room's `offset`, rising by one; whatever a
 * client changes carries its session's `seq`, rising by one. A resume names the offsets that the client has, and is told
 * the sequence that was accepted last.
 *
 * A token travels in the first message only, never in a URL, where access logs would keep it.
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
  /** At most this waits for a slow reader: messages and bytes. With more the connection is closed, to resume later. */
  queuedMessages: 256,
  queuedBytes: 262_144,
  /** Messages of a room that any server can replay from memory. */
  replayMessages: 256,
  /** How long after its last socket a session can be resumed without a gap. */
  resumeMs: 150_000,
  /** Messages that a client keeps until they are acknowledged. It sends no more before that. */
  unackedMessages: 256,
  chatLength: 500,
} as const;

/** 44xx: come back as the rule of that code says. 45xx: do not come back with the same hello. */
export const closeCode = {
  done: 1000,
  /** Not RFC 6455. */
  badFrame: 1002,
  badText: 1007,
  /** A message in too many fragments. */
  tooManyParts: 1008,
  tooBig: 1009,
  restart: 1012,
  slow: 4008,
  tokenExpired: 4401,
  helloTimeout: 4408,
  /** The server can't go on from what this client has: come back without a resume. */
  resync: 4410,
  /** More frames than any player sends. */
  flood: 4429,
  badMessage: 4500,
  badToken: 4501,
  /** The same player connected somewhere else. */
  replaced: 4509,
} as const;

export type CloseReason = keyof typeof closeCode;

/** Reason of a close with 1000 by a client that is on its new socket. */
export const movedReason = 'moved';

/** What a client does after a close: at once (then backing off), with a fresh token, or not at all. */
export function retryAfter(code: number): 'retry' | 'refresh' | 'never' {
  if (code === closeCode.tokenExpired) return 'refresh';
  return final.has(code) || (code >= 4500 && code < 4600) ? 'never' : 'retry';
}

/** Closed on purpose, or for a fault that would come again. */
const final: ReadonlySet<number> = /* @__PURE__ */ new Set([
  closeCode.done,
  closeCode.badFrame,
  closeCode.badText,
  closeCode.tooManyParts,
  closeCode.tooBig,
]);

/** Tries in a row before a client gives up by itself. A session that was stable for `stableMs` resets the count. */
export const triesMax = 5;
export const stableMs = 10_000;

/** Wait before try `n` (from 0), ms: exponential with full jitter, so that a crowd of players never comes in step. */
export function backoffMs(n: number, random: () => number = Math.random): number {
  return random() * Math.min(250 * 2 ** n, 8_000);
}

/** The world: regions in a grid, each a room; each with as many tiles to explore. */
export const world = { columns: 20, rows: 10, tiles: 32 } as const;

/** Where newcomers begin. */
export const firstRegion = 'r0-0';

/** A region has one name: with leading zeros it would be up to four rooms, each with tiles of its own. */
export const regionPattern = /^r(0|[1-9]\d?)-(0|[1-9]\d?)$/;

export function isRegion(room: string): boolean {
  const [, column, row] = regionPattern.exec(room) ?? [];
  return column !== undefined && Number(column) < world.columns && Number(row) < world.rows;
}

/** FNV-1a, 32 bits: the same number for the same text, on every server and in every browser. */
export function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash >>> 0;
}

const regionId = () => z.string().check(z.regex(regionPattern));
const sequence = () => z.int().check(z.gte(1));
const offset = () => z.int().check(z.gte(0));

const upward = /* @__PURE__ */ (() =>
  z.discriminatedUnion('t', [
    z.object({
      t: z.literal('hello'),
      v: z.literal(1),
      token: z.string().check(z.maxLength(2_048)),
      /** Where the player wants to be. Default: where the session was, otherwise the first region. */
      region: z.optional(regionId()),
      /** A session to resume: what its last welcome named, and the newest offset seen in each room. */
      resume: z.optional(
        z.object({
          session: z.string().check(z.regex(/^[\w-]{8,64}$/)),
          epoch: z.string().check(z.maxLength(64)),
          offsets: z.record(regionId(), offset()),
          /** The newest acknowledged sequence: a server that finds none of this session any more goes on from here. */
          seq: z.optional(z.int().check(z.gte(0))),
        }),
      ),
    }),
    z.object({
      t: z.literal('say'),
      seq: sequence(),
      room: regionId(),
      text: z.string().check(z.minLength(1), z.maxLength(limits.chatLength)),
    }),
    /** Go to another region. It has no sequence: the last wish wins. */
    z.object({ t: z.literal('enter'), region: regionId() }),
    /** The client saw a hole: send everything after this offset again. */
    z.object({ t: z.literal('resync'), room: regionId(), offset: offset() }),
    z.object({ t: z.literal('ping'), at: z.number() }),
  ]))();

export type Upward = z.infer<typeof upward>;
export type Hello = Extract<Upward, { t: 'hello' }>;

export interface Person {
  id: string;
  name: string;
}

export interface Discovery {
  id: string;
  player: Person;
  region: string;
  /** Tile inside the region; null for discoveries from before there were tiles. */
  tile: { x: number; y: number } | null;
  what: string;
  /** ISO time */
  at: string;
}

/** How full a region is, as GET /api/regions answers. */
export interface Headcount {
  region: string;
  players: number;
}

/** What happens in a room, without its place in the room's order. */
export type RoomEvent =
  | { t: 'said'; from: Person; text: string; at: string }
  | { t: 'discovered'; discovery: Discovery }
  | { t: 'joined'; player: Person }
  | { t: 'left'; player: Person };

/** Whatever is announced to a room; offsets of a room rise by one. */
export type RoomMessage = RoomEvent & { room: string; offset: number };

/**
 * `resumed`: everything after the offset that the hello named follows, without a hole. Otherwise a snapshot follows.
 * `offset`: the newest offset of the room at this moment.
 */
export interface RoomState {
  room: string;
  offset: number;
  resumed: boolean;
}

export type Downward =
  | {
      t: 'welcome';
      session: string;
      /** Names the memory that offsets and sequences live in. Another epoch means that both began anew. */
      epoch: string;
      /** The newest sequence of this session that was accepted; the next message carries one more. */
      seq: number;
      player: Person;
      release: number;
      replica: number;
      heartbeatMs: number;
      resumeMs: number;
      rooms: RoomState[];
    }
  /** The room as it is now. What comes after goes on from `offset`. `latest`: its last messages, oldest first. */
  | { t: 'snapshot'; room: string; offset: number; people: Person[]; latest: RoomMessage[] }
  /** The player is in the new room: the room they left is no longer heard, a snapshot of the new one follows. */
  | { t: 'entered'; room: string; left: string | null }
  /** Redis has taken everything up to this sequence. */
  | { t: 'ack'; seq: number }
  /**
   * The message was not taken. With `seq`: say everything from that sequence on again, later; what was sent after it was
   * not looked at. Without `seq`: forget it.
   */
  | { t: 'refused'; what: string; why: 'too-fast' | 'gap' | 'unavailable' | 'unknown-room'; seq?: number }
  | { t: 'pong'; at: number }
  /**
   * This server is about to leave. After `afterMs` open a second socket (with `to` in its query, so that it reaches that
   * release), say hello with a resume, and close this socket with 1000 "moved" once the second is welcomed. A client that
   * does not do so within `deadlineMs` is closed with 1012.
   */
  | { t: 'reconnect'; reason: 'deploy'; to: number | null; afterMs: number; deadlineMs: number }
  | RoomMessage;

export type Welcome = Extract<Downward, { t: 'welcome' }>;

/** null for anything that is not a message of this version. Never throws, because what comes in is not trusted. */
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

export const isRoomMessage = (message: { t: string }): message is RoomMessage => roomTypes.has(message.t);

const roomTypes: ReadonlySet<string> = /* @__PURE__ */ new Set([
  'said',
  'discovered',
  'joined',
  'left',
] satisfies RoomEvent['t'][]);

const known: ReadonlySet<string> = /* @__PURE__ */ new Set([
  'welcome',
  'snapshot',
  'entered',
  'ack',
  'refused',
  'pong',
  'reconnect',
  'said',
  'discovered',
  'joined',
  'left',
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
