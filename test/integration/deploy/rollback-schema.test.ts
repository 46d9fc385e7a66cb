/** Rollbacks that take the schema back, too: what goes, what is saved, what is refused, and what a kill leaves. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Event } from '../../../src/report/events.ts';
import { until } from '../../support/players/game-server.ts';
import { type ImageMaker, imageMaker } from '../../support/site/bad-images.ts';
import { type MigratingSite, openMigratingSite } from '../../support/site/migrating-site.ts';
import { type Ran, stepsOf } from '../../support/site/site.ts';
import { tinyGame } from '../../support/site/tiny-game.ts';

const quick = ['--watch', '1s'];
const kindsOf = (ran: Ran) => stepsOf(ran).map((step) => step.kind);

let images: ImageMaker;
let site: MigratingSite;
const made: Record<string, string> = {};

function expectDone(ran: Ran): void {
  expect({ exitCode: ran.exitCode, error: ran.json?.error }).toEqual({ exitCode: 0, error: undefined });
}

const deploy = (name: string, ...more: string[]) =>
  site.run(['deploy', '--image', made[name] ?? '', ...quick, ...more]);
const status = async () => (await site.run(['status'])).json?.result;
const live = async () => (await status()).traffic[0]?.release as number;

/** Until the lock of the killed one is gone, too. */
async function killedAt(at: 'step-started' | 'step-done', kind: string, args: string[]): Promise<Ran> {
  const onEvent = (event: Event, child: { kill(signal: NodeJS.Signals): boolean }) => {
    if (event.type === at && event.step.kind === kind) child.kill('SIGKILL');
  };
  const killed = await site.start(args, { onEvent }).ended;
  await until(async () => (await status()).lockedBy === null);
  return killed;
}

/** Before it has taken anything back, and until its session is gone, too. */
const killedBeforeTakingBack = () =>
  site.holding('players', async () => {
    const killed = await killedAt('step-started', 'take-back', ['rollback', '--schema', '--accept-loss']);
    const sessions = `SELECT FROM pg_stat_activity WHERE application_name = 'gameops'`;
    await until(async () => (await site.query(sessions)).length === 0);
    return killed;
  });

beforeAll(async () => {
  images = await imageMaker();
  const newest = { one: '1_players', two: '2_rank', three: '3_note', four: '4_hurt', five: '5_gone' };
  for (const [name, migration] of Object.entries(newest)) {
    const states = { needs: name === 'five' ? '4_hurt' : migration, knows: migration };
    made[name] = (await images.make(`back-${name}`, `${tinyGame}\n// ${name}`, states)).tag;
  }
  site = await openMigratingSite({ replicas: 1, name: 'back' });
  await site.write(
    '1_players',
    'CREATE TABLE players (id int PRIMARY KEY)',
    'DROP TABLE players',
    'reversible=lossy',
  );
  expectDone(await deploy('one'));
  await site.query('INSERT INTO players VALUES (1), (2), (3)');
  await site.write(
    '2_rank',
    'ALTER TABLE players ADD rank int',
    'ALTER TABLE players DROP rank',
    'reversible=lossy',
  );
});
afterAll(async () => {
  await site?.close();
  await images?.removeAll();
});

