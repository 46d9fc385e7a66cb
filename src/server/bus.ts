/**
 * Redis: what is announced to rooms, who was let go by a drain and is not back, and how many players are here.
 * Promises that a lost Redis never ends the process nor queues without bound: a command then fails at once.
 * Every entry is versioned, because an old and a new release read each other's.
 */
import { Redis } from 'ioredis';
import type { Logger } from 'pino';
import { redisKeys } from '../contract.ts';
import type { RoomMessage } from '../protocol.ts';
import type { Readiness } from './readiness.ts';
import type { Identity } from './settings.ts';

const entryVersion = 1;
const countForSeconds = 10;
const closedForSeconds = 3_600;

export interface Bus {
  /** Rejects when Redis does not take it. */
  announce(message: RoomMessage): Promise<void>;
  /** Players that a drain is about to close. Never rejects: a drain goes on without its count. */
  recordClosed(players: readonly string[]): Promise<void>;
  /** A player who joins is back, whichever release let him go. Never rejects. */
  recordBack(player: string): Promise<void>;
  /** Publishes how many are connected here; the key dies with the process. Never rejects. */
  recordCount(players: number): Promise<void>;
  close(): Promise<void>;
}

export interface BusRequest {
  url: string;
  identity: Identity;
  readiness: Readiness;
  log: Logger;
  onMessage: (message: RoomMessage) => void;
}

export function openBus({ url, identity, readiness, log, onMessage }: BusRequest): Bus {
  const keys = redisKeys(identity.project);
  const { release, replica } = identity;
  const isUp = { commands: false, subscriber: false };
  const connect = (name: keyof typeof isUp) => {
    const redis = new Redis(url, options(name));
    const note = (up: boolean) => {
      if (isUp[name] !== up)
        log[up ? 'info' : 'warn']({ connection: name }, up ? 'redis connected' : 'redis lost');
      isUp[name] = up;
      readiness.set('redis', isUp.commands && isUp.subscriber);
    };
    redis.on('close', () => note(false));
    // Without a listener every failed attempt is an uncaught 'error'; the close that follows says enough.
    redis.on('error', (error) => log.debug({ connection: name, reason: error.message }, 'redis error'));
    return { redis, note };
  };

  const commands = connect('commands');
  commands.redis.on('ready', () => commands.note(true));
  const subscriber = connect('subscriber');
  subscriber.redis.on('ready', () => {
    subscriber.redis.subscribe(keys.broadcast).then(
      () => subscriber.note(true),
      () => subscriber.redis.disconnect(true),
    );
  });
  subscriber.redis.on('message', (_channel, text) => {
    const message = readEntry(text);
    if (message !== null) onMessage(message);
  });

  const quietly = async (act: Promise<unknown>) => {
    await act.catch((error: Error) => log.debug({ reason: error.message }, 'redis command failed'));
  };
  return {
    async announce(message) {
      await commands.redis.publish(keys.broadcast, JSON.stringify({ v: entryVersion, message }));
    },
    recordClosed: (players) =>
      quietly(
        commands.redis
          .multi()
          .zadd(keys.closed, ...players.flatMap((player) => [release, player]))
          .expire(keys.closed, closedForSeconds)
          .incrby(keys.closedCount(release), players.length)
          .expire(keys.closedCount(release), closedForSeconds)
          .exec(),
      ),
    recordBack: (player) => quietly(commands.redis.zrem(keys.closed, player)),
    recordCount: (players) =>
      quietly(commands.redis.set(keys.players(release, replica), players, 'EX', countForSeconds)),
    async close() {
      await quietly(commands.redis.del(keys.players(release, replica)));
      for (const { redis } of [commands, subscriber]) redis.disconnect();
    },
  };
}

function options(name: string) {
  return {
    connectionName: `gameops-${name}`,
    enableAutoPipelining: true,
    // Bounded in time and space: what can't be said now is said to have failed, not piled up until Redis is back.
    enableOfflineQueue: false,
    maxRetriesPerRequest: 1,
    autoResubscribe: false,
    connectTimeout: 2_000,
    commandTimeout: 2_000,
    retryStrategy: (attempt: number) => Math.min(50 * 2 ** Math.min(attempt, 6), 1_000),
  };
}

/** null for entries of a form this release does not know. */
function readEntry(text: string): RoomMessage | null {
  try {
    const entry: unknown = JSON.parse(text);
    if (typeof entry !== 'object' || entry === null) return null;
    const { v, message } = entry as { v?: unknown; message?: RoomMessage };
    return v === entryVersion && typeof message?.room === 'string' ? message : null;
  } catch {
    return null;
  }
}
