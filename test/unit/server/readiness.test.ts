import { expect, test } from 'vitest';
import { createReadiness, type Need } from '../../../src/server/readiness.ts';

const needs: Need[] = ['listening', 'postgres', 'schema', 'redis', 'bus'];

function readyAt(clock: { now: number }) {
  const readiness = createReadiness(5_000, () => clock.now);
  for (const need of needs) readiness.set(need, true);
  return readiness;
}

test('a server that has just started is missing everything, without any grace', () => {
  expect(createReadiness(5_000, () => 0).missing()).toEqual(needs);
});

test('a short loss of Redis leaves a replica ready, a longer loss does not', () => {
  const clock = { now: 0 };
  const readiness = readyAt(clock);
  readiness.set('redis', false);
  clock.now = 4_999;
  readiness.set('redis', false);
  expect(readiness.missing()).toEqual([]);
  clock.now = 5_000;
  expect(readiness.missing()).toEqual(['redis']);
  readiness.set('redis', true);
  expect(readiness.missing()).toEqual([]);
});

test('a draining replica is not ready at once', () => {
  const readiness = readyAt({ now: 0 });
  readiness.drain();
  expect(readiness.missing()).toEqual(['draining']);
});