describe('rollback --schema', () => {
  let first = 0;
  beforeAll(async () => {
    first = await live();
  });
  // Release two is live, with its migration.
  beforeEach(async () => {
    if ((await site.applied()).includes('2_rank')) return;
    expectDone(await deploy('two'));
    expect(await site.applied()).toEqual(['1_players', '2_rank']);
  });

  it('moves traffic first, then takes back what the release brought', async () => {
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

  it('shows what would be lost, needs a yes, and saves it', async () => {
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
  it('killed between traffic and schema is finished by resume', async () => {
    const killed = await killedBeforeTakingBack();
    expect(killed.signal).toBe('SIGKILL');
    expect((await status()).unfinished).toMatchObject({ verb: 'rollback', release: first });
    expect(await site.applied()).toEqual(['1_players', '2_rank']);
    expectDone(await site.run(['resume']));
    expect(await live()).toBe(first);
    expect(await site.applied()).toEqual(['1_players']);
    expect(kindsOf(await site.run(['resume']))).toEqual([]);
  });

  it('killed between traffic and schema is asked again and ends at the same release', async () => {
    await killedBeforeTakingBack();
    expectDone(await site.run(['rollback', '--schema', '--accept-loss']));
    expect(await live()).toBe(first);
    expect(await site.applied()).toEqual(['1_players']);
  });

  it('killed between traffic and schema and then deployed over applies anew what was to go', async () => {
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

  it('of the app alone leaves the schema, which can still follow', async () => {
    const ran = await site.run(['rollback', '--to', String(first)]);
    expectDone(ran);
    expect(await site.applied()).toEqual(['1_players', '2_rank']);
    const left = await site.run(['rollback', '--to', String(first), '--schema']);
    expectDone(left);
    expect(kindsOf(left)).toEqual(['take-back']);
    expect(await site.applied()).toEqual(['1_players']);
  });

  it('refuses a release whose migration was taken back', async () => {
    const two = (await site.run(['releases'])).json?.result.releases[0].id;
    expectDone(await site.run(['rollback', '--to', String(first), '--schema', '--accept-loss']));
    const refused = await site.run(['rollback', '--to', String(two)]);
    expect(refused).toMatchObject({ exitCode: 9, json: { error: { code: 'SCHEMA_TOO_OLD' } } });
    expect(await live()).toBe(first);
  });

  it('whose way back fails keeps players where they were asked to be, and ends by resume or by abort', async () => {
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

describe('past a migration without a way back', () => {
  let before = 0;
  let backup = '';
  beforeAll(async () => {
    expectDone(await deploy('two'));
    before = await live();
    await site.query('UPDATE players SET rank = 1');
    await site.write('3_note', 'ALTER TABLE players ADD note text', 'SELECT 1', 'reversible=no');
    const ran = await deploy('three');
    expectDone(ran);
    backup = ran.json?.result.schema.backup;
    await site.query(`INSERT INTO players (id, note) VALUES (4, 'late')`);
  });

  it('refuses before anything is touched, with the reason and the three ways out', async () => {
    const refused = await site.run(['rollback', '--schema']);
    expect(refused).toMatchObject({ exitCode: 9, json: { error: { code: 'MIGRATION_IRREVERSIBLE' } } });
    expect(refused.json?.error?.message).toContain('reversible=no');
    expect(refused.json?.error?.next).toEqual([
      expect.stringContaining(`gameops rollback --to ${before}`),
      expect.stringContaining(`--restore-backup ${backup}`),
      expect.stringContaining('gameops db create'),
    ]);
    expect(kindsOf(refused)).toEqual([]);
  });

  it('restores the backup that was taken before it, once players are on the release before', async () => {
    const args = ['rollback', '--restore-backup', backup];
    const refused = await site.run(args);
    expect(refused).toMatchObject({ exitCode: 2, json: { error: { code: 'CONFIRMATION_NEEDED' } } });
    expect(refused.json?.error?.message).toContain('public.players (3 rows then, 4 now)');
    const killed = await killedAt('step-done', 'restore', [...args, '--yes']);
    // Little comes after it: the kill may be late.
    expect(['SIGKILL', null]).toContain(killed.signal);
    // It was restored, and is not restored again.
    const resumed = await site.run(['resume']);
    expectDone(resumed);
    expect(kindsOf(resumed)).not.toContain('restore');
    expect(await live()).toBe(before);
    expect(await site.applied()).toEqual(['1_players', '2_rank']);
    expect(await site.query('SELECT id FROM players ORDER BY id')).toEqual([{ id: 1 }, { id: 2 }, { id: 3 }]);
    const { undos } = (await site.run(['db', 'backups'])).json?.result ?? {};
    expect(undos).toHaveLength(1);
  });

  it('refuses a backup that lacks what the release needs, and one that is not there', async () => {
    const oldest = (await site.run(['db', 'backups'])).json?.result.backups.at(-1).id;
    const lacks = await site.run(['rollback', '--to', String(before), '--restore-backup', oldest, '--yes']);
    expect(lacks).toMatchObject({ exitCode: 9, json: { error: { code: 'SCHEMA_TOO_OLD' } } });
    const unknown = await site.run([
      'rollback',
      '--to',
      String(before),
      '--restore-backup',
      '20200101-000000-abcd',
    ]);
    expect(unknown).toMatchObject({ exitCode: 2, json: { error: { code: 'BACKUP_UNKNOWN' } } });
  });

  it('by `db restore` is told which release misses what it lacks, before it is asked for a yes', async () => {
    const oldest = (await site.run(['db', 'backups'])).json?.result.backups.at(-1).id;
    const asked = await site.run(['db', 'restore', oldest]);
    expect(asked).toMatchObject({ exitCode: 2, json: { error: { code: 'CONFIRMATION_NEEDED' } } });
    expect(asked.json?.error?.message).toContain(`Release ${before} runs and needs 2_rank`);
    expect(asked.json?.error?.message).toContain(`gameops rollback --restore-backup ${oldest}`);
  });
});
