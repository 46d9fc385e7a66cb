import { describe, expect, it } from 'vitest';
import {
  type Backup,
  backupId,
  backupIdPattern,
  copyEstimate,
  type Damage,
  differences,
  dumpEstimate,
  expendable,
  folderReserveBytes,
  type Level,
  type Manifest,
  shortOfRoom,
  undoName,
  writesSince,
} from '../../../src/database/backup/model.ts';
import { mustKnow } from '../../../src/database/backup/take.ts';

const manifest = (over: Partial<Manifest> = {}): Manifest => ({
  format: 1,
  id: 'x',
  project: 'arena',
  database: 'arena',
  takenAt: '',
  ms: 1,
  bytes: 100,
  sha256: '',
  serverVersion: '18.6',
  toolVersion: '18.6',
  image: '',
  databaseBytes: 1_000,
  fingerprint: 'f',
  newestMigration: null,
  rows: {},
  release: null,
  reason: '',
  activity: { databaseOid: 1, since: null, tables: {} },
  verified: { level: 'read', at: '', ms: 1 },
  ...over,
});

const backup = (id: string, level: Level = 'read', damage: Damage | null = null): Backup => ({
  id,
  path: id,
  damage,
  manifest: manifest({ id, verified: { level, at: '', ms: 1 } }),
});

const gone = (backups: Backup[], keep: number, ...pinned: string[]) =>
  expendable(backups, keep, new Set(pinned)).map(({ id }) => id);

describe('retention of backups', () => {
  it('removes the oldest first, and only as many as exceed the limit', () => {
    const all = ['5', '3', '4', '1', '2'].map((id) => backup(id));
    expect(gone(all, 3)).toEqual(['1', '2']);
    expect(gone(all, 5)).toEqual([]);
    expect(gone([], 1)).toEqual([]);
  });

  it('never removes the newest backup that was read to its end, however old it is', () => {
    const all = [
      backup('5', 'sha256'),
      backup('4', 'sha256'),
      backup('3', 'sha256'),
      backup('2'),
      backup('1'),
    ];
    expect(gone(all, 1)).toEqual(['1', '3', '4']);
  });

  it('counts a trial restore as good as reading', () => {
    expect(gone([backup('3', 'sha256'), backup('2', 'restore'), backup('1')], 1)).toEqual(['1']);
  });

  it('never removes a backup that a kept release points to', () => {
    const all = ['4', '3', '2', '1'].map((id) => backup(id));
    expect(gone(all, 1, '2')).toEqual(['1', '3']);
  });

  it('neither counts nor removes a damaged backup', () => {
    const noManifest = { ...backup('9', 'read', 'no manifest'), manifest: null };
    expect(
      gone([noManifest, backup('4', 'read', 'size differs'), backup('3'), backup('2'), backup('1')], 2),
    ).toEqual(['1']);
  });

  it('keeps one backup even when it is asked to keep none', () => {
    expect(gone([backup('2'), backup('1')], 0)).toEqual(['1']);
  });
});

describe('the disk space for a backup', () => {
  it('is estimated from the last dump plus a half, or from the whole database without a last dump', () => {
    expect(dumpEstimate(2_000, manifest({ bytes: 100, databaseBytes: 1_000 }))).toBe(300);
    expect(dumpEstimate(2_000, manifest({ bytes: 900, databaseBytes: 1_000 }))).toBe(2_000);
    expect(dumpEstimate(2_000, null)).toBe(2_000);
    expect(dumpEstimate(2_000, manifest({ databaseBytes: 0 }))).toBe(2_000);
  });

  it('includes a fifth more than the database for a second copy, and a reserve', () => {
    expect(copyEstimate(1_000)).toBe(1_200);
    expect(shortOfRoom({ bytes: 10, where: 'x' }, folderReserveBytes + 10)).toBeNull();
    expect(shortOfRoom({ bytes: 11, where: 'the disk' }, folderReserveBytes + 10)).toMatch(
      /^the disk has 64 MB free/,
    );
  });
});

