/**
 * What benches print: lines as they go, and at the end what was measured beside what it must be. Promises that what was
 * not measured is not met.
 */
import { setTimeout as wait } from 'node:timers/promises';

type Of = (values: number[]) => number;

interface Row {
  what: string;
  values: number[];
  counts: number;
  limit: string;
  isMet: boolean;
}

const began = Date.now();
const rows: Row[] = [];

export const sleep = (ms: number) => wait(ms);

export const say = (text: string): void => {
  process.stdout.write(`[${((Date.now() - began) / 1_000).toFixed(0).padStart(5)} s] ${text}\n`);
};

export const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

export const worst = (values: readonly number[]): number => Math.max(...values);

export const least = (values: readonly number[]): number => Math.min(...values);

/** @param of which of the rounds counts, or how they are summed up */
export function judge(what: string, values: number[], limit: number, of: Of): void {
  note(what, values, of, { bound: '≤', limit });
}

/** The other way round: what has to be reached. */
export function judgeLeast(what: string, values: number[], limit: number, of: Of = least): void {
  note(what, values, of, { bound: '≥', limit });
}

export type Judged<T> = readonly [what: string, value: (round: T) => number, limit: number, of: Of];

export function judgeRounds<T>(rounds: readonly T[], all: readonly Judged<T>[]): void {
  for (const [what, value, limit, of] of all) judge(what, rounds.map(value), limit, of);
}

function note(what: string, values: number[], of: Of, { bound, limit }: { bound: '≤' | '≥'; limit: number }) {
  // The largest of nothing is less than anything, and a number that is none compares with nothing.
  const isMeasured = values.length > 0 && values.every(Number.isFinite);
  const counts = isMeasured ? of(values) : Number.NaN;
  const isMet = bound === '≤' ? counts <= limit : counts >= limit;
  rows.push({ what, values, counts, limit: `${bound} ${shown(limit)}`, isMet });
}

export const missed = (): boolean => rows.length === 0 || rows.some(({ isMet }) => !isMet);

const shown = (value: number) => (Number.isNaN(value) ? 'nothing' : String(Math.round(value * 100) / 100));

export function table(): void {
  if (rows.length === 0) process.stdout.write('nothing was measured: MISSED\n');
  const width = Math.max(...rows.map(({ what }) => what.length));
  for (const { what, values, counts, limit, isMet } of rows) {
    const each = values.length > 1 ? `  (${values.map(shown).join(', ')})` : '';
    process.stdout.write(
      `${what.padEnd(width)}  ${shown(counts).padStart(8)}  limit ${limit.padStart(8)}  ${isMet ? 'met   ' : 'MISSED'}${each}\n`,
    );
  }
}
