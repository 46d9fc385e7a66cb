/** Which release fits which schema, and when a contract migration may run: decided on plain data. */
import { describe, expect, it } from 'vitest';
import { label } from '../../../src/contract.ts';
import type { SchemaState } from '../../../src/database/migrate/pending.ts';
import type { ImageInfo } from '../../../src/engine/port.ts';
import {
  mustFit,
  needsOf,
  ripeContracts,
  schemaAfter,
  usersOf,
} from '../../../src/operations/database/compatibility.ts';
import {
  isInBackup,
  refuseStranding,
  refuseTakingAway,
  strandedBy,
} from '../../../src/operations/database/stranding.ts';
import type { ImageNeeds } from '../../../src/release/model.ts';
import { pinnedBackups } from '../../../src/runner/act.ts';
import { fleet, intent, liveWorld, release } from '../../support/memory/worlds.ts';

const upTo = (knows: string, needs = knows): ImageNeeds => ({ needs, knows });
const info = (labels: Record<string, string>) => ({ labels }) as ImageInfo;
const files = [
  { name: '1_a', phase: 'expand' as const },
  { name: '2_b', phase: 'contract' as const },
];
const lack = { why: 'which is pending', next: ['gameops deploy'] as [string] };

/** 40 is live and knows 2_b; 39 is kept and does not. */
const kept = liveWorld({
  releases: [
    release(39, 'superseded', 2, { migrations: upTo('1_a') }),
    release(40, 'live', 2, { migrations: upTo('2_b', '1_a') }),
  ],
  fleets: [fleet(39, [], [1, 2]), fleet(40, [1, 2])],
});
const state = {
  ledger: { floor: null },
  applied: new Set(['1_a']),
  pending: { expand: [], contract: ['2_b'] },
  files,
} as unknown as SchemaState;

describe('what an image needs', () => {
  it('is what its labels state, whatever is in the folder of migrations', () => {
    expect(needsOf(info({ [label.needs]: '7_x', [label.knows]: '8_y' }), files)).toEqual({
      needs: '7_x',
      knows: '8_y',
    });
    expect(needsOf(info({ [label.needs]: '', [label.knows]: '8_y' }), files)).toEqual({
      needs: null,
      knows: '8_y',
    });
  });

  it('is what the folder has when its labels state nothing, and unknown without a folder', () => {
    expect(needsOf(info({}), files)).toEqual({ needs: '1_a', knows: '2_b' });
    expect(needsOf(null, files)).toEqual({ needs: '1_a', knows: '2_b' });
    expect(needsOf(info({}), [])).toBeNull();
  });

  it('is only what is applied when pending migrations are skipped, so that a rollback to it stays possible', () => {
    const needs = needsOf(info({}), [...files, { name: '3_c', phase: 'expand' }], new Set(['1_a']));
    expect(needs).toEqual({ needs: '1_a', knows: '1_a' });
    const served = release(39, 'superseded', 2, { migrations: needs });
    const gone = { applied: new Set(['1_a']), floor: null };
    expect(() => mustFit(served, gone, kept, lack)).not.toThrow();
    const stated = info({ [label.needs]: '3_c', [label.knows]: '3_c' });
    expect(needsOf(stated, files, new Set(['1_a']))).toEqual({ needs: '3_c', knows: '3_c' });
  });
});

describe('a contract migration', () => {
  it('waits while a kept release does not know it', () => {
    expect(ripeContracts(state, kept, upTo('2_b', '1_a'))).toEqual([]);
    expect(usersOf('2_b', kept).map(({ id }) => id)).toEqual([39]);
  });

  it('is applied when the new release and every running or kept release know it', () => {
    const alone = { ...kept, fleets: [fleet(40, [1, 2])] };
    expect(ripeContracts(state, alone, upTo('2_b', '1_a'))).toEqual(['2_b']);
    expect(ripeContracts(state, alone, upTo('1_a'))).toEqual([]);
    expect(ripeContracts(state, alone, null)).toEqual([]);
  });

  it('does not wait for a failed release, but waits for one that states nothing', () => {
    const failed = release(39, 'failed', 2, { migrations: upTo('1_a') });
    const silent = release(39, 'superseded', 2);
    const live = kept.releases.filter(({ id }) => id === 40);
    expect(usersOf('2_b', { ...kept, releases: [failed, ...live] })).toEqual([]);
    expect(usersOf('2_b', { ...kept, releases: [silent, ...live] })).toHaveLength(1);
  });

  it('raises the floor for the release that brings it', () => {
    const work = { pending: ['2_b'], contracts: ['2_b'], isFilled: true, wish: null };
    expect(schemaAfter(state, work).floor).toBe('2_b');
  });

  it('run by hand is refused, and the error names the releases that still need what it removes', () => {
    expect(() => refuseStranding(['2_b'], kept)).toThrowError(/Release 39 .* kept for rollback/);
    expect(() => refuseStranding(['1_a'], kept)).not.toThrow();
  });
});

