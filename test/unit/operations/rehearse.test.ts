/** Which backup a rehearsal starts from, and that it names the migrations it leaves out. */
import { expect, it } from 'vitest';
import type { Backup } from '../../../src/database/backup/model.ts';
import { isOfNow, type Rehearsal, rehearsalText } from '../../../src/operations/database/rehearse.ts';
import { styleFor } from '../../../src/report/style.ts';

const plain = styleFor({ isTty: false, refused: true, env: {} });
const now = { fingerprint: 'print', newestMigration: '2_rows' };
const backup = (change: object = {}, damage: Backup['damage'] = null) =>
  ({
    damage,
    manifest: { database: 'arena', verified: { level: 'read' }, ...now, ...change },
  }) as unknown as Backup;

it('a rehearsal starts from a backup with the present schema, not from one before a migration that changed only rows', () => {
  expect(isOfNow(backup(), 'arena', now)).toBe(true);
  expect(isOfNow(backup({ newestMigration: '1_table' }), 'arena', now)).toBe(false);
  expect(isOfNow(backup({ fingerprint: 'other' }), 'arena', now)).toBe(false);
  expect(isOfNow(backup({ verified: { level: 'sha256' } }), 'arena', now)).toBe(false);
  expect(isOfNow(backup({}, 'unreadable'), 'arena', now)).toBe(false);
});

it('a rehearsal names the contract migrations that it leaves out', () => {
  const seen: Rehearsal = {
    pending: [],
    notRehearsed: ['3_drop'],
    backup: null,
    release: null,
    joined: null,
    oneWay: [],
    steps: [],
    ms: 0,
  };
  expect(rehearsalText(plain, seen)).toContain('not rehearsed: 3_drop');
  expect(rehearsalText(plain, { ...seen, notRehearsed: [] })).not.toContain('not rehearsed');
});
