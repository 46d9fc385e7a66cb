/** How node-pg-migrate bites, one by one, and what gameops makes of it; the ledger; the way back. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runner } from 'node-pg-migrate';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { migrateBack, migrationsAfter, planBack } from '../../../src/database/migrate/back.ts';
import { listMigrations } from '../../../src/database/migrate/files.ts';
import { migrateForward, pendingMigrations } from '../../../src/database/migrate/forward.ts';
import { ledgerFormat, readLedger } from '../../../src/database/migrate/ledger.ts';
import { stepSum } from '../../../src/database/migrate/one.ts';
import { statusOf } from '../../../src/database/migrate/status.ts';
import {
  type DatabaseEndpoint,
  databaseEndpoint,
  withClient,
} from '../../../src/database/server/connection.ts';
import { type SumRule, sumRules } from '../../../src/database/sql/sum-rules.ts';
import { checksum } from '../../../src/database/sql/sums.ts';
import type { Event } from '../../../src/report/events.ts';
import { openTestProject, type TestProject } from '../../support/site/accessories.ts';

let on: TestProject;
let endpoint: DatabaseEndpoint;
let dir: string;
let events: Event[];

beforeAll(async () => {
  on = await openTestProject('ledger');
  await on.ensure();
  endpoint = await databaseEndpoint(on.engine, on.project, on.settings);
});
afterAll(() => on?.remove());

beforeEach(async () => {
  await query('DROP SCHEMA IF EXISTS gameops CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public');
  dir = await mkdtemp(join(tmpdir(), 'gameops-ledger-'));
  events = [];
  return () => rm(dir, { recursive: true });
});

const options = () => ({ emit: (event: Event) => events.push(event) });
const notes = () => events.flatMap((event) => (event.type === 'note' ? [event.message] : [])).join('\n');
const query = (sql: string) => withClient(endpoint, async (client) => (await client.query(sql)).rows);
const write = (name: string, up: string, down: string, header = '') =>
  writeFile(
    join(dir, `${name}.sql`),
    `-- gameops: ${header}\n-- Up Migration\n${up};\n-- Down Migration\n${down};\n`,
  );
const forward = (over = {}) => migrateForward(endpoint, dir, { ...options(), ...over });
const back = (choice: Parameters<typeof migrateBack>[2], over = {}) =>
  migrateBack(endpoint, dir, choice, { ...options(), ...over });
const ledger = () => withClient(endpoint, readLedger);
const state = async () => {
  const files = await listMigrations(dir);
  return withClient(endpoint, (client) => statusOf(client, files));
};
const appliedNames = async () => (await ledger()).applied.map(({ name }) => name);
const isThere = async (name: string) => (await query(`SELECT to_regclass('${name}') AS it`))[0].it !== null;
const rules = async () => (await state()).findings.map(({ rule, file }) => `${rule} ${file}`);
const off = 'transaction=off';

describe('pitfalls of node-pg-migrate that gameops avoids', () => {
  it('a file without an Up marker is refused, because its down part would run as an up', async () => {
    await writeFile(join(dir, '1_a.sql'), 'CREATE TABLE a (id int);\n-- Down Migration\nDROP TABLE a;');
    await expect(forward()).rejects.toMatchObject({ code: 'MIGRATION_INVALID', facts: { file: '1_a.sql' } });
  });

  it('a comment that begins like a marker is refused, because the rest of the up part would be skipped', async () => {
    await write(
      '1_a',
      'CREATE TABLE a (id int);\n-- Down migration is hard\nCREATE TABLE b (id int)',
      'DROP TABLE a',
    );
    await expect(forward()).rejects.toMatchObject({ code: 'MIGRATION_INVALID' });
    expect(await isThere('a')).toBe(false);
  });

  it('an empty down part is refused, because it would "succeed" and leave the table', async () => {
    await writeFile(join(dir, '1_a.sql'), '-- Up Migration\nCREATE TABLE a (id int);\n-- Down Migration\n');
    await expect(forward()).rejects.toMatchObject({ code: 'MIGRATION_INVALID' });
  });

  it('a rollback that includes an irreversible migration is refused before anything runs, with three ways out', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    await writeFile(
      join(dir, '2_b.sql'),
      '-- gameops: reversible=no\n-- Up Migration\nDROP TABLE IF EXISTS x;\n-- Down Migration\n',
    );
    await write('3_c', 'CREATE TABLE c (id int)', 'DROP TABLE c');
    await forward();
    const error = await back({ count: 3 }).catch((it) => it);
    expect(error).toMatchObject({ code: 'MIGRATION_IRREVERSIBLE', exitCode: 9, facts: { migration: '2_b' } });
    expect(error.next).toHaveLength(3);
    expect(await appliedNames()).toEqual(['1_a', '2_b', '3_c']);
    expect(await isThere('c')).toBe(true);
  });

  it('a file that was changed after it was applied is reported by status, and refused before anything runs', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    await forward();
    await write('1_a', 'CREATE TABLE a (id bigint)', 'DROP TABLE a');
    await write('2_b', 'CREATE TABLE b (id int)', 'DROP TABLE b');
    expect(await rules()).toEqual(['changed 1_a.sql']);
    await expect(forward()).rejects.toMatchObject({ code: 'MIGRATION_INVALID', facts: { file: '1_a.sql' } });
    await expect(withClient(endpoint, (client) => pendingMigrations(client, dir))).rejects.toMatchObject({
      code: 'MIGRATION_INVALID',
    });
    await write('1_a', '-- only its looks\nCREATE TABLE   a\n(id int)', 'DROP TABLE a');
    expect((await forward()).applied).toHaveLength(1);
  });

  it('an applied migration whose file is gone is reported, and can still be reverted', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    await write('2_b', 'CREATE TABLE b (id int)', 'DROP TABLE b');
    await forward();
    await rm(join(dir, '2_b.sql'));
    expect(await rules()).toEqual(['missing 2_b.sql']);
    expect((await forward()).applied).toEqual([]);
    expect((await back({ count: 1 })).reverted).toMatchObject([{ name: '2_b', source: 'ledger' }]);
    expect(await isThere('b')).toBe(false);
    expect(await appliedNames()).toEqual(['1_a']);
  });

  it('migrations are reverted from the ledger alone when the whole folder is gone', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    await forward();
    expect((await migrateBack(endpoint, null, { count: 9 }, options())).reverted).toHaveLength(1);
    expect(await isThere('a')).toBe(false);
  });

  it('a migration out of order is reported and applied, and does not block later runs', async () => {
    await write('2_b', 'CREATE TABLE b (id int)', 'DROP TABLE b');
    await forward();
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    expect(await rules()).toEqual(['out-of-order 1_a.sql']);
    await forward();
    expect(notes()).toContain('out of order');
    await write('3_c', 'CREATE TABLE c (id int)', 'DROP TABLE c');
    await forward();
    expect(await appliedNames()).toEqual(['2_b', '1_a', '3_c']);
    expect((await back({ count: 2 })).reverted.map(({ name }) => name)).toEqual(['3_c', '1_a']);
  });

  it('a migration outside of a transaction is reverted with its batch when a later one fails', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    await write('2_i', 'CREATE INDEX CONCURRENTLY a_id ON a (id)', 'DROP INDEX CONCURRENTLY a_id', off);
    await write('3_c', 'SELECT 1 / 0', 'SELECT 1');
    await expect(forward()).rejects.toMatchObject({
      code: 'MIGRATION_FAILED',
      facts: { migration: '3_c', applied: [], reverted: ['2_i', '1_a'] },
    });
    expect(await isThere('a')).toBe(false);
    expect(await appliedNames()).toEqual([]);
  });

  it('a concurrent index in SQL can be built and reverted', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    await write('2_i', 'CREATE INDEX CONCURRENTLY a_id ON a (id)', 'DROP INDEX CONCURRENTLY a_id', off);
    await forward();
    expect(await query(`SELECT indisvalid FROM pg_index WHERE indexrelid = 'a_id'::regclass`)).toEqual([
      { indisvalid: true },
    ]);
    await back({ count: 1 });
    expect(await isThere('a_id')).toBe(false);
    expect(await query('SELECT count(*)::int AS n FROM gameops.steps')).toEqual([{ n: 0 }]);
  });

  it('a COMMIT in SQL or in code is refused: a batch would lose its atomicity', async () => {
    await write('1_a', 'CREATE TABLE a (id int); COMMIT', 'DROP TABLE a');
    await expect(forward()).rejects.toMatchObject({ code: 'MIGRATION_INVALID' });
    await rm(join(dir, '1_a.sql'));
    await writeFile(
      join(dir, '1_a.mjs'),
      `export const up = (pgm) => { pgm.createTable('a', { id: 'id' }); pgm.sql('COMMIT'); };`,
    );
    await expect(forward()).rejects.toMatchObject({ code: 'MIGRATION_INVALID' });
    expect(await isThere('a')).toBe(false);
  });

  it('a concurrent index that fails leaves no invalid index behind, and the next run succeeds', async () => {
    await query('CREATE TABLE a (id int); INSERT INTO a VALUES (1), (1)');
    await write(
      '1_i',
      'CREATE UNIQUE INDEX CONCURRENTLY a_id ON a (id)',
      'DROP INDEX CONCURRENTLY a_id',
      off,
    );
    await expect(forward()).rejects.toMatchObject({ code: 'MIGRATION_FAILED', facts: { sqlstate: '23505' } });
    expect(await isThere('a_id')).toBe(false);
    await query('DELETE FROM a');
    expect((await forward()).applied).toHaveLength(1);
  });

  it('an invalid index that somebody else left is dropped and built anew', async () => {
    await query('CREATE TABLE a (id int); INSERT INTO a VALUES (1), (1)');
    await query('CREATE UNIQUE INDEX CONCURRENTLY a_id ON a (id)').catch(() => {});
    await query('DELETE FROM a');
    await write(
      '1_i',
      'CREATE UNIQUE INDEX CONCURRENTLY a_id ON a (id)',
      'DROP INDEX CONCURRENTLY a_id',
      off,
    );
    expect((await forward()).applied).toHaveLength(1);
    expect(await query(`SELECT indisvalid FROM pg_index WHERE indexrelid = 'a_id'::regclass`)).toEqual([
      { indisvalid: true },
    ]);
  });

  it('a new value of an enum can be used by the next migration of the same run', async () => {
    await write('1_a', `CREATE TYPE mood AS ENUM ('a')`, 'DROP TYPE mood');
    await write('2_b', `ALTER TYPE mood ADD VALUE 'b'`, 'SELECT 1');
    await write('3_c', `CREATE TABLE m (it mood); INSERT INTO m VALUES ('b')`, 'DROP TABLE m');
    expect((await forward()).applied).toHaveLength(3);
  });

  it('listing pending migrations creates nothing in the database, and runs no code of a migration', async () => {
    await writeFile(join(dir, '1_a.mjs'), `throw new Error('it ran');`);
    const pending = await withClient(endpoint, (client) => pendingMigrations(client, dir));
    expect(pending.expand).toEqual(['1_a']);
    expect((await state()).pending).toHaveLength(1);
    expect(await query(`SELECT to_regclass('pgmigrations') AS a, to_regnamespace('gameops') AS b`)).toEqual([
      { a: null, b: null },
    ]);
  });

  it('after a failure neither a transaction nor the lock is left', async () => {
    await write('1_a', 'SELECT 1 / 0', 'SELECT 1');
    await expect(forward()).rejects.toMatchObject({ code: 'MIGRATION_FAILED' });
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    expect((await forward({ waitMs: 500 })).applied).toHaveLength(1);
  });

  it('a setting that a migration changes for its connection does not affect the next migration', async () => {
    await write('1_a', `SET search_path = pg_catalog; SET lock_timeout = 0`, 'SELECT 1');
    await write('2_b', 'CREATE TABLE b (id int)', 'DROP TABLE b');
    await forward();
    expect(await isThere('public.b')).toBe(true);
  });
});

describe('the ledger', () => {
  it('holds both texts of a migration, their checksum and the release that brought it', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a', 'reversible=lossy');
    await forward({ release: 7 });
    expect(
      await query(
        'SELECT name, release, phase, reversible, up, down, up_sum ~ $$^[0-9a-f]{64}$$ AS sum FROM gameops.migrations',
      ),
    ).toEqual([
      {
        name: '1_a',
        release: 7,
        phase: 'expand',
        reversible: 'lossy',
        sum: true,
        up: 'CREATE TABLE a (id int);',
        down: 'DROP TABLE a;',
      },
    ]);
    await write('2_b', 'CREATE TABLE b (id int)', 'DROP TABLE b');
    await forward({ release: 8 });
    expect(migrationsAfter(await ledger(), 7)).toEqual(['2_b']);
  });

  it('adopts the migrations that node-pg-migrate applied, with the text of their files', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    await write('2_b', 'CREATE TABLE b (id int)', 'DROP TABLE b');
    const silent = { debug() {}, info() {}, warn() {}, error() {} };
    await withClient(endpoint, (dbClient) =>
      runner({ dbClient, dir, direction: 'up', migrationsTable: 'pgmigrations', logger: silent }),
    );
    expect(await rules()).toEqual(['not-in-ledger 1_a.sql', 'not-in-ledger 2_b.sql']);
    await forward();
    expect((await ledger()).applied.map(({ row }) => row?.origin)).toEqual(['adopted', 'adopted']);
    await rm(join(dir, '2_b.sql'));
    expect((await back({ count: 1 })).reverted).toMatchObject([{ name: '2_b', source: 'ledger' }]);
  });

  it('refuses to revert a migration that only node-pg-migrate knows and whose file is gone', async () => {
    await query(`CREATE TABLE pgmigrations (id serial PRIMARY KEY, name varchar(255) NOT NULL, run_on timestamp NOT NULL);
      INSERT INTO pgmigrations (name, run_on) VALUES ('1_old', now())`);
    await expect(back({ count: 1 })).rejects.toMatchObject({ code: 'MIGRATION_IRREVERSIBLE' });
  });

  it('counts a migration as pending again when node-pg-migrate reverted it without gameops', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    await forward();
    await query(`DROP TABLE a; DELETE FROM pgmigrations`);
    expect((await state()).pending).toHaveLength(1);
    expect((await forward()).applied).toHaveLength(1);
    expect(await isThere('a')).toBe(true);
  });

  it('raises its floor with contract migrations only', async () => {
    await write('1_a', 'CREATE TABLE a (id int, x int)', 'DROP TABLE a');
    await forward();
    expect((await ledger()).floor).toBeNull();
    await write('2_b', 'ALTER TABLE a DROP x', 'ALTER TABLE a ADD x int', 'phase=contract reversible=lossy');
    await write('3_c', 'ALTER TABLE a ADD y int', 'ALTER TABLE a DROP y');
    await forward();
    expect((await ledger()).floor).toBeNull();
    await forward({ names: ['2_b'] });
    expect((await ledger()).floor).toBe('2_b');
    await expect(back({ names: ['2_b'] })).rejects.toMatchObject({ code: 'MIGRATION_IRREVERSIBLE' });
  });

  it('is left alone when a newer gameops wrote it', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    await forward();
    await query('UPDATE gameops.state SET format = 99');
    await expect(forward()).rejects.toMatchObject({ code: 'FORMAT_TOO_NEW' });
  });

  it('shows when somebody changed the schema without a migration', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    await forward();
    expect(await rules()).toEqual([]);
    await query('CREATE INDEX by_hand ON a (id)');
    const [drift] = (await state()).findings;
    expect(drift).toMatchObject({ rule: 'drift', severity: 'warning' });
    expect(drift?.message).toContain('by_hand');
  });
});

describe('checksums in the ledger', () => {
  /** A normal form that no older rule has: `CREATE TABLE a` and `create table a` are the same to it. */
  const withNewerRule = async (work: () => Promise<void>) => {
    const rules = sumRules as SumRule[];
    rules.push((sql) => sql.toLowerCase().replace(/\s+/g, ''));
    try {
      await work();
    } finally {
      rules.pop();
    }
  };
  const sums = async () =>
    (await query('SELECT up_sum FROM gameops.migrations ORDER BY name')).map(({ up_sum }) => up_sum);

  it('do not make a migration of an older gameops count as changed when a newer rule gives another checksum', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    await forward();
    // As gameops wrote it before checksums had versions.
    const [before] = await sums();
    expect(before).toBe('6e70fcd8fa64aaecba4287f3d3313df4303b5e9420cd804c261c029d886ee4d8');
    await withNewerRule(async () => {
      expect(checksum('CREATE TABLE a (id int);')).not.toBe(before);
      await write('2_b', 'CREATE TABLE b (id int)', 'DROP TABLE b');
      expect(await rules()).toEqual([]);
      expect((await forward()).applied.map(({ name }) => name)).toEqual(['2_b']);
      expect(await rules()).toEqual([]);
      expect(await sums()).toEqual([before, expect.stringMatching(/^2:[0-9a-f]{64}$/)]);
    });
  });

  it('find a changed migration by the rule that made its checksum, whether an older or a newer one', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    await forward();
    await withNewerRule(async () => {
      await write('2_b', 'CREATE TABLE b (id int)', 'DROP TABLE b');
      await forward();
      await write('2_b', 'CREATE TABLE B (id INT)', 'DROP TABLE B');
      expect(await rules()).toEqual([]);
      await write('1_a', 'CREATE TABLE a (id bigint)', 'DROP TABLE a, x');
      expect(await rules()).toEqual(['changed 1_a.sql']);
      await expect(forward()).rejects.toMatchObject({
        code: 'MIGRATION_INVALID',
        facts: { file: '1_a.sql' },
      });
      await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a, x');
      await write('2_b', 'CREATE TABLE b (id bigint)', 'DROP TABLE b');
      expect(await rules()).toEqual(['changed-down 1_a.sql', 'changed 2_b.sql']);
    });
  });

  it('stop everything when only a newer gameops knows their rule, because no change could be found', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    await withNewerRule(async () => void (await forward()));
    await expect(state()).rejects.toMatchObject({ code: 'FORMAT_TOO_NEW' });
    await expect(forward()).rejects.toMatchObject({ code: 'FORMAT_TOO_NEW' });
  });

  it('let a migration that an older gameops left half applied continue, not start again', async () => {
    const build = 'CREATE INDEX CONCURRENTLY a_x ON a (x)';
    await write('1_a', 'CREATE TABLE a (x int)', 'DROP TABLE a');
    await forward();
    await write('2_i', build, 'DROP INDEX CONCURRENTLY a_x', off);
    await query(build);
    await query(`INSERT INTO gameops.steps (migration, direction, step, sum, undo, done)
      VALUES ('2_i', 'up', 0, '${stepSum(build)}', 'DROP INDEX CONCURRENTLY IF EXISTS public.a_x', false)`);
    const [before] = await query(`SELECT 'a_x'::regclass::oid AS oid`);
    await withNewerRule(async () => void (await forward()));
    expect(await query(`SELECT 'a_x'::regclass::oid AS oid`)).toEqual([before]);
  });

  it('get the present format of the ledger from whichever of two runs comes first', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    await forward();
    await query('UPDATE gameops.state SET format = 0');
    await write('2_b', 'CREATE TABLE b (id int)', 'DROP TABLE b');
    const both = await Promise.all([forward(), forward()]);
    expect(both.flatMap(({ applied }) => applied)).toHaveLength(1);
    expect(await query('SELECT format FROM gameops.state')).toEqual([{ format: ledgerFormat }]);
  });
});

