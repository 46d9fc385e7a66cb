/**
 * Counts players through Redis, the one channel that every replica on every host reaches.
 * Promises never to throw into a deploy and never to wait long: a number that can't be known is null.
 */
import { Redis } from 'ioredis';
import {
  accessoryHost,
  type HandoverOrder,
  type HandoverProgress,
  namesOf,
  port,
  redisKeys,
} from '../contract.ts';
import type { Engine } from '../engine/port.ts';
import type { ServerSettings } from '../env/settings.ts';
import { isSameHost } from '../hosts.ts';
import type { ReleaseId } from '../release/model.ts';

export interface RedisEndpoint {
  host: string;
  port: number;
  username: string;
  password: string;
  database: number;
  tls: boolean;
  project: string;
}

/** Where this process reaches the Redis that game servers reach as REDIS_URL. @throws ENGINE_REMOTE */
export async function redisEndpoint(
  engine: Engine,
  project: string,
  settings: Pick<ServerSettings, 'REDIS_URL'>,
): Promise<RedisEndpoint> {
  const url = new URL(settings.REDIS_URL);
  const reached = isSameHost(url.hostname, accessoryHost.redis)
    ? await engine.dial(project, namesOf(project).redis, port.redis)
    : { host: url.hostname.replace(/^\[|\]$/g, ''), port: Number(url.port || port.redis) };
  return {
    ...reached,
    username: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    database: Number(url.pathname.slice(1)) || 0,
    tls: url.protocol === 'rediss:',
    project,
  };
}

export interface Closed {
  /** Sockets that the draining release closed. */
  sockets: number;
  /** Players among them that have not come back. */
  missing: number;
}

export interface HandedOver extends HandoverProgress {
  /** How many replicas have reported. */
  replicas: number;
}

export interface Players {
  /** Players per release; null when no replica of the release has reported before its key expired. */
  online(replicas: ReadonlyMap<ReleaseId, readonly number[]>): Promise<Map<ReleaseId, number | null>>;
  /** Counted since the release began to drain; null when Redis did not answer. */
  closed(release: ReleaseId): Promise<Closed | null>;
  /**
   * Leaves an order for replicas of a release, for at most `forMs`; null takes back whatever was ordered.
   * @returns false when Redis could not be told
   */
  order(release: ReleaseId, order: HandoverOrder | null, forMs: number): Promise<boolean>;
  /** Summed over the replicas that have reported since the order; null when none has. */
  handedOver(release: ReleaseId, replicas: readonly number[]): Promise<HandedOver | null>;
  close(): void;
}

/** Connects on the first question and, after a failure, on the next one. */
export function openPlayers(endpoint: RedisEndpoint): Players {
  const keys = redisKeys(endpoint.project);
  const redis = new Redis({
    host: endpoint.host,
    port: endpoint.port,
    db: endpoint.database,
    connectionName: 'gameops',
    ...(endpoint.username ? { username: endpoint.username } : {}),
    ...(endpoint.password ? { password: endpoint.password } : {}),
    ...(endpoint.tls ? { tls: {} } : {}),
    lazyConnect: true,
    connectTimeout: 2_000,
    commandTimeout: 2_000,
    maxRetriesPerRequest: 0,
    retryStrategy: () => null,
  });
  // Each question meets the failure itself; without a listener ioredis prints it.
  redis.on('error', () => {});

  let connecting: Promise<void> | null = null;
  const connected = async (): Promise<void> => {
    if (redis.status === 'ready') return;
    connecting ??= redis.connect().finally(() => {
      connecting = null;
    });
    await connecting;
  };

  return {
    async online(replicas) {
      const wanted = [...replicas].flatMap(([release, ns]) => ns.map((n) => ({ release, n })));
      const counts = new Map<ReleaseId, number | null>(
        [...replicas.keys()].map((release) => [release, null]),
      );
      if (wanted.length === 0) return counts;
      try {
        await connected();
        const values = await redis.mget(wanted.map(({ release, n }) => keys.players(release, n)));
        wanted.forEach(({ release }, at) => {
          const value = values[at] ?? null;
          if (value !== null) counts.set(release, (counts.get(release) ?? 0) + Number(value));
        });
        return counts;
      } catch {
        return new Map([...replicas.keys()].map((release) => [release, null]));
      }
    },

    async closed(release) {
      try {
        await connected();
        const [sockets, missing] = await Promise.all([
          redis.get(keys.closedCount(release)),
          redis.zcount(keys.closed, release, release),
        ]);
        return { sockets: Number(sockets ?? 0), missing };
      } catch {
        return null;
      }
    },

    async order(release, order, forMs) {
      try {
        await connected();
        // Counts for an older order do not answer this one.
        const asked = redis.multi().del(keys.handoverProgress(release));
        if (order === null) asked.del(keys.handover(release));
        else asked.set(keys.handover(release), JSON.stringify(order), 'PX', Math.ceil(forMs));
        return (await asked.exec()) !== null;
      } catch {
        return false;
      }
    },

    async handedOver(release, replicas) {
      try {
        await connected();
        if (replicas.length === 0) return null;
        const told = await redis.hmget(keys.handoverProgress(release), ...replicas.map(String));
        return sumOf(told);
      } catch {
        return null;
      }
    },

    close() {
      redis.disconnect();
    },
  };
}

/** Replicas of another version of gameops may have written it; an unknown form counts as no report. */
function sumOf(told: readonly (string | null)[]): HandedOver | null {
  const sum: HandedOver = { v: 1, replicas: 0, hinted: 0, moved: 0, closed: 0, gone: 0, left: 0 };
  for (const text of told) {
    const progress = parsed(text);
    if (progress?.v !== 1) continue;
    sum.replicas += 1;
    for (const key of ['hinted', 'moved', 'closed', 'gone', 'left'] as const) sum[key] += progress[key];
  }
  return sum.replicas === 0 ? null : sum;
}

function parsed(text: string | null): HandoverProgress | null {
  try {
    return text === null ? null : (JSON.parse(text) as HandoverProgress);
  } catch {
    return null;
  }
}
