/** What benches print: lines as they go, and at the end what was measured beside what it must be. */
import { setTimeout as wait } from 'node:timers/promises';

const began = Date.now();
const rows: { what: string; values: number[]; counts: number; limit: number; isMet: boolean }[] = [];

export const sleep = (ms: number) => wait(ms);

export const say = (text: string): void => {
  process.stdout.write(`[${((Date.now() - began) / 1_000).toFixed(0).padStart(5)} s] ${text}\n`);
};

export const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;

export const worst = (values: readonly number[]): number => Math.max(...values);

/** @param of which of the rounds counts, or how they are summed up */
export function judge(what: string, values: number[], limit: number, of: (values: number[]) => number): void {
  const counts = of(values);
  rows.push({ what, values, counts, limit, isMet: counts <= limit });
}

export const missed = (): boolean => rows.some(({ isMet }) => !isMet);

export function table(): void {
  const shown = (value: number) => String(Math.round(value * 100) / 100);
  const width = Math.max(...rows.map(({ what }) => what.length));
  for (const { what, values, counts, limit, isMet } of rows) {
    const each = values.length > 1 ? `  (${values.map(shown).join(', ')})` : '';
    process.stdout.write(
      `${what.padEnd(width)}  ${shown(counts).padStart(8)}  limit ${shown(limit).padStart(6)}  ${isMet ? 'met   ' : 'MISSED'}${each}\n`,
    );
  }
}