describe('a migration outside of a transaction that a killed run left half done', () => {
  const build = 'CREATE INDEX CONCURRENTLY a_x ON a (x)';
  const drop = 'DROP INDEX CONCURRENTLY a_x';
  const begun = (direction: string, statement: string, undo: string) =>
    query(`INSERT INTO gameops.steps (migration, direction, step, sum, undo, done)
      VALUES ('2_i', '${direction}', 0, '${stepSum(statement)}', '${undo}', false)`);
  const oid = async () => (await query(`SELECT to_regclass('a_x')::oid AS oid`))[0].oid;

  beforeEach(async () => {
    await write('1_a', 'CREATE TABLE a (x int)', 'DROP TABLE a');
    await forward();
    await write('2_i', build, drop, off);
  });

  it('is reported by status, and its finished index is not built again', async () => {
    await begun('up', build, 'DROP INDEX CONCURRENTLY IF EXISTS public.a_x');
    await query(build);
    const before = await oid();
    expect(await rules()).toEqual(['unfinished 2_i.sql']);
    expect((await forward()).applied).toHaveLength(1);
    expect(await oid()).toBe(before);
    expect(await rules()).toEqual([]);
  });

  it('is undone by a rollback when it was half applied', async () => {
    await begun('up', build, 'DROP INDEX CONCURRENTLY IF EXISTS public.a_x');
    await query(build);
    expect((await back({ count: 1 })).reverted.map(({ name }) => name)).toEqual(['1_a']);
    expect(await query('SELECT * FROM gameops.steps')).toEqual([]);
  });

  it('is restored by the next migration run when it was half reverted', async () => {
    await forward();
    await begun('down', drop, 'CREATE INDEX CONCURRENTLY a_x ON public.a USING btree (x)');
    await query(drop);
    await forward();
    expect(await isThere('a_x')).toBe(true);
    expect((await back({ count: 1 })).reverted).toHaveLength(1);
    expect(await isThere('a_x')).toBe(false);
  });

  it('is undone when the text of its file has changed', async () => {
    await begun('up', build, 'DROP INDEX CONCURRENTLY IF EXISTS public.a_x');
    await query(build);
    await write('2_i', 'CREATE INDEX CONCURRENTLY a_other ON a (x)', 'DROP INDEX CONCURRENTLY a_other', off);
    await forward();
    expect([await isThere('a_x'), await isThere('a_other')]).toEqual([false, true]);
  });

  it('continues after a detached partition, and writes rows once', async () => {
    await query(
      'CREATE TABLE p (x int) PARTITION BY RANGE (x); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (9)',
    );
    await write(
      '2_i',
      'ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY; INSERT INTO a VALUES (1); VACUUM a; REINDEX TABLE CONCURRENTLY a; SELECT 1 / (SELECT count(*) FROM p)',
      'SELECT 1',
      `${off} reversible=no`,
    );
    await expect(forward()).rejects.toMatchObject({ code: 'MIGRATION_FAILED' });
    expect(notes()).toContain("can't be undone");
    await query('INSERT INTO p1 VALUES (1); ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (1) TO (9)');
    expect((await forward()).applied).toHaveLength(1);
    expect(await query('SELECT * FROM a')).toEqual([{ x: 1 }]);
  });
});

