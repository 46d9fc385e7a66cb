/**
 * Checksums of migrations: what tells whether a text is the one that was applied. Promises that a checksum is compared by
 * the rule that made it, so that a new rule never turns an applied migration into a changed one.
 */
import { createHash } from 'node:crypto';
import { sumRules } from './sum-rules.ts';

const known = new Map<string, string>();

/** By the newest rule: "2:<64 hex digits>". Version 1 stands without its number, as ledgers had it before there were others. */
export function checksum(sql: string): string {
  return checksumBy(sumRules.length, sql);
}

/** @param sum as the ledger has it */
export function isSumOf(sum: string, sql: string): boolean {
  return checksumBy(versionOf(sum), sql) === sum;
}

/** @param start of a checksum: the journal of statements keeps no more of it */
export function beginsSumOf(start: string, sql: string): boolean {
  return checksumBy(versionOf(start), sql).startsWith(start);
}

/** A newer gameops made it: this one has no rule to compare by. */
export const isSumTooNew = (sum: string): boolean => versionOf(sum) > sumRules.length;

function versionOf(sum: string): number {
  const colon = sum.indexOf(':');
  return colon < 0 ? 1 : Number(sum.slice(0, colon));
}

function checksumBy(version: number, sql: string): string {
  const key = `${version}:${sql}`;
  const before = known.get(key);
  if (before !== undefined) return before;
  const rule = sumRules[version - 1];
  // The ledger refuses versions that are not known when it is read.
  if (!rule) throw new RangeError(`no rule for checksums of version ${version}`);
  const digest = createHash('sha256').update(rule(sql)).digest('hex');
  const sum = version === 1 ? digest : `${version}:${digest}`;
  known.set(key, sum);
  return sum;
}
