/** What a rollback of the schema takes back, refuses and offers instead: decided on plain data. */
import { describe, expect, it } from 'vitest';
import type { Context } from '../../../src/operations/context.ts';
import type { ProjectDatabase } from '../../../src/operations/database/database.ts';
import {
  type SchemaBackOptions,
  schemaBack,
  withWishAsked,
} from '../../../src/operations/database/schema-back.ts';
import type { Intent, World } from '../../../src/release/model.ts';
import type { Event } from '../../../src/report/events.ts';
import { intent, liveWorld, release } from '../../support/memory/worlds.ts';

/** 42 is live, 38 and 39 served before, 41 failed and left its migrations applied. */
const releases = [
  release(38, 'superseded'),
  release(39, 'superseded', 2, { backup: 'b39' }),
  release(41, 'failed', 2, { backup: 'b41' }),
  release(42, 'live', 2, { backup: 'b42' }),
];

/** @param applied name → release that brought it, null: by hand; in the order of application */
function rollbackTo(target: number, applied: Record<string, number | null>, refused: string[] = []) {
  const rows = Object.entries(applied).map(([name, by]) => ({ name, appliedAt: '', row: { release: by } }));
  const schema = {
    ledger: async () => ({
      ledger: { applied: rows, floor: null },
      seen: { applied: new Set(Object.keys(applied)), floor: null },
    }),
    planBack: async () => ({
      steps: [],
      refusals: refused.map((name) => ({ name, reason: 'is marked as irreversible (reversible=no)' })),
      losses: [],
      uncounted: [],
    }),
  };
  return schemaBack({ emit: () => undefined } as unknown as Context, {
    options: { schema: true },
    target: releases.find(({ id }) => id === target) ?? release(target, 'superseded'),
    world: liveWorld({ releases }),
    database: schema as unknown as ProjectDatabase,
    env: {} as never,
  });
}

describe('a rollback of the schema past an irreversible migration', () => {
  it('offers the backup of the release that brought the oldest migration to revert', async () => {
    // What 39 brought was taken back since: its backup is older than it need be.
    const applied = { '1_a': 38, '3_c': 41, '4_d': 42 };
    await expect(rollbackTo(38, applied, ['3_c'])).rejects.toMatchObject({
      code: 'MIGRATION_IRREVERSIBLE',
      facts: { backup: 'b41' },
    });
  });

  it('offers no backup when the one that would help was never taken', async () => {
    await expect(rollbackTo(38, { '3_c': 40, '4_d': 42 }, ['3_c'])).rejects.toMatchObject({
      facts: { backup: null },
    });
  });
});

describe('a rollback of the schema past a migration that was applied by hand', () => {
  it('is refused when that migration came after one to revert, and the error names the ways out', async () => {
    await expect(rollbackTo(39, { '1_a': 38, '3_c': 41, hand: null, '4_d': 42 })).rejects.toMatchObject({
      code: 'MIGRATION_IRREVERSIBLE',
      next: [
        expect.stringContaining('gameops rollback --to 39'),
        expect.stringContaining('gameops db rollback --to 1_a'),
      ],
      facts: { migration: '3_c', stays: ['hand'] },
    });
    await expect(rollbackTo(39, { '3_c': 41, hand: null })).rejects.toMatchObject({
      next: [expect.anything(), expect.stringContaining('gameops db rollback --count 2')],
    });
  });

  it('leaves earlier migrations applied, and reverts those of failed releases in between', async () => {
    const back = await rollbackTo(39, { '1_a': 38, hand: null, '3_c': 41, '4_d': 42 });
    expect(back.wish).toEqual({ kind: 'take-back', migrations: ['4_d', '3_c'], acceptLoss: false });
  });
});

describe('a rollback that finds another one unfinished', () => {
  const restore = { kind: 'restore' as const, backup: 'b39' };
  const takeBack = { kind: 'take-back' as const, migrations: ['4_d', '3_c'], acceptLoss: true };
  const begun = (schema: Intent['schema']) =>
    liveWorld({ releases, intent: intent(39, { verb: 'rollback', schema }) });

  /** The database must not be needed unless the same wish may be done already. */
  async function ask(
    world: World,
    options: SchemaBackOptions,
    wish: Intent['schema'],
    left?: Intent['schema'],
  ) {
    const told: string[] = [];
    const emit = (event: Event) => told.push(event.type === 'note' ? event.message : event.type);
    const wishLeft = async (one: Intent | null) => {
      if (one?.schema && left === undefined) throw new Error('the database was asked');
      return left ?? null;
    };
    const target = release(39, 'superseded');
    const request = {
      options,
      target,
      world,
      database: { wishLeft } as unknown as ProjectDatabase,
      env: {} as never,
    };
    const asked = await withWishAsked({ emit }, request, {
      wish,
      left: null,
      loss: null,
      losses: [],
      uncounted: [],
    });
    return { asked, told: told.join() };
  }

  it('warns that an unfinished rollback will not restore its backup any more, without asking a database', async () => {
    const { asked, told } = await ask(begun(restore), {}, null);
    expect(asked).toMatchObject({ intent: { schema: null }, schema: { wish: null } });
    expect(told).toContain('the unfinished rollback to release 39 by ada@lab was to restore the backup b39');
    expect(told).toContain('leave the schema as it is');
  });

  it('warns that an unfinished rollback will also revert migrations', async () => {
    const { asked, told } = await ask(begun(null), { schema: true }, takeBack);
    expect(asked).toMatchObject({ intent: { schema: takeBack }, schema: { wish: takeBack } });
    expect(told).toContain('revert 4_d, 3_c');
  });

  it('says nothing when a rollback is asked for again, and asks the database what is left to do', async () => {
    const again = await ask(begun(restore), { restoreBackup: 'b39' }, restore, null);
    expect(again).toMatchObject({ asked: { schema: { wish: null } }, told: '' });
    const rest = { ...takeBack, migrations: ['3_c'] };
    const { asked, told } = await ask(begun(takeBack), { schema: true }, rest);
    expect(asked.schema.wish).toEqual(rest);
    expect(told).toBe('');
  });
});
