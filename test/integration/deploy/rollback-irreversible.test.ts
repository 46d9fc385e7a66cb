/** Rollbacks past a migration that can't be reverted: what is refused, and how a backup leads back all the same. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { mendAfterFailure } from '../../support/mend.ts';
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
const live = () => rollbackSite.live();

beforeAll(async () => {
  rollbackSite = await openRollbackSite({ one: '1_players', two: '2_rank', three: '3_note' });
  ({ site } = rollbackSite);
});
afterAll(() => rollbackSite?.close());
mendAfterFailure(() => site);

describe('a rollback past an irreversible migration', () => {
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

  it('is refused before anything is changed, with the reason and three alternatives', async () => {
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

  it('restores the backup from before that migration, after players are on the earlier release', async () => {
    const args = ['rollback', '--restore-backup', backup];
    const refused = await site.run(args);
    expect(refused).toMatchObject({ exitCode: 2, json: { error: { code: 'CONFIRMATION_NEEDED' } } });
    expect(refused.json?.error?.message).toContain('public.players (3 rows then, 4 now)');
    const killed = await rollbackSite.killedAt('step-done', 'restore', [...args, '--yes']);
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

  it('refuses a backup that lacks a migration which the release needs, and a backup that does not exist', async () => {
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

  it('with `db restore` instead says which release needs a missing migration, before it asks for a confirmation', async () => {
    const oldest = (await site.run(['db', 'backups'])).json?.result.backups.at(-1).id;
    const asked = await site.run(['db', 'restore', oldest]);
    expect(asked).toMatchObject({ exitCode: 2, json: { error: { code: 'CONFIRMATION_NEEDED' } } });
    expect(asked.json?.error?.message).toContain(`Release ${before} runs and needs 2_rank`);
    expect(asked.json?.error?.message).toContain(`gameops rollback --restore-backup ${oldest}`);
  });
});
