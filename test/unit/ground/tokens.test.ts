/** Tokens and the keys that count: which ones open, which ones say "ask for another one", and which ones open nothing. */
import { createSigner } from 'fast-jwt';
import { expect, test } from 'vitest';
import { keyIdOf, mintToken, tokenVerifier } from '../../../src/tokens.ts';

const [a, b, c] = ['a', 'b', 'c'].map((letter) => letter.repeat(43)) as [string, string, string];
const ada = { id: 'ada', name: 'Ada' };
const good = { ok: true, player: ada };
const hourMs = 3_600_000;

test('tokens of the present, the next and the previous key are accepted; tokens of another key are not', () => {
  const verify = tokenVerifier({ JWT_SECRET: a, JWT_SECRET_NEXT: b, JWT_SECRET_PREVIOUS: c });
  for (const secret of [a, b, c]) expect(verify(mintToken(secret, ada, hourMs))).toEqual(good);
  expect(verify(mintToken('d'.repeat(43), ada, hourMs))).toEqual({ ok: false, why: 'bad' });
  expect(tokenVerifier({ JWT_SECRET: a })(mintToken(b, ada, hourMs))).toEqual({ ok: false, why: 'bad' });
});

test('a token names its key, without revealing the key', () => {
  const header = JSON.parse(
    Buffer.from(mintToken(a, ada, hourMs).split('.')[0] ?? '', 'base64url').toString(),
  );
  expect(header).toMatchObject({ alg: 'HS256', kid: keyIdOf(a) });
  expect(keyIdOf(a)).not.toBe(keyIdOf(b));
  expect(a).not.toContain(keyIdOf(a));
});

test('a token without the name of a known key is tried with every key', () => {
  const verify = tokenVerifier({ JWT_SECRET: a, JWT_SECRET_PREVIOUS: b });
  for (const options of [{}, { kid: 'login-service-1' }]) {
    const sign = createSigner({ key: b, algorithm: 'HS256', expiresIn: hourMs, ...options });
    expect(verify(sign({ sub: 'ada', name: 'Ada' }))).toEqual(good);
  }
});

test('a token that names a key but was signed with another one is refused', () => {
  const forged = createSigner({
    key: 'x'.repeat(43),
    algorithm: 'HS256',
    expiresIn: hourMs,
    kid: keyIdOf(a),
  });
  expect(tokenVerifier({ JWT_SECRET: a })(forged({ sub: 'ada' }))).toEqual({ ok: false, why: 'bad' });
});

test('an expired token differs from a bad one, also when its key is gone, so that its player asks for a new one', () => {
  const old = mintToken(b, ada, -hourMs);
  expect(tokenVerifier({ JWT_SECRET: a, JWT_SECRET_PREVIOUS: b })(old)).toEqual({
    ok: false,
    why: 'expired',
  });
  expect(tokenVerifier({ JWT_SECRET: a })(old)).toEqual({ ok: false, why: 'expired' });
});

test('other algorithms, tokens without an end or a player, and texts that are not tokens are refused', () => {
  const verify = tokenVerifier({ JWT_SECRET: a, JWT_SECRET_NEXT: b });
  const none = createSigner({ algorithm: 'none', expiresIn: hourMs })({ sub: 'ada' });
  const endless = createSigner({ key: a, algorithm: 'HS256' })({ sub: 'ada' });
  const nobody = createSigner({ key: a, algorithm: 'HS256', expiresIn: hourMs })({ name: 'Ada' });
  const longer = createSigner({ key: a, algorithm: 'HS512', expiresIn: hourMs })({ sub: 'ada' });
  for (const token of [none, endless, nobody, longer, '', 'a.b.c', '....', `${'x'.repeat(5_000)}.y.z`])
    expect(verify(token)).toEqual({ ok: false, why: 'bad' });
});
