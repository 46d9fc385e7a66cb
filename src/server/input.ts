/** What HTTP callers send, checked at the edge. Promises that whatever it returns may be stored as it is. */
import * as z from 'zod/mini';
import { isRegion, type Person, world } from '../protocol.ts';
import type { TokenCheck } from '../tokens.ts';

/** Fastify's error handler turns it into this status. */
function refuse(statusCode: number, code: string, message: string): Error {
  return Object.assign(new Error(message), { statusCode, code });
}

const short = (max: number) => z.string().check(z.trim(), z.minLength(1), z.maxLength(max));
const session = z.object({ name: z._default(short(40), 'Guest') });
const tileNumber = () => z.int().check(z.gte(0), z.lt(world.tiles));
const exploration = z.object({
  region: z.string().check(z.refine(isRegion)),
  x: tileNumber(),
  y: tileNumber(),
});
const idempotencyKey = z.string().check(z.regex(/^[\w.:-]{8,100}$/));

export function readSession(body: unknown): { name: string } {
  return read(session, body ?? {});
}

export function readExploration(body: unknown, key: unknown) {
  const checked = idempotencyKey.safeParse(key);
  if (!checked.success) {
    throw refuse(
      400,
      'NO_IDEMPOTENCY_KEY',
      'Send an idempotency-key header of 8 to 100 letters, digits, dots, colons or dashes.',
    );
  }
  const { region, x, y } = read(exploration, body);
  return { region, tile: { x, y }, key: checked.data };
}

export function readBearer(header: string | undefined, verify: (token: string) => TokenCheck): Person {
  const token = /^Bearer (\S+)$/.exec(header ?? '')?.[1];
  const check = token === undefined ? null : verify(token);
  if (check?.ok) return check.player;
  const isExpired = check !== null && !check.ok && check.why === 'expired';
  throw refuse(
    401,
    isExpired ? 'TOKEN_EXPIRED' : 'TOKEN_MISSING_OR_BAD',
    'Send a valid token; POST /api/session gives one.',
  );
}

function read<T>(schema: z.ZodMiniType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const keys = parsed.error.issues.map((issue) => issue.path.join('.') || 'body');
  throw refuse(400, 'BAD_REQUEST', `Not as expected: ${[...new Set(keys)].join(', ')}.`);
}
