/**
 * How often somebody may ask: by address, by name or by player, counted in Redis for all replicas. While Redis is away
 * nobody is refused because of these limits. The bound on password hashes at once still holds.
 */
import rateLimit from '@fastify/rate-limit';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Redis } from 'ioredis';
import { refuse } from './input.ts';

export interface Limit {
  max: number;
  /** ms, from the first request on. */
  timeWindow: number;
  /** By default requests are counted by address. */
  by?: 'player';
}

const minuteMs = 60_000;

export const attempts = {
  register: { max: 20, timeWindow: 10 * minuteMs },
  login: { max: 30, timeWindow: minuteMs },
  /** Logins with one name, from whatever address. */
  name: { max: 10, timeWindow: 5 * minuteMs },
  /** Nothing can be guessed by coming as a guest, and a whole school may share one address. */
  guest: { max: 1_200, timeWindow: minuteMs },
  logout: { max: 120, timeWindow: minuteMs },
  /** A discovery is told to a whole region: one player must not fill it at once. */
  explore: { max: 60, timeWindow: 10_000, by: 'player' },
} as const satisfies Record<string, Limit>;

export async function addLimits(app: FastifyInstance, redis: Redis, prefix: string): Promise<void> {
  await app.register(rateLimit, {
    global: false,
    redis,
    nameSpace: prefix,
    skipOnError: true,
    keyGenerator: addressOf,
    errorResponseBuilder: (_request, { ttl }) => tooMany(ttl),
  });
}

/** Nginx sets the header, whatever a client sends. The port and the Unix socket are reachable within the project only. */
function addressOf(request: FastifyRequest): string {
  const named = request.headers['x-real-ip'];
  return typeof named === 'string' && named !== '' ? named : (request.ip ?? 'local');
}

export function tooMany(waitMs: number): Error {
  const seconds = Math.max(1, Math.ceil(waitMs / 1_000));
  return refuse(429, 'TOO_MANY', `Too many requests. Try again in ${seconds} s.`);
}
