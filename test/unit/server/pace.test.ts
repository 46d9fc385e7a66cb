import fc from 'fast-check';
import { expect, test } from 'vitest';
import { drainPace } from '../../../src/server/players/pace.ts';

const overMs = (players: number, drainMs: number) => {
  const { tickMs, perTick } = drainPace(players, drainMs);
  return Math.ceil(players / perTick) * tickMs;
};

test('a drain closes a handful of players one by one, some within a second, many at 500 a second', () => {
  expect(drainPace(5, 300_000)).toEqual({ tickMs: 20, perTick: 1 });
  expect(overMs(100, 300_000)).toBe(1_000);
  expect(overMs(10_000, 300_000)).toBe(20_000);
});

test('a drain never closes two or more players in one tick, unless it is shorter than two ticks', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 100_000 }),
      fc.integer({ min: 100, max: 600_000 }),
      (players, drainMs) => {
        expect(drainPace(players, drainMs).perTick).toBeLessThan(players);
      },
    ),
  );
});

test('a drain closes the last player well before its deadline', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 100_000 }),
      fc.integer({ min: 100, max: 600_000 }),
      (players, drainMs) => {
        expect(overMs(players, drainMs)).toBeLessThanOrEqual(drainMs / 2 + 20);
      },
    ),
  );
});
