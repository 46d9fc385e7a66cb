/** What --yes answers, and what it does not. */
import { describe, expect, it } from 'vitest';
import { lossText } from '../../../src/database/migrate/back.ts';
import { type Context, confirmLoss, confirmWayBack } from '../../../src/operations/context.ts';
import { confirmSchemaLoss } from '../../../src/operations/database/schema-back.ts';
import { release } from '../../support/memory/worlds.ts';

const context = (over: Partial<Context> = {}): Context =>
  ({ verb: 'rollback', project: 'arena', yes: true, isInteractive: false, ...over }) as Context;

const loss = { migration: '2_b', table: 'public.a', columns: ['gold'], rows: 2, since: '2026-11-26T10:00' };
const uncounted = [{ migration: '3_c', what: 'drops the schema shop and everything that depends on it' }];

describe('--yes', () => {
  it('confirms the loss of volumes and restores', async () => {
    await confirmLoss(context(), 'This removes all data.', '--volumes');
    await expect(confirmLoss(context({ yes: false }), 'This removes it.', '--volumes')).rejects.toMatchObject(
      {
        code: 'CONFIRMATION_NEEDED',
        next: ['gameops rollback --volumes --yes'],
      },
    );
  });

  it('does not accept what reverting a migration loses, and the error names the flag that does', async () => {
    const asked = confirmWayBack(context(), 'It loses much.', ['gameops db rollback --accept-loss']);
    await expect(asked).rejects.toMatchObject({
      code: 'CONFIRMATION_NEEDED',
      message: expect.stringContaining('--yes does not accept this loss'),
      next: ['gameops db rollback --accept-loss'],
    });
  });

  it('lets a rollback restore a backup, but not revert migrations with losses', async () => {
    const target = release(39, 'superseded');
    const back = { left: 42, loss: 'It loses.', losses: [], uncounted: [] };
    const restore = { ...back, wish: { kind: 'restore' as const, backup: 'b39' } };
    await confirmSchemaLoss(context(), { options: { restoreBackup: 'b39' }, target }, restore);
    const wish = { kind: 'take-back' as const, migrations: ['4_d'], acceptLoss: true };
    const ask = (options: object, more: object = {}) =>
      confirmSchemaLoss(context(), { options, target }, { ...back, wish, ...more });
    await expect(ask({ schema: true, to: 39 })).rejects.toMatchObject({
      code: 'CONFIRMATION_NEEDED',
      next: [expect.stringContaining('gameops rollback --schema --to 39 --accept-loss')],
    });
    await expect(ask({ schema: true }, { uncounted })).rejects.toMatchObject({
      next: [expect.stringContaining('gameops db backup'), 'gameops rollback --schema --accept-loss'],
    });
    await ask({ schema: true, acceptLoss: true }, { uncounted });
  });
});

describe('what would be lost', () => {
  it('is shown in two parts: rows that are saved first, and data that is not', () => {
    expect(lossText({ losses: [loss], uncounted: [] })).toBe(
      'Saved before it is removed: public.a (gold): 2 rows since 2026-11-26 10:00.',
    );
    expect(lossText({ losses: [], uncounted })).toBe(
      'NOT counted and NOT saved: 3_c drops the schema shop and everything that depends on it. Only a backup has it (gameops db backup).',
    );
    expect(lossText({ losses: [loss], uncounted })).toMatch(/^Saved before .* NOT counted/);
  });
});
