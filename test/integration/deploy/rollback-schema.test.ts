/** Rollbacks that revert the schema, too: what is dropped, what is saved, what is refused, and what a kill leaves. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { mendAfterFailure } from '../../support/mend.ts';
import { until } from '../../support/players/game-server.ts';
import type { MigratingSite } from '../../support/site/migrating-site.ts';
import {
  expectDone,
  kindsOf,
  openRollbackSite,
  type RollbackSite,
} from '../../support/site/rollback-site.ts';

let rollbackSite: RollbackSite;
let site: MigratingSite;
const deploy = (name: string) => rollbackSite.deploy(name);
const status = () => rollbackSite.status();
const live = () => rollbackSite.live();

/** Before it has reverted anything; waits until its connection is gone, too. */
const killedBeforeTakingBack = () =>
  site.holding('players', async () => {
    const args = ['rollback', '--schema', '--accept-loss'];
    const killed = await rollbackSite.killedAt('step-started', 'take-back', args);
    const connections = `SELECT FROM pg_stat_activity WHERE application_name = 'gameops'`;
    await until(async () => (await site.query(connections)).length === 0);
    return killed;
  });

beforeAll(async () => {
  rollbackSite = await openRollbackSite({ one: '1_players', two: '2_rank' });
  ({ site } = rollbackSite);
});
afterAll(() => rollbackSite?.close());
mendAfterFailure(() => site);