describe('names', () => {
  it('of backups sort by time', () => {
    const id = backupId(new Date('2026-11-24T22:30:05.999Z'), '1a2b');
    expect(id).toBe('20261124-223005-1a2b');
    expect(id).toMatch(backupIdPattern);
  });

  it('of databases put aside fit into the 63 bytes that Postgres keeps, whatever the alphabet', () => {
    const at = new Date('2026-11-24T22:30:05Z');
    expect(undoName('arena', at)).toBe('arena_before_20261124223005');
    for (const long of ['a'.repeat(63), 'ä'.repeat(31), '竜'.repeat(21)]) {
      expect(Buffer.byteLength(undoName(long, at))).toBeLessThanOrEqual(63);
      expect(undoName(long, at)).toMatch(/_before_20261124223005$/);
    }
  });
});

describe('what a restore would lose', () => {
  const at = (inserted: number, updated = 0, deleted = 0) => ({ inserted, updated, deleted });
  const then = manifest({
    rows: { 'public.a': 10, 'public.b': 5 },
    activity: { databaseOid: 1, since: null, tables: { 'public.a': at(10), 'public.b': at(5, 2) } },
  });
  const activity = (tables: Manifest['activity']['tables'], over = {}) => ({
    databaseOid: 1,
    since: null,
    tables,
    ...over,
  });

  it('is counted since the backup, the most written table first, and includes new tables', () => {
    const now = activity({ 'public.a': at(13, 4, 1), 'public.b': at(5, 2), 'public.c': at(100) });
    expect(writesSince(then, now, { 'public.a': 12, 'public.b': 5, 'public.c': 100 })).toEqual({
      writes: { inserted: 103, updated: 4, deleted: 1 },
      tables: [
        { table: 'public.c', rowsThen: null, rowsNow: 100, writes: 100 },
        { table: 'public.a', rowsThen: 10, rowsNow: 12, writes: 8 },
      ],
    });
  });

  it.each([
    ['another database', { databaseOid: 2 }],
    ['a reset of the counters', { since: '2026-01-01' }],
  ])('is unknown after %s, and only the counts of rows are shown', (_what, over) => {
    const loss = writesSince(then, activity({ 'public.a': at(100) }, over), {
      'public.a': 12,
      'public.b': 5,
    });
    expect(loss).toEqual({
      writes: null,
      tables: [{ table: 'public.a', rowsThen: 10, rowsNow: 12, writes: null }],
    });
  });

  it('is unknown after a crash, which resets the counters silently', () => {
    expect(writesSince(then, activity({ 'public.a': at(3) }), null).writes).toBeNull();
  });

  it('is nothing when nothing was written', () => {
    const same = writesSince(then, then.activity, then.rows);
    expect(same).toEqual({ writes: { inserted: 0, updated: 0, deleted: 0 }, tables: [] });
  });
});

describe('the content of a restored dump', () => {
  const facts = { rows: { 'public.a': 1 }, fingerprint: '2.18:f' };
  it('is compared table by table, and by schema', () => {
    expect(differences(facts, facts)).toEqual([]);
    expect(differences(facts, { ...facts, rows: { 'public.a': 2 } })).toEqual(['public.a: 2 instead of 1']);
    expect(differences(facts, { ...facts, rows: {} })).toEqual(['public.a: no table instead of 1']);
    expect(differences(facts, { ...facts, fingerprint: '2.18:g' })).toEqual(['the schema differs']);
  });

  it('is not compared by schema on another version of the server, which writes the same schema in other words', () => {
    for (const fingerprint of ['2.19:g', '3.18:g'])
      expect(differences(facts, { ...facts, fingerprint })).toEqual([]);
  });
});

describe('pg_dump', () => {
  it('must have the major version of the server, because a dump of an older server could not be restored there', () => {
    const refused = () => mustKnow({ version: '17.9', image: 'postgres:17' }, '18.1 (Debian)');
    expect(refused).toThrow(/Postgres 18.1, but pg_dump of postgres:17 is 17.9/);
    mustKnow({ version: '18.0', image: '' }, '18.6');
    expect(() => mustKnow({ version: '18.0', image: 'postgres:18' }, '15.18')).toThrow(
      /Postgres 15.18, but pg_dump of postgres:18 is 18.0 and makes dumps that could not be restored there/,
    );
  });
});
