import { expect, test } from 'vitest';
import { revivedCandidate } from '../../src/runner/candidate.ts';
import type { Session } from '../../src/runner/session.ts';
import { ensureSettings } from '../../src/runner/settings.ts';
import { memoryEngine } from '../support/memory-engine.ts';
import { release } from '../support/worlds.ts';

const fingerprintKey = 'a key of fingerprints';
const keys = { fingerprintKey, releases: [] };
const named = { ...release(41, 'candidate'), plain: {}, fingerprints: { JWT_SECRET: '' } };

/** A session whose .env says this today, in an act whose goal is the release or not. */
async function session(today: string, isGoal: boolean, engine = memoryEngine().engine) {
  await engine.ensureVolume('arena', 'volume', 'settings');
  const told: string[] = [];
  return {
    told,
    engine,
    session: {
      project: 'arena',
      ports: { engine, supplies: { settings: () => ({ JWT_SECRET: today }) } },
      record: { fingerprintKey, intent: isGoal ? { release: 41, stage: 'open' } : null },
      emit: (event: { message: string }) => told.push(event.message),
    } as unknown as Session,
  };
}

const opened = (secret: string) => revivedCandidate(keys, named, { JWT_SECRET: secret });

test('what a release was opened with is put where its servers read it', async () => {
  const { session: own, engine } = await session('first', true);
  expect(await ensureSettings(own, opened('first'), 'volume')).toEqual({ JWT_SECRET: 'first' });
  const file = (await engine.readFiles('arena', 'volume', '')).get('settings.json');
  expect(Buffer.from(file ?? []).toString()).toBe('{"JWT_SECRET":"first"}');
});

test('an act that goes on with another .env gives its other replicas the secrets of the first ones, and says so', async () => {
  const { session: first, engine } = await session('first', true);
  await ensureSettings(first, opened('first'), 'volume');
  const { session: second, told } = await session('second', true, engine);
  expect(await ensureSettings(second, opened('first'), 'volume')).toEqual({ JWT_SECRET: 'first' });
  expect(told.join()).toMatch(/release 41 keeps the settings it was opened with; changed since: JWT_SECRET/);
  expect(told.join()).not.toMatch(/second|first\b/);
});

test('an act whose settings are nowhere any more is refused with the keys, never with other values', async () => {
  const { session: own } = await session('second', true);
  const refused = ensureSettings(own, opened('first'), 'volume');
  await expect(refused).rejects.toMatchObject({ code: 'SETTINGS_CHANGED', facts: { keys: ['JWT_SECRET'] } });
});

test('a rollback puts the secrets of today, with which it was opened, over those of then', async () => {
  const { session: first, engine } = await session('first', true);
  await ensureSettings(first, opened('first'), 'volume');
  const { session: second } = await session('second', true, engine);
  expect(await ensureSettings(second, opened('second'), 'volume')).toEqual({ JWT_SECRET: 'second' });
});

test('the way back is never held up: a release that only comes back up takes what there is', async () => {
  const { session: own } = await session('second', false);
  expect(await ensureSettings(own, opened('first'), 'volume')).toEqual({ JWT_SECRET: 'second' });
});
