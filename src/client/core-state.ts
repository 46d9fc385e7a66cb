/**
 * What a client is, what may happen to it and what it may ask for: the types of the client's core, and the few functions
 * that all steps need. Plain data.
 */
import {
  closeCode,
  type Downward,
  limits,
  movedReason,
  type RoomMessage,
  type Upward,
  type Welcome,
} from '../protocol.ts';

/** One room as far as it was heard. */
export interface Room {
  /** The newest offset; -1 before there was any. */
  offset: number;
  /** Messages are ignored until the room's snapshot has come. */
  isWaiting: boolean;
  /** When the missing part was asked for, null while nothing is missing. */
  askedAt: number | null;
}

export type Say = Extract<Upward, { t: 'say' }>;
type Snapshot = Extract<Downward, { t: 'snapshot' }>;
export type Timer = 'retry' | 'welcome' | 'stable' | 'repeat' | 'beat' | 'move';
export type ClientStatus = 'connecting' | 'online' | 'moving' | 'reconnecting' | 'gave-up' | 'stopped';

export interface State {
  token: string;
  /** Where the player wants to be; null: where the server puts them. */
  region: string | null;
  pingEveryMs: number;
  /** Sockets are numbered; this is the newest number. */
  links: number;
  /** The socket that was welcomed. */
  live: { id: number; heardAt: number; silenceMs: number } | null;
  /** The socket that is not welcomed yet. Beside a live one it is the second socket of a move. */
  opening: number | null;
  hint: { to: number | null; deadlineAt: number } | null;
  session: string | null;
  epoch: string | null;
  rooms: Readonly<Record<string, Room>>;
  /** Newest sequence given to a message, and newest sequence sent on the live socket. */
  seq: number;
  sentTo: number;
  unacked: readonly Say[];
  /** After a refusal: nothing is said until the timer "repeat". */
  isHolding: boolean;
  repeats: number;
  tries: number;
  moveTries: number;
  needsToken: boolean;
  servedBy: string | null;
  /** When the last live socket was lost; null while there is a live socket, and before the first. */
  lostAt: number | null;
  lastCode: number | null;
  ended: 'gave-up' | 'stopped' | null;
}

/** `at`: a clock that never goes back, ms. */
export type Input = { at: number } & (
  | { t: 'start' }
  | { t: 'stop' }
  | { t: 'opened'; link: number }
  | { t: 'received'; link: number; message: Downward }
  | { t: 'closed'; link: number; code: number }
  | { t: 'say'; room: string; text: string }
  | { t: 'enter'; region: string }
  | { t: 'timer'; timer: Timer }
  /** null: there will never be a token again. */
  | { t: 'token'; token: string | null }
  | { t: 'token-failed' }
);

export type ClientEvent =
  /** `code`: of the close that led to this state; null when no close did. */
  | { type: 'state'; state: ClientStatus; code: number | null }
  | { type: 'welcome'; welcome: Welcome }
  /**
   * Every welcome but the first. `gapMs`: how long there was no live socket; 0 after a move. `anew`: the session is a new
   * one, snapshots follow.
   */
  | { type: 'handover'; from: string; to: string; gapMs: number; how: 'moved' | 'resumed' | 'anew' }
  | { type: 'message'; message: RoomMessage }
  /** Replaces what is known of the room. `missed`: how many messages in between are lost to this client. */
  | { type: 'snapshot'; snapshot: Snapshot; missed: number }
  | { type: 'entered'; room: string; left: string | null }
  | { type: 'acked'; messages: number }
  /** `isKept`: the client says it again by itself. */
  | { type: 'refused'; what: string; why: string; isKept: boolean }
  | { type: 'rtt'; ms: number };

export type Effect =
  | { do: 'open'; link: number; to: number | null }
  | { do: 'send'; link: number; message: Upward }
  | { do: 'close'; link: number; code: number; reason: string }
  /** End the socket without a close frame: nobody listens there any more, or nobody did yet. */
  | { do: 'drop'; link: number }
  /** Replaces a timer of the same name. */
  | { do: 'wait'; timer: Timer; ms: number }
  /** The same as `wait`, for as long as try `n` has to wait by the protocol's back-off. */
  | { do: 'back-off'; timer: Timer; n: number }
  | { do: 'cancel'; timer: Timer }
  /** Ask for a fresh token. It is answered by an input "token" or "token-failed". */
  | { do: 'refresh' }
  | { do: 'emit'; event: ClientEvent };

/** The state to change, whose parts are replaced and never written into, and the effects to carry out. */
export interface Draft {
  state: State;
  effects: Effect[];
}

/** Messages on their way at once, so that a long queue does not run into the server's own limit. */
const inFlightMax = 16;

export function initialState(asked: { token: string; region?: string; pingEveryMs?: number }): State {
  return {
    token: asked.token,
    region: asked.region ?? null,
    pingEveryMs: asked.pingEveryMs ?? limits.heartbeatMs,
    links: 0,
    live: null,
    opening: null,
    hint: null,
    session: null,
    epoch: null,
    rooms: {},
    seq: 0,
    sentTo: 0,
    unacked: [],
    isHolding: false,
    repeats: 0,
    tries: 0,
    moveTries: 0,
    needsToken: false,
    servedBy: null,
    lostAt: null,
    lastCode: null,
    ended: null,
  };
}

export function statusOf(state: State): ClientStatus {
  if (state.ended !== null) return state.ended;
  if (state.live !== null) return state.opening === null ? 'online' : 'moving';
  return state.servedBy === null ? 'connecting' : 'reconnecting';
}

/** Whether one more message may be said, now or once the player is back. */
export function maySay(state: State, text: string): boolean {
  const isRoomLeft = state.unacked.length < limits.unackedMessages;
  return state.ended === null && isRoomLeft && text.length > 0 && text.length <= limits.chatLength;
}

/** Sends messages that were not sent on this socket yet, in order, as many as may be on their way at once. */
export function pump(draft: Draft): void {
  const { state } = draft;
  const [first] = state.unacked;
  if (!state.live || state.isHolding || !first) return;
  const until = Math.min(state.seq, first.seq - 1 + inFlightMax);
  for (; state.sentTo < until; state.sentTo += 1) {
    const next = state.unacked[state.sentTo + 1 - first.seq];
    if (next) send(draft, state.live.id, next);
  }
}

/** The first socket is closed with a reason, so that the server knows that the player has not left. */
export function leaveOld(draft: Draft, link: number): void {
  draft.effects.push({ do: 'close', link, code: closeCode.done, reason: movedReason });
}

export function send(draft: Draft, link: number, message: Upward): void {
  draft.effects.push({ do: 'send', link, message });
}

export function emit(draft: Draft, event: ClientEvent): void {
  draft.effects.push({ do: 'emit', event });
}
