/**
 * What a client does, as a pure function: state and input in, state and effects out. Knows no socket, no timer
 * and no clock (every input says when it happened), so that any order of losses, duplicates and delays can be tried on it.
 *
 * Promises: what a room says reaches the application once and in the room's order, over any number of sockets; what
 * the player says keeps its order and stays here until it is acknowledged; a socket that works is not given up before
 * the next one is welcomed.
 */
import { closeCode, retryAfter, triesMax } from '../protocol.ts';
import { helloOf, receive } from './core-receive.ts';
import {
  type Draft,
  emit,
  type Input,
  maySay,
  pump,
  type State,
  send,
  statusOf,
  type Timer,
} from './core-state.ts';

/** From opening a socket to its welcome. */
const welcomeMs = 10_000;
/** The code of a socket that was closed without one. */
const brokenCode = 1006;
const timers: readonly Timer[] = ['retry', 'welcome', 'stable', 'repeat', 'beat', 'move'];

export function step(state: State, input: Input): Draft {
  const draft: Draft = { state: { ...state }, effects: [] };
  apply(draft, input);
  const status = statusOf(draft.state);
  if (status !== statusOf(state) || input.t === 'start')
    emit(draft, { type: 'state', state: status, code: draft.state.lastCode });
  return draft;
}

function apply(draft: Draft, input: Input): void {
  const { state } = draft;
  if (input.t === 'start') start(draft);
  else if (input.t === 'stop') stop(draft);
  else if (input.t === 'received') receive(draft, input.link, input.message, input.at);
  else if (input.t === 'closed') closed(draft, input.link, input.code, input.at);
  else if (input.t === 'say') say(draft, input.room, input.text);
  else if (input.t === 'enter') enter(draft, input.region);
  else if (input.t === 'timer') fired(draft, input.timer, input.at);
  else if (input.t === 'token') tokenCame(draft, input.token);
  else if (input.t === 'opened') {
    if (state.opening === input.link) send(draft, input.link, helloOf(state));
  } else if (state.ended === null && !state.live && !state.opening) failed(draft, closeCode.tokenExpired);
}

function start(draft: Draft): void {
  const { state } = draft;
  if (state.ended === null && (state.live || state.opening || state.tries > 0)) return;
  state.ended = null;
  state.tries = 0;
  if (state.needsToken) draft.effects.push({ do: 'refresh' });
  else open(draft, null);
}

function stop(draft: Draft): void {
  const { state, effects } = draft;
  if (state.live) effects.push({ do: 'close', link: state.live.id, code: closeCode.done, reason: '' });
  end(draft, 'stopped');
}

function end(draft: Draft, how: 'gave-up' | 'stopped'): void {
  const { state, effects } = draft;
  if (state.opening !== null) effects.push({ do: 'drop', link: state.opening });
  for (const timer of timers) effects.push({ do: 'cancel', timer });
  Object.assign(state, { live: null, opening: null, hint: null, isHolding: false, ended: how });
}

function open(draft: Draft, to: number | null): void {
  const { state, effects } = draft;
  state.links += 1;
  state.opening = state.links;
  effects.push({ do: 'open', link: state.links, to }, { do: 'wait', timer: 'welcome', ms: welcomeMs });
}

function closed(draft: Draft, link: number, code: number, at: number): void {
  const { state, effects } = draft;
  if (state.opening === link) {
    state.opening = null;
    effects.push({ do: 'cancel', timer: 'welcome' });
    if (state.live) moveFailed(draft, code, at);
    else failed(draft, code);
  } else if (state.live?.id === link) {
    state.live = null;
    state.hint = null;
    state.isHolding = false;
    state.lostAt = at;
    state.lastCode = code;
    for (const timer of ['stable', 'beat', 'repeat', 'move'] as const) effects.push({ do: 'cancel', timer });
    // If the second socket of a move is on its way already, it brings the player back.
    if (!state.opening) failed(draft, code);
  }
}

/** The player is still on the first socket: try again while the server waits, without counting it as a try. */
function moveFailed(draft: Draft, code: number, at: number): void {
  const { state, effects } = draft;
  const rule = retryAfter(code);
  if (state.hint === null || rule === 'never' || state.moveTries >= triesMax || at > state.hint.deadlineAt) {
    state.hint = null;
    return;
  }
  state.moveTries += 1;
  if (rule === 'refresh') effects.push({ do: 'refresh' });
  else effects.push({ do: 'back-off', timer: 'move', n: state.moveTries - 1 });
}

/** There is no socket any more: come back as the close code allows. */
function failed(draft: Draft, code: number): void {
  const { state, effects } = draft;
  state.lastCode = code;
  const rule = retryAfter(code);
  if (code === closeCode.resync) Object.assign(state, { session: null, epoch: null, rooms: {} });
  if (rule === 'refresh') state.needsToken = true;
  if (rule === 'never' || state.tries >= triesMax) {
    end(draft, 'gave-up');
    return;
  }
  effects.push({ do: 'back-off', timer: 'retry', n: state.tries });
  state.tries += 1;
}

function tokenCame(draft: Draft, token: string | null): void {
  const { state } = draft;
  if (state.ended !== null) return;
  if (token !== null) Object.assign(state, { token, needsToken: false });
  if (state.opening) return;
  if (state.live) {
    if (token === null) state.hint = null;
    else if (state.hint) open(draft, state.hint.to);
  } else if (token === null) end(draft, 'gave-up');
  else open(draft, null);
}

function fired(draft: Draft, timer: Timer, at: number): void {
  const { state, effects } = draft;
  if (state.ended !== null) return;
  if (timer === 'stable') state.tries = 0;
  else if (timer === 'beat') beat(draft, at);
  else if (timer === 'repeat') {
    state.isHolding = false;
    pump(draft);
  } else if (timer === 'welcome') {
    if (state.opening !== null) abandon(draft, state.opening, at);
  } else if (state.opening !== null) return;
  else if (timer === 'move') {
    if (state.live && state.hint) open(draft, state.hint.to);
  } else if (state.live) return;
  else if (state.needsToken) effects.push({ do: 'refresh' });
  else open(draft, null);
}

function beat(draft: Draft, at: number): void {
  const { live, pingEveryMs } = draft.state;
  if (!live) return;
  if (at - live.heardAt > live.silenceMs) {
    abandon(draft, live.id, at);
    return;
  }
  send(draft, live.id, { t: 'ping', at });
  draft.effects.push({ do: 'wait', timer: 'beat', ms: pingEveryMs });
}

/** A socket that says nothing counts as closed. */
function abandon(draft: Draft, link: number, at: number): void {
  draft.effects.push({ do: 'drop', link });
  closed(draft, link, brokenCode, at);
}

function enter(draft: Draft, region: string): void {
  draft.state.region = region;
  if (draft.state.live) send(draft, draft.state.live.id, { t: 'enter', region });
}

function say(draft: Draft, room: string, text: string): void {
  const { state } = draft;
  if (!maySay(state, text)) return;
  state.seq += 1;
  state.unacked = [...state.unacked, { t: 'say', seq: state.seq, room, text }];
  pump(draft);
}
