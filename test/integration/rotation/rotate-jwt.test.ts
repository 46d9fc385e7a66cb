/**
 * JWT_SECRET is rotated under clients and players that are never idle, and gameops is killed in between: no request fails, no
 * player is disconnected, and the next call continues where a killed one stopped.
 */
import { stat, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { mintToken } from '../../../src/tokens.ts';
import { mendAfterFailure } from '../../support/mend.ts';
import type { Clients } from '../../support/players/clients.ts';
import {
  begins,
  expectDone,
  expectUnnoticed,
  kindsIn,
  openRotationSite,
  type RotationSite,
} from '../../support/site/rotation.ts';

describe('env rotate jwt', () => {
  let rotationSite: RotationSite;
  let first: string;
  let before: string;
  let clients: Clients;
  beforeAll(async () => {
    rotationSite = await openRotationSite('rotate-jwt');
    before = await rotationSite.envText();
    first = (await rotationSite.site.env()).JWT_SECRET ?? '';
    clients = await rotationSite.startClients();
  });
  mendAfterFailure(
    () => rotationSite.site,
    () => rotationSite.rotate('jwt'),
  );

  afterAll(async () => {
    await clients?.stop().catch(() => undefined);
    await rotationSite?.site.close();
  });

  it('shows every step with --plan and changes nothing', async () => {
    const ran = await rotationSite.rotate('jwt', '--plan');
    expectDone(ran);
    expect(kindsIn(ran)).toEqual([
      ...['write-env', 'deploy', 'write-env', 'deploy', 'note', 'wait', 'write-env', 'deploy'],
    ]);
    expect(ran.json?.result).toMatchObject({ what: 'jwt', state: 'planned', done: [], release: 1 });
    expect(await rotationSite.envText()).toBe(before);
  });

  it('is continued after three kills, until only waiting is left, and nobody notices', async () => {
    await rotationSite.killedAt('jwt', begins('await-ready'));
    expect(await rotationSite.site.env()).toMatchObject({
      JWT_SECRET: first,
      JWT_SECRET_NEXT: expect.any(String),
    });
    await rotationSite.killedAt('jwt', (event) => event.type === 'step-done' && event.step.kind === 'commit');
    // The second deploy: the new key signs.
    let drains = 0;
    await rotationSite.killedAt('jwt', (event) => begins('drain')(event) && ++drains === 2);
    const ran = await rotationSite.rotate('jwt');
    expectDone(ran);
    expect(ran.json?.result).toMatchObject({ state: 'waiting', keys: { next: null } });
    expect(Date.parse(ran.json?.result.until)).toBeGreaterThan(Date.now() + 11 * 3_600_000);
    await expectUnnoticed(clients, 2);
  });

  it('writes the new key to .env, keeps the old one accepted, and keeps comments, order and mode', async () => {
    const env = await rotationSite.site.env();
    expect(env).toMatchObject({ JWT_SECRET_PREVIOUS: first });
    expect(env.JWT_SECRET).not.toBe(first);
    const without = (text: string) =>
      text
        .split('\n')
        .filter((line) => !line.startsWith('JWT_SECRET'))
        .join('\n');
    expect(without(await rotationSite.envText())).toBe(without(before));
    expect((await stat(rotationSite.envPath)).mode & 0o777).toBe(0o600);
    expect((await rotationSite.run('env', 'check', '--strict')).exitCode).toBe(0);
  });

  it('does nothing when it is called again while tokens of the old key are valid', async () => {
    const ran = await rotationSite.rotate('jwt');
    expect(ran.json?.result).toMatchObject({ state: 'waiting', done: [] });
  });

  it('lets a rollback start the earlier release with the keys that players hold tokens of', async () => {
    expectDone(await rotationSite.run('rollback'));
    await expectUnnoticed(clients, 1);
    expectDone(await rotationSite.run('deploy', '--again', '--watch', '1s'));
    await clients.stop();
  });

  it('removes the old key with --now, unnoticed by players who came since, and then refuses tokens of it', async () => {
    clients = await rotationSite.startClients();
    const ran = await rotationSite.rotate('jwt', '--now');
    expectDone(ran);
    expect(ran.json?.result).toMatchObject({ state: 'done', left: [], keys: { next: null, previous: null } });
    await expectUnnoticed(clients, 1);
    await clients.stop();
    const ask = async (secret: string) =>
      fetch(new URL('/api/discoveries', await rotationSite.site.url()), {
        method: 'POST',
        headers: {
          authorization: `Bearer ${mintToken(secret, { id: 'ada', name: 'Ada' }, 60_000)}`,
          'content-type': 'application/json',
          'idempotency-key': `rotate-${Math.random()}`,
        },
        body: JSON.stringify({ region: 'r1-1', x: 1, y: 1 }),
      }).then(({ status }) => status);
    expect(await ask(first)).toBe(401);
    expect(await ask((await rotationSite.site.env()).JWT_SECRET ?? '')).toBeLessThan(300);
  });

  it('refuses to work with the .env of an operator who missed the rotation', async () => {
    const now = await rotationSite.envText();
    await writeFile(rotationSite.envPath, before);
    const ran = await rotationSite.rotate('jwt');
    await writeFile(rotationSite.envPath, now);
    expect([ran.exitCode, ran.json?.error?.code]).toEqual([3, 'ROTATION_REFUSED']);
  });

  it('refuses to change a key that comes from the environment instead of .env', async () => {
    const { JWT_SECRET = '' } = await rotationSite.site.env();
    const ran = await rotationSite.site.run(['env', 'rotate', 'jwt'], { env: { JWT_SECRET } });
    expect([ran.exitCode, ran.json?.error?.code]).toEqual([3, 'ROTATION_REFUSED']);
    expect(ran.json?.error?.message).toContain('the environment');
  });

  it('shows no secret, old or new, in any output or in the journal', async () => {
    expect(await rotationSite.leaked()).toEqual([]);
  });
});