describe('a release', () => {
  const schema = (floor: string | null, ...applied: string[]) => ({ applied: new Set(applied), floor });
  const old = release(39, 'superseded', 2, { migrations: upTo('1_a') });

  it('below the floor is refused, and the error names a release that fits instead', () => {
    const world = {
      ...kept,
      releases: [old, release(38, 'superseded', 2, { migrations: upTo('2_b', '1_a') })],
    };
    expect(() => mustFit(old, schema('2_b', '1_a', '2_b'), world, lack)).toThrowError(
      expect.objectContaining({
        code: 'IMAGE_TOO_OLD',
        next: expect.arrayContaining(['gameops rollback --to 38']),
      }),
    );
  });

  it('that needs a migration which is not applied is refused, unless it may do without it', () => {
    expect(() => mustFit(old, schema(null), kept, lack)).toThrowError(
      expect.objectContaining({ code: 'SCHEMA_TOO_OLD' }),
    );
    expect(() => mustFit(old, schema(null), kept, { ...lack, why: null })).not.toThrow();
  });

  it('runs on a newer schema; one that states nothing runs on every schema', () => {
    expect(() => mustFit(old, schema(null, '1_a', '3_c'), kept, lack)).not.toThrow();
    expect(() => mustFit(release(39, 'superseded'), schema('9_z'), kept, lack)).not.toThrow();
  });

  it('that runs keeps the migrations it needs; a kept one is only named', () => {
    expect(() => refuseTakingAway(schema(null), kept)).toThrowError(/Release 40 runs and needs 1_a/);
    const stopped = { ...kept, fleets: [fleet(39, [], [1, 2])] };
    expect(refuseTakingAway(schema(null), stopped).map(({ id }) => id)).toEqual([39]);
  });

  it('that runs is reported when a backup lacks a migration it needs, by the order in which they were applied', () => {
    const running = { ...kept, fleets: [fleet(40, [1, 2])] };
    const stranded = (newest: string | null, ...applied: string[]) =>
      strandedBy(isInBackup(newest, applied), running).map(({ id }) => id);
    expect(stranded(null)).toEqual([40]);
    expect(stranded('1_a')).toEqual([]);
    expect(stranded('0_z')).toEqual([40]);
    expect(stranded('2_b', '2_b', '1_a')).toEqual([40]);
    expect(stranded('2_b', '1_a', '2_b')).toEqual([]);
    expect(strandedBy(() => false, { ...kept, fleets: [fleet(39, [], [1, 2])] })).toEqual([]);
  });
});

describe('pinned backups', () => {
  it('are those of releases that a rollback can leave, of the live one, and of all later ones, also failed ones', () => {
    const releases = [36, 37, 38, 39].map((id) => release(id, 'superseded', 2, { backup: `b${id}` }));
    const failed = release(41, 'failed', 2, { backup: 'b41' });
    const record = {
      releases: [...releases, release(40, 'live', 2, { backup: 'b40' }), failed],
      intent: null,
    };
    expect(pinnedBackups(record, 2).sort()).toEqual(['b38', 'b39', 'b40', 'b41']);
  });

  it('are only that of the act under way when no release has served yet', () => {
    const releases = [
      release(1, 'failed', 2, { backup: 'b1' }),
      release(2, 'candidate', 2, { backup: 'b2' }),
    ];
    expect(pinnedBackups({ releases, intent: intent(2) }, 2)).toEqual(['b2']);
    expect(pinnedBackups({ releases, intent: null }, 2)).toEqual([]);
  });
});
