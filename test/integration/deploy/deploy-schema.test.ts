/** Deploys that bring migrations: what is backed up first, what a failure leaves, and which images may run on which schema. */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Event } from '../../../src/report/events.ts';
import { mendAfterFailure } from '../../support/mend.ts';
import { badServers, type ImageMaker, imageMaker } from '../../support/site/bad-images.ts';
import { type MigratingSite, openMigratingSite } from '../../support/site/migrating-site.ts';
import { type Ran, stepsOf } from '../../support/site/site.ts';
import { tinyGame } from '../../support/site/tiny-game.ts';

const quick = ['--watch', '1s'];
const kindsOf = (ran: Ran) => stepsOf(ran).map((step) => step.kind);

let images: ImageMaker;
const made: Record<string, string> = {};
/** Another build each time, so that each is a release of its own. */
const game = async (name: string, states: { needs?: string; knows?: string } = {}) => {
  made[name] = (await images.make(`schema-${name}`, `${tinyGame}\n// ${name}`, states)).tag;
};

function expectDone(ran: Ran): void {
  expect({ exitCode: ran.exitCode, error: ran.json?.error }).toEqual({ exitCode: 0, error: undefined });
}

beforeAll(async () => {
  images = await imageMaker();
});
afterAll(() => images.removeAll());

