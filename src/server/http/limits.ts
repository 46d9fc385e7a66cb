/**
 * How often somebody may ask: by address, by name or by player, counted in Redis for all replicas. While Redis is away
 * nobody is refused for it; the bound on hashes at once still holds.
 */
import rateLimit from '@fastify/rate-limit';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Redis } from 'ioredis';
import { refuse } from './input.ts';

export interface Limit {
  max: number;
  /** ms, from the first one on. */
  timeWindow: number;
  /** Default: the address. */
  by?: 'player';
}

const minuteMs = 60_000;

export const attempts = {
  register: { max: 20, timeWindow: 10 * minuteMs },
  login: { max: 30, timeWindow: minuteMs },
  /** Of one name, wherever they come from. */
  name: { max: 10, timeWindow: 5 * minuteMs },
  /** Nobody guesses with these; a whole school may sit behind one address. */
  session: { max: 1_200, timeWindow: minuteMs },
  logout: { max: 120, timeWindow: minuteMs },
  /** What is found is told to a whole region: nobody may fill it at once. */
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

/** Nginx sets the header, whatever a client says; port and Unix socket are reached within the project only. */
function addressOf(request: FastifyRequest): string {
  const named = request.headers['x-real-ip'];
  return typeof named === 'string' && named !== '' ? named : (request.ip ?? 'local');
}

export function tooMany(waitMs: number): Error {
  const seconds = Math.max(1, Math.ceil(waitMs / 1_000));
  return refuse(429, 'TOO_MANY', `Too many; try again in ${seconds} s.`);
}
