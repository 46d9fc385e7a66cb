/** What HTTP callers send, checked when it comes in. Promises that whatever it returns may be stored as it is. */
import * as z from 'zod/mini';
import { isRegion, type Person, regionPattern, world } from '../../protocol.ts';
import type { TokenCheck } from '../../tokens.ts';

/** Fastify's error handler turns it into this status. */
export function refuse(statusCode: number, code: string, message: string): Error {
  return Object.assign(new Error(message), { statusCode, code });
}

const short = (max: number) => z.string().check(z.trim(), z.minLength(1), z.maxLength(max));
const tileNumber = () => z.int().check(z.gte(0), z.lt(world.tiles));
const region = () => z.string().check(z.regex(regionPattern), z.refine(isRegion));
const password = () => z.string().check(z.minLength(8), z.maxLength(200));

/** Letters of any script, digits, and little else: a name must not pretend to be something that the game says. */
const playerName = () =>
  z.string().check(z.normalize('NFKC'), z.trim(), z.regex(/^[\p{L}\p{N}][\p{L}\p{M}\p{N} _.-]{1,23}$/u));

/** The names of the game itself and of guests without a name. */
const ownNames: ReadonlySet<string> = new Set(['server', 'guest']);
const accountName = () => playerName().check(z.refine((name) => !ownNames.has(name.toLowerCase())));

/** No account's name can hold this, so a guest is never taken for the player whose name they chose. */
export const guestName = (chosen: string | undefined) =>
  chosen === undefined ? 'Guest' : `${chosen} (guest)`;

export const body = {
  guest: z.object({ name: z.optional(playerName()) }),
  register: z.object({ name: accountName(), password: password() }),
  login: z.object({ name: short(100), password: z.string().check(z.maxLength(200)) }),
  refresh: z.object({ refreshToken: z.string().check(z.minLength(1), z.maxLength(200)) }),
  explore: z.object({ region: region(), x: tileNumber(), y: tileNumber() }),
};

export const idempotencyKey = z.string().check(z.regex(/^[\w.:-]{8,100}$/));
export const oneRegion = region();

export function readKey(key: unknown): string {
  const checked = idempotencyKey.safeParse(key);
  if (checked.success) return checked.data;
  throw refuse(
    400,
    'NO_IDEMPOTENCY_KEY',
    'Send a header idempotency-key of 8 to 100 letters, digits, underscores, dots, colons or dashes.',
  );
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

export function read<T>(shape: z.ZodMiniType<T>, value: unknown): T {
  const parsed = shape.safeParse(value);
  if (parsed.success) return parsed.data;
  const keys = parsed.error.issues.map((issue) => issue.path.join('.') || 'body');
  throw refuse(400, 'BAD_REQUEST', `These values are not valid: ${[...new Set(keys)].join(', ')}.`);
}
