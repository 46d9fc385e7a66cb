/**
 * A player's token: a JWT, HS256 with JWT_SECRET, `sub` the player's id. The CLI mints them for its probes and load
 * players, the server for guests. Promises that no other algorithm is ever accepted, `none` included, and that a
 * token without an end is none.
 */
import { createSigner, createVerifier, TokenError } from 'fast-jwt';
import type { Person } from './protocol.ts';

export type TokenCheck = { ok: true; player: Person } | { ok: false; why: 'expired' | 'bad' };

/** @param lifeMs from now until it expires */
export function mintToken(secret: string, player: Person, lifeMs: number): string {
  return createSigner({ key: secret, algorithm: 'HS256', expiresIn: lifeMs })({
    sub: player.id,
    name: player.name,
  });
}

/** Made once per secret, because setting up the key costs more than a check. */
export function tokenVerifier(secret: string): (token: string) => TokenCheck {
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

function playerOf(claims: unknown): Person | null {
  if (typeof claims !== 'object' || claims === null) return null;
  const { sub, name } = claims as { sub?: unknown; name?: unknown };
  if (typeof sub !== 'string' || sub === '') return null;
  return { id: sub, name: typeof name === 'string' ? name : sub };
}
