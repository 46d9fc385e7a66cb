/**
 * The bus: one stream in Redis that every server reads, and the scripts that write to it. Promises one order for
 * everybody, each sequence of a session taken once, and that a Redis which forgot is noticed before anything is said
 * on top of what it lost. Entries are versioned, because an old and a new release read each other's.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Redis } from 'ioredis';
import type { Logger } from 'pino';
import { redisKeys } from '../../contract.ts';
import { limits, type RoomEvent } from '../../protocol.ts';
import type { Readiness } from '../readiness.ts';
import type { Identity } from '../settings.ts';
import { judgeMemory } from './bus-continuity.ts';
import { connect } from './redis.ts';

export interface BusEntry {
  room: string;
  offset: number;
  /** JSON of a RoomEvent. */
  body: string;
}

/** `taken` with the room's offset, 0 when only the sequence was; `duplicate` with the newest; `gap` with the next. */
export interface Published {
  is: 'taken' | 'duplicate' | 'gap';
  at: number;
}

export interface Saying {
  session: string;
  seq: number;
  /** Newest sequence that this server knows of: counts when Redis has forgotten the session's. */
  known: number;
  room: string;
  /** null: takes the sequence and tells nobody. */
  event: RoomEvent | null;
}

/** Runs with the bus' own keys and arguments before the given ones. Rejects when Redis is away or has forgotten. */
export type Script = (keys: readonly string[], args: readonly (string | number)[]) => Promise<unknown[]>;

export interface Bus {
  /** Names the memory of Redis; '' until it was asked. */
  epoch(): string;
  /** false when it is not up in time. */
  whenUp(timeoutMs: number): Promise<boolean>;
  publish(saying: Saying): Promise<Published>;
  /** What no session says: joined, left, discovered. */
  announce(room: string, event: RoomEvent): Promise<void>;
  /** What a room was told after `offset`, oldest first, as far as it is kept. */
  history(room: string, offset: number): Promise<BusEntry[]>;
  /** The newest that a room was told, oldest first. */
  recent(room: string, count: number): Promise<BusEntry[]>;
  script(name: string, lua: string): Script;
  /** Redis has given out an offset twice: everybody begins anew. */
  renew(): Promise<void>;
  commands: Redis;
  close(): void;
}

export interface BusRequest {
  url: string;
  identity: Identity;
  readiness: Readiness;
  log: Logger;
  /** In the bus' order; every room's offsets rise by one. */
  onEntries: (entries: readonly BusEntry[]) => void;
  /** `epoch`: offsets and sequences begin anew. `missed`: entries were trimmed before they were read here. */
  onBreak: (why: 'epoch' | 'missed') => void;
}

const readCount = 500;
const readBlockMs = 1_000;
/**
 * What comes within it is read at once: a read for every message costs more than telling it to a room. One picture of
 * a screen, so that nobody sees the difference.
 */
const readApartMs = 16;
/** How much of the past a new server reads before it is ready: what players miss while they move, many times over. */
const warmMs = 30_000;
/** Who comes into a room sees what was said there last, also when that is a while ago. */
const roomMs = 3_600_000;
const busLength = 20_000;
/**
 * Of a room, for those whom no server's ring serves any more. A reader who was closed because he fell behind has
 * missed a whole queue of messages and what was said until he came back.
 */
const keptMessages = 4 * limits.replayMessages;
const sharedArgs = 3;

/**
 * Before every script: it runs on the memory it was meant for, or not at all.
 * KEYS epoch, bus, offsets; ARGV epoch, prefix of the rooms' streams, resume window. Then the script's own.
 */
const preamble = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'epoch'} end
local function append(room, body)
  local offset = redis.call('HINCRBY', KEYS[3], room, 1)
  local stream = ARGV[2] .. room
  redis.call('XADD', stream, 'MAXLEN', '~', ${keptMessages}, offset .. '-0', 'v', 1, 'b', body)
  redis.call('PEXPIRE', stream, ${roomMs})
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ${busLength}, '*', 'v', 1, 'e', ARGV[1], 'r', room, 'o', offset, 'b', body)
  return offset
