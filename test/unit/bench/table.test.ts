/** What benches say of themselves: nothing that was not measured may pass. */
import { beforeEach, describe, expect, it, vi } from 'vitest';

type Table = typeof import('../../bench/table.ts');

let on: Table;
beforeEach(async () => {
  vi.resetModules();
  on = await import('../../bench/table.ts');
});

describe('the table of a bench', () => {
  it('is met when every figure is within its limit in the round that counts', () => {
    on.judge('worst', [1, 3, 2], 3, on.worst);
    on.judge('median', [1, 9, 2], 2, on.median);
    on.judgeLeast('reached', [10, 12], 10);
    on.judgeRounds([{ ms: 1 }, { ms: 2 }], [['rounds', ({ ms }) => ms, 2, on.worst]]);
    expect(on.missed()).toBe(false);
  });

  it.each<[string, (table: Table) => void]>([
    ['nothing was judged', () => undefined],
    ['there was no round', (table) => table.judge('rounds', [], 0, table.worst)],
    ['there was no round that could reach the figure', (table) => table.judgeLeast('rounds', [], 0)],
    [
      'one of the rounds gave no number',
      (table) => table.judge('rounds', [1, Number.NaN, 1], 2, table.median),
    ],
    ['the largest of no numbers was taken', (table) => table.judge('rounds', [Math.max()], 2, table.worst)],
    ['one round is beyond', (table) => table.judge('rounds', [0, 1], 0, table.worst)],
    ['one round falls short', (table) => table.judgeLeast('rounds', [10, 9], 10)],
  ])('is missed when %s', (_what, put) => {
    put(on);
    expect(on.missed()).toBe(true);
  });
});