describe('a migration in code', () => {
  it('without a down function must be marked as irreversible', async () => {
    const text = `export const up = (pgm) => pgm.sql('SELECT 1'); export const down = false;`;
    await writeFile(join(dir, '1_a.mjs'), text);
    await expect(forward()).rejects.toMatchObject({ code: 'MIGRATION_INVALID' });
    await rm(join(dir, '1_a.mjs'));
    await writeFile(join(dir, '2_a.mjs'), `// gameops: reversible=no\n${text}`);
    expect((await forward()).applied).toHaveLength(1);
    await expect(back({ count: 1 })).rejects.toMatchObject({ code: 'MIGRATION_IRREVERSIBLE' });
  });

  it('is reverted without its file as long as its down function asks no database', async () => {
    await writeFile(
      join(dir, '1_a.ts'),
      `// gameops: phase=expand reversible=yes
       import type { MigrationBuilder } from 'node-pg-migrate';
       export const up = (pgm: MigrationBuilder): void => { pgm.createTable('a', { id: 'id', n: 'int' }); };`,
    );
    await forward();
    expect(await isThere('a')).toBe(true);
    await rm(join(dir, '1_a.ts'));
    await back({ count: 1 });
    expect(await isThere('a')).toBe(false);
  });

  it('asks the database inside of its transaction, so that a failure also rolls back its own queries', async () => {
    await writeFile(
      join(dir, '1_a.mjs'),
      `export const up = async (pgm) => { await pgm.db.query('CREATE TABLE a (id int)'); pgm.sql('SELECT 1 / 0'); };
       export const down = async (pgm) => { await pgm.db.query('DROP TABLE a'); };`,
    );
    await expect(forward()).rejects.toMatchObject({ code: 'MIGRATION_FAILED' });
    expect(await isThere('a')).toBe(false);
  });

  it('whose down function asks the database needs its file to be reverted', async () => {
    const file = join(dir, '1_a.mjs');
    await writeFile(
      file,
      `export const up = (pgm) => pgm.sql('CREATE TABLE a (id int)');
       export const down = async (pgm) => { await pgm.db.query('DROP TABLE a'); };`,
    );
    await forward();
    await expect(migrateBack(endpoint, null, { count: 1 }, options())).rejects.toMatchObject({
      code: 'MIGRATION_IRREVERSIBLE',
    });
    await back({ count: 1 });
    expect(await isThere('a')).toBe(false);
  });

  it('must say in its header that it runs outside of a transaction', async () => {
    const text = `export const up = (pgm) => { pgm.noTransaction(); pgm.createIndex('a', 'id', { name: 'a_id', concurrently: true }); };`;
    await query('CREATE TABLE a (id int)');
    await writeFile(join(dir, '1_i.mjs'), text);
    await expect(forward()).rejects.toMatchObject({ code: 'MIGRATION_INVALID' });
    await rm(join(dir, '1_i.mjs'));
    await writeFile(join(dir, '2_i.mjs'), `// gameops: transaction=off\n${text}`);
    await forward();
    expect(await isThere('a_id')).toBe(true);
    await back({ count: 1 });
    expect(await isThere('a_id')).toBe(false);
  });
});

