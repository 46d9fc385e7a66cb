/**
 * How often somebody may try: by address and by name, counted in Redis for all replicas. While Redis is away nobody
 * is refused for it; the bound on hashes at once still holds.
 */

import rateLimit from '@fastify/rate-limit';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Redis } from 'ioredis';
import { refuse } from './input.ts';

const minuteMs = 60_000;

export const attempts = {
  register: { max: 20, timeWindow: 10 * minuteMs },
  login: { max: 30, timeWindow: minuteMs },
  /** Of one name, wherever they come from. */
  name: { max: 10, timeWindow: 5 * minuteMs },
} as const;

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

/** Nginx sets the header, whatever a client says; the port itself is reached on the project's network only. */
function addressOf(request: FastifyRequest): string {
  const named = request.headers['x-real-ip'];
  return typeof named === 'string' && named !== '' ? named : request.ip;
}

export function tooMany(waitMs: number): Error {
  const seconds = Math.max(1, Math.ceil(waitMs / 1_000));
  return refuse(429, 'TOO_MANY', `Too many attempts; try again in ${seconds} s.`);
}