describe('rollback --schema', () => {
  let first = 0;
  beforeAll(async () => {
    first = await live();
  });
  /** What a test begins with: release two is live with its migration, or that was reverted. */
  const twoIsLive = async () => {
    if ((await site.applied()).includes('2_rank')) return;
    expectDone(await deploy('two'));
    expect(await site.applied()).toEqual(['1_players', '2_rank']);
  };
  const twoIsReverted = async () => {
    if (!(await site.applied()).includes('2_rank')) return;
    expectDone(await site.run(['rollback', '--to', String(first), '--schema', '--accept-loss']));
  };

  it('moves traffic first, then reverts the migrations of the release', async () => {
    await twoIsLive();
    const shown = await site.run(['rollback', '--schema', '--plan']);
    const steps: { kind: string }[] = shown.json?.result.plan.steps;
    expect(steps.slice(-2).map(({ kind }) => kind)).toEqual(['take-back', 'close']);
    const ran = await site.run(['rollback', '--schema']);
    expectDone(ran);
    expect(kindsOf(ran)).toEqual(steps.map(({ kind }) => kind));
    expect(ran.json?.result).toMatchObject({ release: first, schema: { reverted: ['2_rank'], rescued: [] } });
    expect(await site.applied()).toEqual(['1_players']);
    expect(kindsOf(await site.run(['resume']))).toEqual([]);
  });

  it('refuses a release whose migration was reverted', async () => {
    await twoIsReverted();
    const two = (await site.run(['releases'])).json?.result.releases[0].id;
    expect(two).toBeGreaterThan(first);
    const refused = await site.run(['rollback', '--to', String(two)]);
    expect(refused).toMatchObject({ exitCode: 9, json: { error: { code: 'SCHEMA_TOO_OLD' } } });
    expect(await live()).toBe(first);
  });

  it('shows which data would be lost, needs a confirmation, and saves that data', async () => {
    await twoIsLive();
    await site.query('UPDATE players SET rank = 7 WHERE id < 3');
    const before = await live();
    const refused = await site.run(['rollback', '--schema']);
    expect(refused).toMatchObject({ exitCode: 2, json: { error: { code: 'CONFIRMATION_NEEDED' } } });
    expect(refused.json?.error?.message).toMatch(/players \(rank\): 2 rows since \d{4}-\d\d-\d\d \d\d:\d\d/);
    expect(refused.json?.error?.next[0]).toContain('--accept-loss');
    const hasty = await site.run(['rollback', '--schema', '--yes']);
    expect(hasty).toMatchObject({ exitCode: 2, json: { error: { code: 'CONFIRMATION_NEEDED' } } });
    expect(await live()).toBe(before);
    const shown = await site.run(['rollback', '--schema', '--plan']);
    expect(shown.json?.result.losses).toMatchObject([
      { table: 'public.players', columns: ['rank'], rows: 2 },
    ]);
    const ran = await site.run(['rollback', '--schema', '--accept-loss']);
    expectDone(ran);
    const [rescued] = ran.json?.result.schema.rescued ?? [];
    expect(rescued).toMatchObject({ table: 'public.players', columns: ['rank'], rows: 2 });
    expect(await site.query(`SELECT id, rank FROM ${rescued.savedAs} ORDER BY id`)).toEqual([
      { id: 1, rank: 7 },
      { id: 2, rank: 7 },
    ]);
  });

  // Every other moment: test/simulation/crash-walk.test.ts.
  it('that is killed between traffic and schema is finished by resume', async () => {
    await twoIsLive();
    const killed = await killedBeforeTakingBack();
    expect(killed.signal).toBe('SIGKILL');
    expect((await status()).unfinished).toMatchObject({ verb: 'rollback', release: first });
    expect(await site.applied()).toEqual(['1_players', '2_rank']);
    expectDone(await site.run(['resume']));
    expect(await live()).toBe(first);
    expect(await site.applied()).toEqual(['1_players']);
    expect(kindsOf(await site.run(['resume']))).toEqual([]);
  });

  it('that is killed between traffic and schema can be asked again and ends at the same release', async () => {
    await twoIsLive();
    await killedBeforeTakingBack();
    expectDone(await site.run(['rollback', '--schema', '--accept-loss']));
    expect(await live()).toBe(first);
    expect(await site.applied()).toEqual(['1_players']);
  });

  it('that is killed between traffic and schema is completed by a deploy, which then applies the migration again', async () => {
    await twoIsLive();
    await killedBeforeTakingBack();
    const ran = await deploy('two');
    expectDone(ran);
    expect(kindsOf(ran).filter((kind) => ['take-back', 'backup', 'migrate'].includes(kind))).toEqual([
      'take-back',
      'backup',
      'migrate',
    ]);
    expect(await site.applied()).toEqual(['1_players', '2_rank']);
  });

  it('without --schema leaves the schema, which can be rolled back later', async () => {
    await twoIsLive();
    const ran = await site.run(['rollback', '--to', String(first)]);
    expectDone(ran);
    expect(await site.applied()).toEqual(['1_players', '2_rank']);
    const left = await site.run(['rollback', '--to', String(first), '--schema']);
    expectDone(left);
    expect(kindsOf(left)).toEqual(['take-back']);
    expect(await site.applied()).toEqual(['1_players']);
  });

  it('whose down migration fails leaves players on the earlier release, and is ended by resume or by abort', async () => {
    await twoIsLive();
    await site.query('CREATE VIEW ranks AS SELECT rank FROM players');
    const ran = await site.run(['rollback', '--schema', '--accept-loss']);
    expect(ran).toMatchObject({ exitCode: 6, json: { error: { code: 'UNFINISHED' } } });
    expect(ran.json?.error?.facts).toMatchObject({ cause: 'MIGRATION_FAILED', migration: '2_rank' });
    expect(ran.json?.error?.next.join()).toContain('gameops abort');
    expect(await live()).toBe(first);
    expect(await site.applied()).toEqual(['1_players', '2_rank']);
    expect((await site.run(['resume'])).exitCode).toBe(6);
    expectDone(await site.run(['abort']));
    expect((await status()).unfinished).toBeNull();
    await site.query('DROP VIEW ranks');
    expectDone(await site.run(['rollback', '--to', String(first), '--schema', '--accept-loss']));
    expect(await site.applied()).toEqual(['1_players']);
  });
});
