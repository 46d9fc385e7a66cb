import { expect, test } from 'vitest';
import type { Context, EnvFile } from '../../../src/operations/context.ts';
import {
  isRekeyed,
  revivedCandidate,
  settingsOf,
  valuesFor,
} from '../../../src/operations/release-inputs.ts';
import type { RunningAct } from '../../../src/runner/act.ts';
import { settingsFor } from '../../../src/runner/act.ts';
import { fleetSpec } from '../../../src/runner/fleet.ts';
import { memoryEngine } from '../../support/memory/memory-engine.ts';
import { release } from '../../support/memory/worlds.ts';

const fingerprintKey = 'a key of fingerprints';
const keys = { fingerprintKey, releases: [] };
const named = { ...release(41, 'candidate'), plain: {}, fingerprints: { JWT_SECRET: '' } };

/** A running act whose .env says this today, in an act whose goal is the release or not. */
function actFor(
  today: string,
  isGoal: boolean,
  engine = memoryEngine({ images: { 'sha256:41': {} } }).engine,
) {
  const told: string[] = [];
  return {
    told,
    engine,
    act: {
      project: 'arena',
      outside: { engine, inputs: { settings: () => ({ JWT_SECRET: today }) } },
      record: { fingerprintKey, intent: isGoal ? { release: 41, stage: 'open' } : null },
      emit: (event: { message: string }) => told.push(event.message),
    } as unknown as RunningAct,
  };
}

const opened = (secret: string) => revivedCandidate(keys, named, { JWT_SECRET: secret });

async function started(secret: string) {
  const first = actFor(secret, true);
  await first.engine.ensureNetwork('arena');
  const settings = await settingsFor(first.act, opened(secret));
  await first.engine.startFleet(fleetSpec('arena', named, [1], settings));
  return first;
}

test('the settings that a release was opened with are put where its servers read them', async () => {
  const { engine } = await started('first');
  const file = (await engine.fleetFiles('arena', 41)).get('settings.json');
  expect(Buffer.from(file ?? []).toString()).toBe('{"JWT_SECRET":"first"}');
});

test('an act that is resumed with another .env gives all replicas the secrets of the first ones, and warns', async () => {
  const { engine } = await started('first');
  const { act: second, told } = actFor('second', true, engine);
  expect(await settingsFor(second, opened('first'))).toEqual({ JWT_SECRET: 'first' });
  expect(told.join()).toMatch(
    /release 41 keeps the settings that it was opened with. Changed since then: JWT_SECRET/,
  );
  expect(told.join()).not.toMatch(/second|first\b/);
});

test('an act is refused when its settings are lost; the error names the keys, and no other values are used', async () => {
  const { act: own } = actFor('second', true);
  const refused = settingsFor(own, opened('first'));
  await expect(refused).rejects.toMatchObject({ code: 'SETTINGS_CHANGED', facts: { keys: ['JWT_SECRET'] } });
});

test("a rollback uses today's secrets, with which it was opened, not those that the release had before", async () => {
  const { engine } = await started('first');
  const { act: second } = actFor('second', true, engine);
  expect(await settingsFor(second, opened('second'))).toEqual({ JWT_SECRET: 'second' });
});

test('going back is never refused: a release that only comes back takes whatever settings there are', async () => {
  const { act: own } = actFor('second', false);
  expect(await settingsFor(own, opened('first'))).toEqual({ JWT_SECRET: 'second' });
});

test("an older release with another role on record gets today's role together with today's password", () => {
  const before = {
    ...named,
    plain: { DB_USER: 'arena', LOG_LEVEL: 'debug' },
    fingerprints: { DB_USER: '', DB_PASSWORD: '', LOG_LEVEL: '' },
  };
  const today = { DB_USER: 'arena_alternate', DB_PASSWORD: 'of-today', LOG_LEVEL: 'info' };
  expect(settingsOf(before, today)).toEqual({ ...today, LOG_LEVEL: 'debug' });
  expect(settingsOf(before, { DB_PASSWORD: 'of-today' })).toMatchObject({ DB_USER: 'arena' });
});

test('a role in gameops.yaml overrides the role in .env, also for a release that comes back', () => {
  const back = {
    ...named,
    plain: { DB_USER: 'then' },
    fingerprints: { DB_USER: '', DB_PASSWORD: '', PORT: '' },
  };
  const env = { values: { DB_USER: 'of-env', DB_PASSWORD: 'of-today' } } as unknown as EnvFile;
  const context = {
    config: { server: { env: { DB_USER: 'of-yaml', LOG_LEVEL: 'info' } } },
  } as unknown as Context;
  const given = settingsOf(back, valuesFor(context, env, back));
  expect(given).toEqual({ DB_USER: 'of-yaml', DB_PASSWORD: 'of-today', PORT: '3000' });
});

test('a release that a rotation left behind differs from the live one in secrets only, and is recognised by that', () => {
  const made = (id: number, plain: Record<string, string>, secrets: Record<string, string>) =>
    release(id, 'superseded', 2, { image: 'sha256:same', plain, fingerprints: { ...plain, ...secrets } });
  const live = made(5, { LOG_LEVEL: 'info' }, { DB_USER: 'b', DB_PASSWORD: '2', JWT_SECRET: 'x' });
  const before = { DB_USER: 'a', DB_PASSWORD: '1', JWT_SECRET: 'x', JWT_SECRET_NEXT: 'y' };
  expect(isRekeyed(made(4, { LOG_LEVEL: 'info' }, before), live)).toBe(true);
  // Of before there were companions: the role is among its plain settings.
  const { DB_USER, ...secrets } = before;
  expect(isRekeyed(made(4, { LOG_LEVEL: 'info', DB_USER }, secrets), live)).toBe(true);
  expect(isRekeyed(made(4, { LOG_LEVEL: 'debug' }, before), live)).toBe(false);
  expect(isRekeyed(made(4, { LOG_LEVEL: 'info' }, { ...before, STRIPE_KEY: 'z' }), live)).toBe(false);
  expect(isRekeyed({ ...made(4, { LOG_LEVEL: 'info' }, before), image: 'sha256:other' }, live)).toBe(false);
  expect(isRekeyed({ ...made(4, { LOG_LEVEL: 'info' }, before), replicas: 3 }, live)).toBe(false);
  // Asked for again, it is another fleet of the same: the one before is the one before.
  expect(isRekeyed({ ...live, id: 4 }, live)).toBe(false);
});