end
`;

/** KEYS sequence; ARGV room, seq (0: of no session), newest known, body ('': sequence only). */
const publishLua = `
local seq = tonumber(ARGV[5])
if seq > 0 then
  -- A Redis that lost its last moments may know of fewer than were acknowledged: a gap that nobody could fill.
  local last = math.max(tonumber(redis.call('GET', KEYS[4]) or 0), tonumber(ARGV[6]))
  if seq <= last then return {'duplicate', last} end
  if seq > last + 1 then return {'gap', last + 1} end
  redis.call('SET', KEYS[4], seq, 'PX', ARGV[3])
end
if ARGV[7] == '' then return {'taken', 0} end
return {'taken', append(ARGV[4], ARGV[7])}
`;

const claimLua = `redis.call('SET', KEYS[1], ARGV[1], 'NX') return redis.call('GET', KEYS[1])`;
const renewLua = `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end
return redis.call('GET', KEYS[1])
`;

export function openBus({ url, identity, readiness, log, onEntries, onBreak }: BusRequest): Bus {
  const keys = redisKeys(identity.project);
  let epoch = '';
  let isVerified = false;
  let lastId: string | null = null;
  /** Where reading starts while nothing was read yet. */
  let beginning = '0-0';
  /** Counts connections: what began on an earlier one ends by itself. */
  let turn = 0;
  const waiting = new Set<() => void>();

  const connections = connect({
    url,
    log,
    onUp: () => void begin(),
    onDown: () => {
      turn += 1;
      isVerified = false;
      readiness.set('redis', false);
    },
  });
  const { commands, tail } = connections;
  const newEpoch = () => randomBytes(6).toString('hex');
  const claim = lua(commands, 'gameopsClaim', claimLua);
  const replace = lua(commands, 'gameopsRenew', renewLua);

  async function begin(): Promise<void> {
    turn += 1;
    const own = turn;
    try {
      await verify();
      if (own !== turn) return;
      isVerified = true;
      readiness.set('redis', true);
      for (const wake of waiting) wake();
      await follow(own);
    } catch (error) {
      if (own !== turn) return;
      log.debug({ reason: error instanceof Error ? error.message : 'unknown' }, 'the bus broke off');
      tail.disconnect(true);
    }
  }

  async function verify(): Promise<void> {
    adopt(String(await claim([keys.epoch], [newEpoch()])));
    const read = lastId;
    if (read === null) return;
    const [same, oldest, newest] = await Promise.all([
      commands.xrange(keys.bus, read, read),
      commands.xrange(keys.bus, '-', '+', 'COUNT', 1),
      commands.xrevrange(keys.bus, '+', '-', 'COUNT', 1),
    ]);
    const memory = { read, has: same.length > 0, oldest: idOf(oldest[0]), newest: idOf(newest[0]) };
    const judged = judgeMemory(memory);
    if (judged === 'lost') await renew();
    if (judged === 'missed') onBreak('missed');
  }

  function adopt(found: string): void {
    if (found === epoch) return;
    const before = epoch;
    epoch = found;
    if (before === '') return;
    log.warn({ before, epoch }, 'redis has forgotten: players begin anew');
    lastId = null;
    beginning = '0-0';
    onBreak('epoch');
  }

  async function renew(): Promise<void> {
    adopt(String(await replace([keys.epoch], [epoch, newEpoch()])));
  }

  async function follow(own: number): Promise<void> {
    let isBehind = true;
    if (lastId === null) beginning = await warmStart();
    let readAt = Number.NEGATIVE_INFINITY;
    while (own === turn) {
      const restMs = readAt + readApartMs - performance.now();
      if (!isBehind && restMs > 1) await sleep(restMs);
      const after = lastId ?? beginning;
      const entries: [string, string[]][] = await read(after, isBehind);
      if (own !== turn) return;
      readAt = performance.now();
      // A renewal meanwhile began the stream anew: this belongs to before.
      if (after === (lastId ?? beginning)) take(entries);
      isBehind = entries.length === readCount;
      if (!isBehind) readiness.set('bus', true);
    }
  }

  /** By the clock of the bus itself. */
  async function warmStart(): Promise<string> {
    const [newest] = await tail.xrevrange(keys.bus, '+', '-', 'COUNT', 1);
    const ms = Number.parseInt(idOf(newest) ?? '0', 10);
    return `${Math.max(0, ms - warmMs)}-0`;
  }

  async function read(after: string, isBehind: boolean): Promise<[string, string[]][]> {
    const reply = isBehind
      ? await tail.xread('COUNT', readCount, 'STREAMS', keys.bus, after)
      : await tail.xread('COUNT', readCount, 'BLOCK', readBlockMs, 'STREAMS', keys.bus, after);
    return reply?.[0]?.[1] ?? [];
  }

  function take(entries: readonly [string, string[]][]): void {
    const known: BusEntry[] = [];
    let isStrange = false;
    for (const [id, fields] of entries) {
      lastId = id;
      const entry = entryOf(fields);
      if (entry === null) continue;
      if (entry.epoch === null || entry.epoch === epoch) known.push(entry);
      else isStrange = true;
    }
    // Once for all of them: after a renewal the whole stream may be of before.
    if (isStrange && isVerified) void again();
    if (known.length > 0) onEntries(known);
  }

  /** Somebody speaks in another epoch. */
  async function again(): Promise<void> {
    await claim([keys.epoch], [newEpoch()]).then(
      (found) => adopt(String(found)),
      () => undefined,
    );
  }

  function script(name: string, text: string): Script {
    const run = lua(commands, name, preamble + text);
    return async (own, args) => {
      if (!isVerified) throw new Error('redis is not there');
      const reply = await run(
        [keys.epoch, keys.bus, keys.offsets, ...own],
        [epoch, keys.room(''), limits.resumeMs, ...args],
      );
      const answer = Array.isArray(reply) ? reply : [reply];
      if (answer[0] !== 'epoch') return answer;
      await again();
      throw new Error('redis has forgotten');
    };
  }

  const publish = script('gameopsPublish', publishLua);
  return {
    epoch: () => epoch,
    whenUp(timeoutMs) {
      if (isVerified) return Promise.resolve(true);
      return new Promise((resolve) => {
        const settle = (isUp: boolean) => {
          waiting.delete(wake);
          clearTimeout(timer);
          resolve(isUp);
        };
        const wake = () => settle(true);
        const timer = setTimeout(() => settle(false), timeoutMs);
        waiting.add(wake);
      });
    },
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
    script,
    renew,
    commands,
    close: () => {
      turn += 1;
      connections.close();
    },
  };
}

/** What a script of ours needs where it has arguments of its own. */
export const ownArg = (n: number) => `ARGV[${sharedArgs + n}]`;

function lua(redis: Redis, name: string, text: string) {
  redis.defineCommand(name, { lua: text });
  const run = (redis as unknown as Record<string, (...args: (string | number)[]) => Promise<unknown>>)[name];
  return (keys: readonly string[], args: readonly (string | number)[]): Promise<unknown> => {
    if (run === undefined) throw new Error(`redis has no ${name}`);
    return run.call(redis, keys.length, ...keys, ...args);
  };
}

/** null for entries of a form this release does not know. Earlier ones of this form named no epoch. */
export function entryOf(fields: readonly string[]): (BusEntry & { epoch: string | null }) | null {
  const { v, e, r, o, b } = recordOf(fields);
  if (v !== '1' || r === undefined || o === undefined || b === undefined) return null;
  return { room: r, offset: Number(o), body: b, epoch: e ?? null };
}

function entriesOf(room: string, entries: readonly [string, string[]][]): BusEntry[] {
  return entries.flatMap(([id, fields]) => {
    const { v, b } = recordOf(fields);
    return v === '1' && b !== undefined ? [{ room, offset: Number.parseInt(id, 10), body: b }] : [];
  });
}

function recordOf(fields: readonly string[]): Partial<Record<string, string>> {
  const record: Partial<Record<string, string>> = {};
  for (let at = 0; at + 1 < fields.length; at += 2) record[fields[at] ?? ''] = fields[at + 1] ?? '';
  return record;
}

function idOf(entry: [string, string[]] | undefined): string | null {
  return entry?.[0] ?? null;
}
