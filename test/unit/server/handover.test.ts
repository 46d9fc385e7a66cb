import fc from 'fast-check';
import { expect, test } from 'vitest';
import { worstOf } from '../../../src/server/players/handover.ts';
import { handoverPace, nextHandoverPace, nextPatience, patience } from '../../../src/server/players/pace.ts';
import { readOrder } from '../../../src/server/redis/forms.ts';

const calm = { lagMs: 5, joinMs: 20 };

test('a calm fleet is handed over faster and faster, up to a bound', () => {
  let pace: number = handoverPace.first;
  for (let n = 0; n < 20; n += 1) pace = nextHandoverPace(pace, calm);
  expect(pace).toBe(handoverPace.ceiling);
  expect(nextHandoverPace(handoverPace.first, calm)).toBe(625);
});

test('a strained event loop or slow joins halve the pace of a handover, which never stops', () => {
  expect(nextHandoverPace(500, { lagMs: 51, joinMs: null })).toBe(250);
  expect(nextHandoverPace(500, { lagMs: 0, joinMs: 251 })).toBe(250);
  let pace: number = handoverPace.first;
  for (let n = 0; n < 20; n += 1) pace = nextHandoverPace(pace, { lagMs: 500, joinMs: 900 });
  expect(pace).toBe(handoverPace.floor);
});

const afterAll = (outcomes: readonly (number | null)[], from: number = patience.firstMs) =>
  outcomes.reduce<number>((ms, outcome) => nextPatience(ms, outcome, 32), from);
const times = <T>(count: number, what: T): T[] => Array.from({ length: count }, () => what);

test('players whose clients know no hint are soon waited for no longer than the jitter takes', () => {
  expect(afterAll(times(64, null))).toBeLessThan(200);
  expect(afterAll(times(128, null))).toBe(patience.leastMs);
});

test('players who move are waited for a few times as long as they take, even when some others do not move', () => {
  expect(afterAll(times(200, 120))).toBeCloseTo(480, -1);
  const oneInTen = times(40, [...times<number | null>(9, 120), null]).flat();
  expect(afterAll(oneInTen)).toBeGreaterThan(360);
});

test('a player who moves late shows a fleet that falls behind: from then on everybody is waited for longer', () => {
  expect(afterAll([...times(200, null), 450])).toBe(1_800);
  expect(afterAll([9_000], 100)).toBe(patience.mostMs);
});

test('the pace of a handover stays within its bounds, whatever the strain', () => {
  const strains = fc.array(
    fc.record({
      lagMs: fc.double({ min: 0, max: 1e4, noNaN: true }),
      joinMs: fc.option(fc.integer({ min: 0, max: 60_000 })),
    }),
  );
  fc.assert(
    fc.property(strains, (all) => {
      const paces = all.map((strain) => nextHandoverPace(handoverPace.first, strain));
      const within = (pace: number) => pace >= handoverPace.floor && pace <= handoverPace.ceiling;
      expect(paces.every(within)).toBe(true);
    }),
  );
});

test('the strain is the worst of this server and of every replica that players go to', () => {
  const vitals = (lagMs: number, joinMs: number | null) =>
    JSON.stringify({ v: 1, players: 1, lagMs, joinMs });
  expect(worstOf(3, [null, vitals(80, null), vitals(2, 120), vitals(1, 300), null])).toEqual({
    lagMs: 80,
    joinMs: 300,
  });
  expect(worstOf(7, [null])).toEqual({ lagMs: 7, joinMs: null });
});

test('a handover order of an unknown form counts as no order', () => {
  const order = { v: 1, order: 'hand-over', replicas: [1], to: 4, patienceMs: 100 };
  expect(readOrder(JSON.stringify(order))).toEqual(order);
  for (const wrong of [{ ...order, v: 2 }, { ...order, order: 'dance' }, { ...order, replicas: 1 }, null])
    expect(readOrder(JSON.stringify(wrong))).toBe(null);
  expect(readOrder('{')).toBe(null);
  expect(readOrder(null)).toBe(null);
});
