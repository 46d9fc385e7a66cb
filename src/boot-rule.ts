/**
 * Which image fits which schema: what the CLI refuses to deploy or to go back to is what the server refuses to run on.
 * Pure.
 */
import type { ImageNeeds } from './release/model.ts';

export type { ImageNeeds };

/** The part of a migration that the rule looks at. */
export interface Phased {
  name: string;
  phase: 'expand' | 'contract';
}

export function imageNeeds(files: readonly Phased[]): ImageNeeds {
  const newest = (some: readonly Phased[]) =>
    some
      .map(({ name }) => name)
      .sort(byPrefix)
      .at(-1) ?? null;
  return { needs: newest(files.filter(({ phase }) => phase === 'expand')), knows: newest(files) };
}

export interface SchemaSeen {
  applied: ReadonlySet<string>;
  /** Newest contract migration that is applied. */
  floor: string | null;
}

export type BootVerdict = 'yes' | 'schema-too-old' | 'image-too-old';

/** Whether an image may run on a schema. An older image may, as long as it knows every contract migration applied. */
export function mayBoot({ needs, knows }: ImageNeeds, { applied, floor }: SchemaSeen): BootVerdict {
  if (isBelow(knows, floor)) return 'image-too-old';
  return needs !== null && !applied.has(needs) ? 'schema-too-old' : 'yes';
}

/** True if the image still uses what the contract migration removes. */
export const isBelow = (knows: string | null, contract: string | null): boolean =>
  contract !== null && (knows === null || byPrefix(knows, contract) < 0);

/** node-pg-migrate's order: by number; 17 digits are a UTC date, others milliseconds or an index. */
export function byPrefix(a: string, b: string): number {
  return prefixOf(a) - prefixOf(b) || (a === b ? 0 : a < b ? -1 : 1);
}

export function prefixOf(name: string): number {
  const digits = /^\d+/.exec(name)?.[0] ?? '';
  if (digits.length !== 17) return Number(digits);
  const [, year, month, day, hour, minute, second, ms] =
    /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d{3})$/.exec(digits) ?? [];
  return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}.${ms}Z`);
}

/** From the labels of an image, or the file in it. Null when they say nothing. */
export function statedNeeds(needs: unknown, knows: unknown): ImageNeeds | null {
  if (typeof knows !== 'string' || knows === '') return null;
  return { needs: typeof needs === 'string' && needs !== '' ? needs : null, knows };
}
