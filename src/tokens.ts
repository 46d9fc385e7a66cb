/**
 * A player's token: a JWT, HS256 with JWT_SECRET, `sub` the player's id, `kid` the key it was signed with. The CLI
 * mints them for its probes and load players, the server for guests and accounts. Promises that no other algorithm is
 * ever accepted, `none` included, and that a token which never expires is refused.
 *
 * Several keys count while the key is rotated (`gameops env rotate jwt`): one signs, all verify. One verifier for HTTP
 * and for sockets, because a function that chooses the key is called differently by either side of @fastify/jwt, and
 * the socket's side then refuses the old key.
 */
import { createHmac } from 'node:crypto';
import { createDecoder, createSigner, createVerifier, TokenError } from 'fast-jwt';
import { tokenKeyNames } from './contract.ts';
import type { Person } from './protocol.ts';

export type TokenCheck = { ok: true; player: Person } | { ok: false; why: 'expired' | 'bad' };

/** How long the server's tokens are valid. A rotated key is kept for the longest of these times. */
export const tokenLifeMs = { guest: 12 * 3_600_000, account: 15 * 60_000 } as const;

/** A public name for a key: made from the key, which can't be found from it. */
export function keyIdOf(secret: string): string {
  return createHmac('sha256', secret).update('gameops key id').digest('base64url').slice(0, 8);
}

/** @param lifeMs from now until it expires */
export function mintToken(secret: string, player: Person, lifeMs: number): string {
  const sign = createSigner({ key: secret, algorithm: 'HS256', expiresIn: lifeMs, kid: keyIdOf(secret) });
  return sign({ sub: player.id, name: player.name });
}

type Settings = Readonly<Partial<Record<(typeof tokenKeyNames)[number], string | undefined>>>;

/** Made once, because preparing a key costs more than a check. */
export function tokenVerifier(settings: Settings): (token: string) => TokenCheck {
  const secrets = tokenKeyNames.map((name) => settings[name]).filter((secret) => secret !== undefined);
  const checks = new Map(secrets.map((secret) => [keyIdOf(secret), checkWith(secret)]));
  return (token) => {
    const { keyId, isOver } = readUnchecked(token);
    const named = checks.get(keyId ?? '');
    // Older tokens have no key id, and tokens of another login service have an id of their own.
    for (const check of named ? [named] : checks.values()) {
      const checked = check(token);
      if (checked.ok || checked.why === 'expired') return checked;
    }
    // Its key may be gone, too. The token is refused either way; a client that is told "expired" asks for a new one.
    return { ok: false, why: isOver ? 'expired' : 'bad' };
  };
}

function checkWith(secret: string): (token: string) => TokenCheck {
  const verify = createVerifier({ key: secret, algorithms: ['HS256'], requiredClaims: ['exp', 'sub'] });
  return (token) => {
    try {
      const claims: unknown = verify(token);
      const player = playerOf(claims);
      return player === null ? { ok: false, why: 'bad' } : { ok: true, player };
    } catch (error) {
      const isExpired = error instanceof TokenError && error.code === TokenError.codes.expired;
      return { ok: false, why: isExpired ? 'expired' : 'bad' };
    }
  };
}

const decode = createDecoder({ complete: true });

/** What the token says about itself, true or not. */
function readUnchecked(token: string): { keyId: string | null; isOver: boolean } {
  try {
    const { header, payload } = decode(token) as { header?: { kid?: unknown }; payload?: { exp?: unknown } };
    const end = payload?.exp;
    return {
      keyId: typeof header?.kid === 'string' ? header.kid : null,
      isOver: typeof end === 'number' && end * 1_000 < Date.now(),
    };
  } catch {
    return { keyId: null, isOver: false };
  }
}

function playerOf(claims: unknown): Person | null {
  if (typeof claims !== 'object' || claims === null) return null;
  const { sub, name } = claims as { sub?: unknown; name?: unknown };
  if (typeof sub !== 'string' || sub === '') return null;
  return { id: sub, name: typeof name === 'string' ? name : sub };
}
