/**
 * Keyed fingerprints of settings: they tell which keys of two releases differ, and never a value. The key lies in the
 * project's record, so every operator's machine makes the same ones.
 */
import { createHash, createHmac } from 'node:crypto';
import type { Release } from '../release/model.ts';
import type { ProjectRecord } from './record.ts';

/** Keys of settings that are not those the release was opened with: never a value. */
export function strangeKeys(
  { fingerprintKey }: Pick<ProjectRecord, 'fingerprintKey'>,
  release: Release,
  settings: Readonly<Record<string, string>>,
): string[] {
  const fingerprints = fingerprintAll(fingerprintKey, settings);
  return changedKeys(release, { ...release, fingerprints });
}

export function changedKeys(a: Release, b: Release): string[] {
  const keys = new Set([...Object.keys(a.fingerprints), ...Object.keys(b.fingerprints)]);
  return [...keys].filter((key) => a.fingerprints[key] !== b.fingerprints[key]).sort();
}

/** What stands for a setting's value wherever the value must not be. */
export function fingerprintOfSetting(key: string, name: string, value: string): string {
  return createHmac('sha256', key).update(`${name}\0${value}`).digest('hex').slice(0, 24);
}

export function fingerprintAll(
  key: string,
  settings: Readonly<Record<string, string>>,
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(settings).map(([name, value]) => [name, fingerprintOfSetting(key, name, value)]),
  );
}

export function fingerprintOf(parts: readonly unknown[], fingerprints: Record<string, string>): string {
  const sorted = Object.entries(fingerprints).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash('sha256')
    .update(JSON.stringify([...parts, sorted]))
    .digest('hex')
    .slice(0, 32);
}