describe('a down script', () => {
  it('that loses values needs the loss to be accepted, and the values are saved first', async () => {
    await write('1_a', 'CREATE TABLE a (id int PRIMARY KEY)', 'DROP TABLE a');
    await write(
      '2_b',
      'ALTER TABLE a ADD gold int, ADD "Name" text',
      'ALTER TABLE a DROP gold, DROP COLUMN "Name"',
      'reversible=lossy',
    );
    await forward();
    await query(`INSERT INTO a VALUES (1, 10, 'x'), (2, NULL, NULL), (3, 30, NULL)`);
    const plan = await withClient(endpoint, (client) => planBack(client, dir, { count: 1 }));
    expect(plan.losses).toMatchObject([{ table: 'public.a', columns: ['gold', 'Name'], rows: 2 }]);
    await expect(back({ count: 1 })).rejects.toMatchObject({ code: 'CONFIRMATION_NEEDED', exitCode: 2 });
    expect(await appliedNames()).toEqual(['1_a', '2_b']);
    const { rescued } = await back({ count: 1 }, { acceptLoss: true });
    expect(rescued).toMatchObject([{ migration: '2_b', table: 'public.a', rows: 2 }]);
    expect(await query(`SELECT * FROM ${rescued[0]?.savedAs} ORDER BY id`)).toEqual([
      { id: 1, gold: 10, Name: 'x' },
      { id: 3, gold: 30, Name: null },
    ]);
    expect(await query('SELECT migration, source FROM gameops.rescues')).toEqual([
      { migration: '2_b', source: 'public.a' },
    ]);
  });

  it('that runs outside of a transaction also saves values before it removes them', async () => {
    await write('1_a', 'CREATE TABLE a (id int PRIMARY KEY)', 'DROP TABLE a');
    await write(
      '2_b',
      'ALTER TABLE a ADD gold int; CREATE INDEX CONCURRENTLY a_gold ON a (gold)',
      'DROP INDEX CONCURRENTLY a_gold; ALTER TABLE a DROP gold',
      `${off} reversible=lossy`,
    );
    await forward();
    await query('INSERT INTO a VALUES (1, 10), (2, NULL)');
    const { rescued } = await back({ count: 1 }, { acceptLoss: true });
    expect(await query(`SELECT * FROM ${rescued[0]?.savedAs}`)).toEqual([{ id: 1, gold: 10 }]);
    expect(await appliedNames()).toEqual(['1_a']);
  });

  it('that drops a table with rows needs the loss to be accepted, although its header says that nothing is lost', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    await forward();
    await query('INSERT INTO a VALUES (1)');
    await expect(back({ count: 1 })).rejects.toMatchObject({ code: 'CONFIRMATION_NEEDED' });
    await query('DELETE FROM a');
    expect((await back({ count: 1 })).reverted).toHaveLength(1);
  });

  it('that overwrites or narrows values saves the old values with their keys, whatever its header says', async () => {
    await query(`CREATE TABLE a (id int PRIMARY KEY, gold numeric, name text, n int); CREATE TABLE keyless (x int, y int);
      INSERT INTO a VALUES (1, 1.5, 'x', 7), (2, NULL, NULL, 8); INSERT INTO keyless VALUES (1, 2)`);
    await write(
      '1_a',
      'SELECT 1',
      `UPDATE a SET name = 'nobody'; ALTER TABLE a ALTER gold TYPE int, ALTER n TYPE bigint; UPDATE keyless SET y = 0`,
    );
    await forward();
    await expect(back({ count: 1 })).rejects.toMatchObject({ code: 'CONFIRMATION_NEEDED' });
    const { rescued } = await back({ count: 1 }, { acceptLoss: true });
    expect(rescued).toMatchObject([
      { table: 'public.a', columns: ['name', 'gold'], rows: 1 },
      { table: 'public.keyless', columns: ['y'], rows: 1 },
    ]);
    expect(await query(`SELECT * FROM ${rescued[0]?.savedAs}`)).toEqual([{ id: 1, gold: '1.5', name: 'x' }]);
    expect(await query(`SELECT * FROM ${rescued[1]?.savedAs}`)).toEqual([{ x: 1, y: 2 }]);
    expect(await query('SELECT gold FROM a ORDER BY id')).toEqual([{ gold: 2 }, { gold: null }]);
  });

  it('that also drops a type keeps the saved values of that type', async () => {
    await write(
      '1_a',
      `CREATE TYPE mood AS ENUM ('fine'); CREATE TABLE a (id int PRIMARY KEY, it mood, all_of mood[])`,
      'DROP TABLE a; DROP TYPE mood CASCADE',
      'reversible=lossy',
    );
    await forward();
    await query(`INSERT INTO a VALUES (1, 'fine', '{fine}')`);
    const { rescued } = await back({ count: 1 }, { acceptLoss: true });
    expect(await query(`SELECT * FROM ${rescued[0]?.savedAs}`)).toEqual([
      { id: 1, it: 'fine', all_of: '{fine}' },
    ]);
  });

  it.each([
    ['a schema and its tables', 'DROP SCHEMA shop CASCADE', 'drops the schema shop'],
    ['rows that refer to deleted rows', 'DELETE FROM a', 'with them deletes or changes rows of b that'],
    ['values of a table through a view', 'UPDATE seen SET x = 0', 'seen.x, which is not a table'],
    [
      'a column that has another name until then',
      'ALTER TABLE a RENAME x TO y; ALTER TABLE a DROP y',
      'drops a.y, which has another name at present',
    ],
  ])('that removes %s warns that this is neither counted nor saved', async (_what, down, words) => {
    await query(`DROP SCHEMA IF EXISTS shop CASCADE; CREATE SCHEMA shop;
      CREATE TABLE a (id int PRIMARY KEY, x int); CREATE TABLE b (a int REFERENCES a ON DELETE CASCADE);
      CREATE VIEW seen AS SELECT id, x FROM a; INSERT INTO a VALUES (1, 2); INSERT INTO b VALUES (1)`);
    await write('1_a', 'SELECT 1', down);
    await forward();
    const { uncounted } = await withClient(endpoint, (client) => planBack(client, dir, { count: 1 }));
    expect(uncounted).toEqual([{ migration: '1_a', what: expect.stringContaining(words) }]);
    await expect(back({ count: 1 })).rejects.toMatchObject({
      code: 'CONFIRMATION_NEEDED',
      message: expect.stringContaining('NOT counted and NOT saved'),
      next: [expect.anything(), expect.stringContaining('gameops db backup'), expect.anything()],
      facts: { migrations: ['1_a'] },
    });
  });

  it('that drops a column which another down script renamed before needs the loss to be accepted', async () => {
    await write('1_a', 'CREATE TABLE a (id int); ALTER TABLE a ADD coins int', 'ALTER TABLE a DROP coins');
    await write('2_b', 'ALTER TABLE a RENAME coins TO gold', 'ALTER TABLE a RENAME gold TO coins');
    await forward();
    await query('INSERT INTO a VALUES (1, 2)');
    await expect(back({ count: 2 })).rejects.toMatchObject({ facts: { migrations: ['1_a'] } });
  });

  it('that drops a table which another down script dropped before saves its rows once', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE IF EXISTS a');
    await write('2_b', 'SELECT 1', 'DROP TABLE a');
    await forward();
    await query('INSERT INTO a VALUES (1)');
    const { rescued } = await back({ count: 2 }, { acceptLoss: true });
    expect(rescued).toMatchObject([{ migration: '2_b', table: 'public.a', rows: 1 }]);
  });

  it('that fills only tables and columns of its own loses nothing', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a');
    await write(
      '2_b',
      'ALTER TABLE a ADD gold bigint',
      'ALTER TABLE a ADD coins int; UPDATE a SET coins = gold; ALTER TABLE a ALTER id TYPE bigint; CREATE TABLE old AS SELECT * FROM a; DELETE FROM old',
    );
    await forward();
    await query('INSERT INTO a VALUES (1, 2)');
    expect((await back({ count: 1 })).reverted).toHaveLength(1);
  });

  it('that fails saves nothing and changes nothing', async () => {
    await write('1_a', 'CREATE TABLE a (id int)', 'DROP TABLE a; SELECT 1 / 0', 'reversible=lossy');
    await forward();
    await query('INSERT INTO a VALUES (1)');
    await expect(back({ count: 1 }, { acceptLoss: true })).rejects.toMatchObject({
      code: 'MIGRATION_FAILED',
    });
    expect(await query('SELECT * FROM a')).toEqual([{ id: 1 }]);
    expect(await query('SELECT count(*)::int AS n FROM gameops.rescues')).toEqual([{ n: 0 }]);
  });

  it('is run for the migrations after the named one, and an unknown name is refused', async () => {
    for (const n of [1, 2, 3]) await write(`${n}_t`, `CREATE TABLE t${n} (id int)`, `DROP TABLE t${n}`);
    await forward();
    await expect(back({ to: '9_t' })).rejects.toMatchObject({ code: 'MIGRATION_UNKNOWN', exitCode: 2 });
    expect((await back({ to: '1_t' })).reverted.map(({ name }) => name)).toEqual(['3_t', '2_t']);
  });

  it('is run for exactly the migrations that a release brought, whatever came after them', async () => {
    for (const n of [1, 2, 3]) {
      await write(`${n}_t`, `CREATE TABLE t${n} (id int)`, `DROP TABLE t${n}`);
      await forward({ release: n });
    }
    const names = ['2_t'];
    expect(migrationsAfter(await ledger(), 1)).toEqual(['3_t', '2_t']);
    expect((await back({ names })).reverted.map(({ name }) => name)).toEqual(['2_t']);
    expect((await back({ names })).reverted).toEqual([]);
    expect(await appliedNames()).toEqual(['1_t', '3_t']);
  });
});