describe('a deploy with migrations', () => {
  let site: MigratingSite;
  const deploy = (name: string, ...more: string[]) =>
    site.run(['deploy', '--image', made[name] ?? '', ...quick, ...more]);
  const live = async () => (await site.run(['status'])).json?.result.traffic[0]?.release ?? null;

  beforeAll(async () => {
    await game('one', { needs: '1_players', knows: '1_players' });
    await game('two', { needs: '2_rank', knows: '2_rank' });
    await game('three', { needs: '3_clan', knows: '3_clan' });
    made.exits = (await images.make('schema-exits', badServers.exitsAtBoot)).tag;
    site = await openMigratingSite({ replicas: 1, name: 'mig' });
  });
  afterAll(() => site?.close());
  mendAfterFailure(() => site);

  const lossy = 'reversible=lossy';
  /** What each release brings, by the name of its image. */
  const brought: Record<string, [name: string, up: string, down: string]> = {
    one: ['1_players', 'CREATE TABLE players (id int)', 'DROP TABLE players'],
    two: ['2_rank', 'ALTER TABLE players ADD rank int', 'ALTER TABLE players DROP rank'],
    three: ['3_clan', 'ALTER TABLE players ADD clan int', 'ALTER TABLE players DROP clan'],
    killed: ['3_deed', 'CREATE TABLE deeds (id int)', 'DROP TABLE deeds'],
  };
  const writeOf = (name: string) => site.write(...(brought[name] as [string, string, string]), lossy);
  /** Deploys what an earlier test has deployed, unless that one failed. */
  async function given(...names: string[]): Promise<void> {
    const applied = await site.applied().catch((): string[] => []);
    for (const name of names) {
      if (applied.includes(brought[name]?.[0] ?? '')) continue;
      await writeOf(name);
      if (!(name in made)) await game(name);
      expectDone(await deploy(name));
    }
  }

  async function makeFour(): Promise<void> {
    await site.write('4_more', 'CREATE TABLE more (id int)', 'DROP TABLE more', lossy);
    if (!('four' in made)) await game('four', { needs: '4_more', knows: '4_more' });
  }

  it('that is the first has nothing to back up, and keeps its migrations in the ledger under its number', async () => {
    await writeOf('one');
    const ran = await deploy('one');
    expectDone(ran);
    expect(kindsOf(ran)).not.toContain('backup');
    expect(ran.json?.result.schema).toMatchObject({ backup: null, applied: ['1_players'] });
    expect(await site.query('SELECT name, release FROM gameops.migrations')).toEqual([
      { name: '1_players', release: 1 },
    ]);
    await site.query('INSERT INTO players VALUES (1), (2)');
  });

  it('shows in its plan that it takes a backup first, and changes nothing by showing it', async () => {
    await given('one');
    await writeOf('two');
    const shown = await deploy('two', '--plan');
    const kinds = shown.json?.result.plan.steps.map(({ kind }: { kind: string }) => kind);
    expect(kinds.slice(0, 4)).toEqual(['open', 'backup', 'migrate', 'start-fleet']);
    expect(await site.applied()).toEqual(['1_players']);
    const { schema } = (await site.run(['status'])).json?.result ?? {};
    expect(schema).toEqual({
      ...{ unknown: null, current: '1_players', applied: 1, pending: ['2_rank'] },
      ...{ floor: null, drift: false, unfinished: [] },
    });
    expect(await readdir(site.folder)).not.toContain('backups');
  });

  it('is refused before its first step when there is no room for the backup', async () => {
    await given('one');
    await writeOf('two');
    // A file system of Linux that has no byte to spare.
    await site.configure({ backup: { dir: '/proc/backups' } });
    const ran = await deploy('two');
    await site.configure({ backup: { dir: 'backups' } });
    expect(ran).toMatchObject({ exitCode: 5, json: { error: { code: 'DISK_TOO_FULL' } } });
    expect(kindsOf(ran)).toEqual([]);
    expect(await site.applied()).toEqual(['1_players']);
  });

  it('fails with 9 when a migration fails: the schema is as it was, nothing was started, players stay', async () => {
    await given('one');
    await writeOf('two');
    await site.write(
      '3_clan',
      'ALTER TABLE players ADD clan int; SELECT 1/0',
      'ALTER TABLE players DROP clan',
    );
    const ran = await deploy('three');
    expect(ran).toMatchObject({ exitCode: 9, json: { error: { code: 'MIGRATION_FAILED' } } });
    expect(kindsOf(ran)).not.toContain('start-fleet');
    expect(await site.applied()).toEqual(['1_players']);
    expect(await live()).toBe(1);
    expect((await site.run(['status'])).json?.result.unfinished).toBeNull();
    await rm(join(site.folder, 'migrations', '3_clan.sql'));
  });

  it('takes a verified backup, keeps its id with the release, and never prunes it while that release can be rolled back', async () => {
    await given('one');
    await writeOf('two');
    await site.configure({ backup: { keep: 1 } });
    const ran = await deploy('two');
    expectDone(ran);
    expect(kindsOf(ran).slice(0, 4)).toEqual(['open', 'backup', 'migrate', 'start-fleet']);
    const { backup } = ran.json?.result.schema ?? {};
    const releases = (await site.run(['releases'])).json?.result.releases;
    expect(releases[0]).toMatchObject({ verdict: 'live', backup });
    for (let n = 0; n < 2; n += 1) expectDone(await site.run(['db', 'backup']));
    const kept = (await site.run(['db', 'backups', '--verify', 'read'])).json?.result.backups;
    expect(kept.map(({ id }: { id: string }) => id)).toContain(backup);
    expect(kept.find(({ id }: { id: string }) => id === backup)).toMatchObject({
      release: 1,
      newestMigration: '1_players',
      reason: expect.stringContaining('before release'),
    });
  });

  it('that fails after its migrations leaves them applied and says so, and the next deploy has nothing to back up', async () => {
    await given('one', 'two');
    await writeOf('three');
    const failed = await deploy('exits');
    expect(failed.exitCode).toBe(5);
    expect(failed.json?.error?.message).toContain('3_clan stays applied');
    expect(await site.applied()).toEqual(['1_players', '2_rank', '3_clan']);
    const next = await deploy('three');
    expectDone(next);
    expect(kindsOf(next)).not.toContain('backup');
  });

  it('that is killed between migrations and fleet is finished by resume, with one backup and each migration once', async () => {
    await given('one', 'two', 'three');
    await writeOf('killed');
    await game('killed', { needs: '3_deed', knows: '3_deed' });
    const onEvent = (event: Event, child: { kill(signal: NodeJS.Signals): boolean }) => {
      if (event.type === 'step-done' && event.step.kind === 'migrate') child.kill('SIGKILL');
    };
    const args = ['deploy', '--image', made.killed ?? '', ...quick];
    const killed = await site.start(args, { onEvent }).ended;
    expect(killed.signal).toBe('SIGKILL');
    const serving = await live();
    await site.unlocked();
    const { unfinished, schema } = (await site.run(['status'])).json?.result ?? {};
    expect(unfinished).toMatchObject({ verb: 'deploy', previous: serving, stage: 'open' });
    expect(schema).toMatchObject({ current: '3_deed', pending: [] });
    const resumed = await site.run(['resume']);
    expectDone(resumed);
    expect(kindsOf(resumed).slice(0, 1)).toEqual(['start-fleet']);
    expect(await live()).toBe(unfinished.release);
    expect(await site.query("SELECT release FROM gameops.migrations WHERE name = '3_deed'")).toEqual([
      { release: unfinished.release },
    ]);
    const { releases } = (await site.run(['releases'])).json?.result ?? {};
    expect(releases[0].backup).toMatch(/^\d{8}-/);
  });

  it('with --skip-migrations leaves them pending, and refuses at once an image that needs them', async () => {
    await given('one', 'two', 'three', 'killed');
    await makeFour();
    const refused = await deploy('four', '--skip-migrations');
    expect(refused).toMatchObject({ exitCode: 9, json: { error: { code: 'SCHEMA_TOO_OLD' } } });
    expect(kindsOf(refused)).toEqual([]);
    await game('silent');
    expectDone(await deploy('silent', '--skip-migrations'));
    expect(await site.applied()).not.toContain('4_more');
  });

  it('refuses an image below the floor that a contract migration has raised, with a way out', async () => {
    await given('one', 'two', 'three', 'killed');
    await makeFour();
    expectDone(await deploy('four'));
    await site.write(
      '5_drop',
      'ALTER TABLE players DROP rank',
      'ALTER TABLE players ADD rank int',
      'phase=contract reversible=lossy',
    );
    await game('five', { needs: '4_more', knows: '5_drop' });
    expectDone(await deploy('five'));
    // Releases that still use what it removes are kept, so it waits.
    await site.configure({ server: { image: made.five } });
    expect(await site.applied()).not.toContain('5_drop');
    const early = await site.run(['db', 'migrate', '--contract']);
    expect(early).toMatchObject({ exitCode: 9, json: { error: { code: 'RELEASE_NEEDS_SCHEMA' } } });
    expect(await site.applied()).not.toContain('5_drop');
    expectDone(await site.run(['prune', '--keep', '1']));
    const five = (await site.run(['releases'])).json?.result.releases[0].id;
    await game('six', { needs: '4_more', knows: '5_drop' });
    expectDone(await deploy('six'));
    expect(await site.applied()).not.toContain('5_drop');
    // Only five and six are left to go back to, so the next deploy begins with it.
    expectDone(await site.run(['prune', '--keep', '1']));
    await game('seven', { needs: '4_more', knows: '5_drop' });
    const shown = await deploy('seven', '--plan');
    expect(shown.json?.result.plan.steps[2].cause).toContain('1 contract');
    const ran = await deploy('seven');
    expectDone(ran);
    expect(ran.json?.result.schema.applied).toEqual(['5_drop']);
    expect((await site.run(['status'])).json?.result.schema).toMatchObject({ floor: '5_drop' });
    const before = await live();
    for (const more of [[], ['--plan']]) {
      const refused = await deploy('two', ...more);
      expect(refused.json?.error).toMatchObject({ code: 'IMAGE_TOO_OLD' });
      expect(refused.exitCode).toBe(9);
      expect(refused.json?.error?.message).toContain('5_drop');
      expect(refused.json?.error?.next).toContain(`gameops rollback --to ${five + 1}`);
    }
    const past = await site.run(['rollback', '--schema']);
    expect(past).toMatchObject({ exitCode: 9, json: { error: { code: 'MIGRATION_IRREVERSIBLE' } } });
    expect(past.json?.error?.message).toContain('contract');
    expect(await live()).toBe(before);
    // A release that runs keeps what it needs.
    const away = await site.run(['db', 'rollback', '--to', '3_clan', '--accept-loss']);
    expect(away.json?.error?.code).toMatch(/MIGRATION_IRREVERSIBLE|RELEASE_NEEDS_SCHEMA/);
    expectDone(await site.run(['rollback']));
    expect(await live()).toBe(five + 1);
  });
});
