/**
 * The bus: one stream in Redis that every server reads, and the scripts that write to it. Promises one order for
 * everybody, that each sequence of a session is accepted once, and that a Redis which forgot is noticed before anything
 * is said on top of what it lost.
 */
import type { Redis } from 'ioredis';
import type { Logger } from 'pino';
import { redisKeys } from '../../contract.ts';
import { limits, type RoomEvent } from '../../protocol.ts';
import type { Readiness } from '../readiness.ts';
import type { Identity } from '../settings.ts';
import { type BusEntry, entriesOf } from './bus-entry.ts';
import { askAgain, renew } from './bus-epoch.ts';
import { claimLua, defineScript, preamble, publishLua, renewLua } from './bus-scripts.ts';
import type { BusListener, BusState } from './bus-state.ts';
import { begin } from './bus-tail.ts';
import { connect } from './redis.ts';

/** `taken` with the room's offset, 0 when only the sequence was; `duplicate` with the newest; `gap` with the next. */
export interface Published {
  is: 'taken' | 'duplicate' | 'gap';
  at: number;
}

export interface Saying {
  session: string;
  seq: number;
  /** Newest sequence that this server knows of. It counts when Redis has forgotten the session's. */
  known: number;
  room: string;
  /** null: takes the sequence and tells nobody. */
  event: RoomEvent | null;
}

/** Runs with the bus' own keys and arguments before the given ones. Rejects when Redis is away or has forgotten. */
export type Script = (keys: readonly string[], args: readonly (string | number)[]) => Promise<unknown[]>;

export interface Bus {
  /** Names the memory of Redis; '' until Redis was asked. */
  epoch(): string;
  /** false when it is not up in time. */
  whenUp(timeoutMs: number): Promise<boolean>;
  publish(saying: Saying): Promise<Published>;
  /** For events that belong to no session: joined, left, discovered. */
  announce(room: string, event: RoomEvent): Promise<void>;
  /** What a room was told after `offset`, oldest first, as far as Redis has kept it. */
  history(room: string, offset: number): Promise<BusEntry[]>;
  /** The newest messages of a room, oldest first. */
  recent(room: string, count: number): Promise<BusEntry[]>;
  script(name: string, lua: string): Script;
  /** Redis has given out an offset twice: everybody begins anew. */
  renew(): Promise<void>;
  commands: Redis;
  close(): void;
}

export interface BusRequest extends BusListener {
  url: string;
  identity: Identity;
  readiness: Readiness;
  log: Logger;
}

export function openBus(request: BusRequest): Bus {
  const { url, log, readiness } = request;
  const connections = connect({ url, log, onUp: () => void begin(state), onDown: () => down(state) });
  const { commands, tail } = connections;
  const state: BusState = {
    keys: redisKeys(request.identity.project),
    commands,
    tail,
    claim: defineScript(commands, 'gameopsClaim', claimLua),
    replace: defineScript(commands, 'gameopsRenew', renewLua),
    readiness,
    log,
    onEntries: request.onEntries,
    onBreak: request.onBreak,
    epoch: '',
    isVerified: false,
    lastId: null,
    beginning: '0-0',
    turn: 0,
    waiting: new Set(),
  };
  const { keys } = state;
  const publish = scriptOf(state, 'gameopsPublish', publishLua);
  return {
    epoch: () => state.epoch,
    whenUp: (timeoutMs) => whenUp(state, timeoutMs),
    async publish({ session, seq, known, room, event }) {
      const body = event === null ? '' : JSON.stringify(event);
      const [is, at] = await publish([keys.sequence(session)], [room, seq, known, body]);
      return { is: is as Published['is'], at: Number(at) };
    },
    async announce(room, event) {
      await publish([keys.sequence('')], [room, 0, 0, JSON.stringify(event)]);
    },
    async history(room, offset) {
      return entriesOf(room, await commands.xrange(keys.room(room), `${offset + 1}-0`, '+'));
    },
    async recent(room, count) {
      return entriesOf(room, await commands.xrevrange(keys.room(room), '+', '-', 'COUNT', count)).reverse();
    },
    script: (name, text) => scriptOf(state, name, text),
    renew: () => renew(state),
    commands,
    close() {
      state.turn += 1;
      connections.close();
    },
  };
}

function down(state: BusState): void {
  state.turn += 1;
  state.isVerified = false;
  state.readiness.set('redis', false);
}

function whenUp(state: BusState, timeoutMs: number): Promise<boolean> {
  if (state.isVerified) return Promise.resolve(true);
  return new Promise((resolve) => {
    const settle = (isUp: boolean) => {
      state.waiting.delete(wake);
      clearTimeout(timer);
      resolve(isUp);
    };
    const wake = () => settle(true);
    const timer = setTimeout(() => settle(false), timeoutMs);
    state.waiting.add(wake);
  });
}

function scriptOf(state: BusState, name: string, text: string): Script {
  const { keys } = state;
  const run = defineScript(state.commands, name, preamble + text);
  return async (own, args) => {
    if (!state.isVerified) throw new Error('redis is not connected');
    const reply = await run(
      [keys.epoch, keys.bus, keys.offsets, ...own],
      [state.epoch, keys.room(''), limits.resumeMs, ...args],
    );
    const answer = Array.isArray(reply) ? reply : [reply];
    if (answer[0] !== 'epoch') return answer;
    await askAgain(state);
    throw new Error('redis has lost its data');
  };
}
