import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { imageNeeds, mayBoot } from '../../../src/boot-rule.ts';
import { nextPrefix } from '../../../src/commands/db/create.ts';
import { classify } from '../../../src/database/migrate/concurrent.ts';
import { listMigrations, parseMigration } from '../../../src/database/migrate/files.ts';
import { ledgerFormat } from '../../../src/database/migrate/ledger.ts';
import { unreachable } from '../../../src/database/server/connection.ts';
import { migrationLockKey } from '../../../src/database/server/migration-lock.ts';
import { keepsValues, removalsIn, wordsOf } from '../../../src/database/sql/removals.ts';
import { statementsOf } from '../../../src/database/sql/split.ts';
import { sumRules } from '../../../src/database/sql/sum-rules.ts';
import { isSumOf } from '../../../src/database/sql/sums.ts';

const good = '-- Up Migration\nCREATE TABLE a (id int);\n-- Down Migration\nDROP TABLE a;\n';

const folders: string[] = [];
async function folderOf(...names: string[]): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'gameops-migrations-'));
  folders.push(dir);
  await Promise.all(names.map((name) => writeFile(join(dir, name), good)));
  return dir;
}
afterEach(async () => {
  for (const dir of folders.splice(0)) await rm(dir, { recursive: true });
});

describe('a folder of migrations', () => {
  it('is read in the order of the numbers, not of the letters', async () => {
    const dir = await folderOf(
      '10_c.sql',
      '9_b.sql',
      '001_a.sql',
      '20260101000000000_utc.sql',
      '1700000000000_ms.sql',
    );
    const names = (await listMigrations(dir)).map(({ name }) => name);
    expect(names).toEqual(['001_a', '9_b', '10_c', '1700000000000_ms', '20260101000000000_utc']);
  });

  it('is refused when two files are the same migration', async () => {
    const dir = await folderOf('1_a.sql', '1_a.js');
    await expect(listMigrations(dir)).rejects.toMatchObject({ code: 'MIGRATION_INVALID' });
  });

  it('may be empty, absent, or hold a README', async () => {
    expect(await listMigrations(await folderOf())).toEqual([]);
    expect(await listMigrations(await folderOf('README.md', '.keep'))).toEqual([]);
    expect(await listMigrations('/nowhere/at/all')).toEqual([]);
  });

  it('is refused, and the error names the path, when it or one of its files cannot be read', async () => {
    const dir = await folderOf('1_a.sql');
    await expect(listMigrations(join(dir, '1_a.sql'))).rejects.toMatchObject({
      code: 'MIGRATION_INVALID',
      facts: { path: join(dir, '1_a.sql'), reason: 'ENOTDIR' },
    });
    await symlink('/nowhere', join(dir, '2_b.sql'));
    await expect(listMigrations(dir)).rejects.toMatchObject({ facts: { path: join(dir, '2_b.sql') } });
  });

  it('is refused when a file is not UTF-8, because parts of it would be read wrongly', async () => {
    const dir = await folderOf();
    await writeFile(
      join(dir, '1_a.sql'),
      Buffer.concat([Buffer.from(good), Buffer.from([0x2d, 0x2d, 0xff])]),
    );
    await expect(listMigrations(dir)).rejects.toMatchObject({ facts: { file: '1_a.sql' } });
  });

  it.each(['init.sql', '001.sql', "1_a'b.sql", '1_a.py', '1_a.d.ts', '1_a b.sql'])(
    'is refused for the name %s',
    async (name) => {
      await expect(listMigrations(await folderOf(name))).rejects.toMatchObject({ code: 'MIGRATION_INVALID' });
    },
  );
});

describe("the bundled server's own migrations", () => {
  it('are expand migrations, so that every earlier release works with them', async () => {
    const migrations = await listMigrations(join(import.meta.dirname, '../../../migrations'));
    expect(migrations.map(({ phase }) => phase)).toEqual(migrations.map(() => 'expand'));
    expect(migrations.length).toBeGreaterThan(0);
  });
});

describe('a migration file', () => {
  it('from a checkout with CRLF is the same migration, also inside of quotes and of functions', () => {
    const text = good.replace('(id int)', "(id int, note text DEFAULT 'one\ntwo')");
    expect(parseMigration('1_a.sql', text.replaceAll('\n', '\r\n'))).toEqual(parseMigration('1_a.sql', text));
  });

  it('is additive and reversible unless its header says otherwise', () => {
    expect(parseMigration('1_a.sql', good)).toEqual({
      name: '1_a',
      file: '1_a.sql',
      kind: 'sql',
      phase: 'expand',
      reversible: 'yes',
      isTransactional: true,
      allow: [],
      up: 'CREATE TABLE a (id int);',
      down: 'DROP TABLE a;',
    });
    expect(parseMigration('1_a.sql', `-- gameops: phase=contract reversible=lossy\n${good}`)).toMatchObject({
      phase: 'contract',
      reversible: 'lossy',
    });
  });

  it.each([
    ['no Up marker: the down would run as an up', '-- Down Migration\nDROP TABLE a;'],
    ['no Down marker', '-- Up Migration\nSELECT 1;'],
    ['Down before Up', '-- Down Migration\nDROP TABLE a;\n-- Up Migration\nSELECT 1;'],
    ['a comment that begins like a marker', good.replace('CREATE', '-- Down migration of a\nCREATE')],
    ['SQL above the Up marker', `SELECT 1;\n${good}`],
    ['an empty Up', '-- Up Migration\n-- later\n-- Down Migration\nSELECT 1;'],
    ['an empty Down that claims to be reversible', '-- Up Migration\nSELECT 1;\n-- Down Migration\n'],
    ['a COMMIT', good.replace('CREATE', 'commit; CREATE')],
    ['a BEGIN behind a comment', good.replace('CREATE', '/* x /* y */ ; */ BEGIN; CREATE')],
    ['an END', good.replace('CREATE', 'END; CREATE')],
    ['START TRANSACTION in the Down', good.replace('DROP', 'START  TRANSACTION; DROP')],
    [
      'a concurrent index inside a transaction',
      good.replace('CREATE', 'CREATE INDEX CONCURRENTLY i ON b (c); CREATE'),
    ],
    ['a VACUUM inside a transaction', good.replace('CREATE', 'VACUUM; CREATE')],
    [
      'a concurrent index without a name, which could not be found after a crash',
      `-- gameops: transaction=off\n${good.replace('CREATE', 'CREATE INDEX CONCURRENTLY ON b (c); CREATE')}`,
    ],
    [
      'a statement that changes the server',
      `-- gameops: transaction=off\n${good.replace('CREATE', 'ALTER SYSTEM SET x = 1; CREATE')}`,
    ],
    ['an unknown header word', `-- gameops: phase=sideways\n${good}`],
    ['an unknown header key', `-- gameops: toString=yes\n${good}`],
  ])('is refused for %s', (_why, text) => {
    expect(() => parseMigration('1_a.sql', text)).toThrow(
      expect.objectContaining({ code: 'MIGRATION_INVALID' }),
    );
  });

  it.each([
    [
      'the body of a function',
      'CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN; COMMIT; END; $$;',
    ],
    ['a tagged body', 'DO $x$ BEGIN PERFORM $$;commit;$$; END $x$;'],
    ['a standard body', 'CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3;'],
    ['a string', "INSERT INTO a VALUES ('; COMMIT; it''s', E'\\'; COMMIT;');"],
    ['a quoted name', 'CREATE TABLE "; COMMIT; " (id int);'],
    ['a comment', 'SELECT 1; -- ; COMMIT;\nSELECT 2;'],
    ['a savepoint', 'SAVEPOINT s; SELECT 1; ROLLBACK TO SAVEPOINT s;'],
  ])('may have transaction words in %s', (_where, up) => {
    const text = `-- gameops: reversible=no\n-- Up Migration\n${up}\n-- Down Migration\n`;
    expect(parseMigration('1_a.sql', text).up).toBe(up);
  });

  it('is split where Postgres would split it', () => {
    expect(statementsOf('a; /* ; */ b $$;$$ c;\n-- d;\n;')).toHaveLength(2);
    expect(statementsOf("SELECT 'never ends; COMMIT;")).toHaveLength(1);
  });

  it.each([
    ['a name with two dollar signs', 'SELECT foo$bar$baz; DROP TABLE a; SELECT 1', 3],
    ['a name that ends like an empty dollar quote', 'SELECT foo$$; SELECT bar$$; SELECT 1', 3],
    ['a name that ends with a letter e before a text', "SELECT öe'\\'; SELECT 1", 2],
    ['a body right after a bracket or a line end', 'SELECT f($a$;$a$),\n$$;$$; SELECT 1', 2],
  ])('is split where Postgres would split it, also after %s', (_what, sql, count) => {
    expect(statementsOf(sql)).toHaveLength(count);
  });
});

describe('an image and a schema', () => {
  const file = (name: string, phase: 'expand' | 'contract' = 'expand') => ({ name, phase });
  const older = imageNeeds([file('1_a')]);
  const newer = imageNeeds([file('1_a'), file('2_b'), file('3_c', 'contract')]);

  it('fit when every migration that the image needs is applied; a waiting contract migration is not needed', () => {
    expect(newer).toEqual({ needs: '2_b', knows: '3_c' });
    expect(mayBoot(newer, { applied: new Set(['1_a', '2_b']), floor: null })).toBe('yes');
    expect(mayBoot(newer, { applied: new Set(['1_a']), floor: null })).toBe('schema-too-old');
  });

  it('still fit after an expand migration, so that an old replica can start again, but not after a contract migration', () => {
    expect(mayBoot(older, { applied: new Set(['1_a', '2_b']), floor: null })).toBe('yes');
    const contracted = { applied: new Set(['1_a', '2_b', '3_c']), floor: '3_c' };
    expect(mayBoot(older, contracted)).toBe('image-too-old');
    expect(mayBoot(newer, contracted)).toBe('yes');
  });
});

describe('the checksum of a migration', () => {
  it.each([
    ['CREATE TABLE a (id int)', '6e70fcd8fa64aaecba4287f3d3313df4303b5e9420cd804c261c029d886ee4d8'],
    [
      "-- a\nCREATE TABLE  a\n(id int);\n\n/* x /* y */ z */ INSERT INTO a VALUES ('it''s; -- no', E'\\'; ', $$;$$, $x$ $$ ; $x$);",
      'a90969129ab7576ac9b95c399deb23ce85da30d152852eeb8f46dc67a48d932b',
    ],
    [
      'CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT "a;b"',
      '7416e0d7219d47f50e74034cb7178eec5ee98291ef66a0464d61fbdf805c6202',
    ],
    [
      'export const up = (pgm) => { pgm.sql(`SELECT 1;`) };\r\n',
      '908c25113e7760c1efd22eeedb078d8c0b4bcc1e6217dbd78934def01babc999',
    ],
  ])('by version 1 never changes, because ledgers have stored it: %s', (sql, sum) => {
    expect(isSumOf(sum, sql)).toBe(true);
    expect(isSumOf(sum, `${sql}; SELECT 1`)).toBe(false);
  });

  it('has a ledger format for each version, so that an older gameops refuses a newer version', () => {
    expect(ledgerFormat).toBeGreaterThanOrEqual(sumRules.length);
  });
});

describe('the data that a down script removes', () => {
  it.each([
    ['DROP TABLE IF EXISTS a, "B".c CASCADE', ['drops a', 'drops B.c']],
    [
      'ALTER TABLE ONLY a DROP x, DROP COLUMN IF EXISTS "Y", DROP CONSTRAINT c, ALTER z DROP DEFAULT',
      ['drops a.x', 'drops a.Y'],
    ],
    ['TRUNCATE TABLE a, public.b', ['empties a', 'empties b']],
    ['DELETE FROM a WHERE x = 1', ['deletes rows of a']],
    ['UPDATE a SET x = 1, (y, z) = (2, 3) FROM b', ['writes over a.x', 'writes over a.y', 'writes over a.z']],
    ['ALTER TABLE a ALTER x TYPE int, ALTER y SET DEFAULT 1', ['changes the type of a.x']],
    ['INSERT INTO a VALUES (1) ON CONFLICT (id) DO UPDATE SET x = 2', ['writes over a.x']],
    [
      'MERGE INTO a USING b ON a.id = b.id WHEN MATCHED AND b.x THEN DELETE WHEN MATCHED THEN UPDATE SET x = 1',
      ['deletes rows of a', 'writes over a.x'],
    ],
    ['WITH gone AS (DELETE FROM a RETURNING *) INSERT INTO b SELECT * FROM gone', ['deletes rows of a']],
    ['CREATE FUNCTION f() RETURNS void BEGIN ATOMIC DELETE FROM a; END', []],
    ['DROP INDEX i; -- DROP TABLE a', []],
    ['ALTER TABLE a ADD x int', []],
  ])('is read from %s', async (sql, found) => {
    const { removals, unsaved } = await removalsIn(sql);
    expect({ words: removals.map(wordsOf), unsaved }).toEqual({ words: found, unsaved: [] });
  });

  it.each([
    ['DROP SCHEMA shop CASCADE', 'drops the schema shop and everything that depends on it'],
    ['DROP TYPE public.mood CASCADE', 'drops the type mood and everything that depends on it'],
    ['DROP DOMAIN name CASCADE', 'drops the domain name and everything that depends on it'],
    ['TRUNCATE a CASCADE', 'empties every table that refers to a'],
    ['ALTER TYPE pair DROP ATTRIBUTE x CASCADE', 'changes x of the type pair'],
    ['SELCT 1', "runs a statement that gameops can't parse: SELCT 1"],
  ])('is named when it cannot be counted: %s', async (sql, words) => {
    // What stands beside it is still seen.
    const { unsaved, removals } = await removalsIn(`DROP TABLE b; ${sql}`);
    expect(unsaved).toEqual([words]);
    expect(removals.map(wordsOf)).toContain('drops b');
  });

  it.each([
    ['text', 'numeric', true],
    ['varchar(3)', 'text', true],
    ['int', 'int8', true],
    ['int', 'numeric', false],
    ['numeric', 'int4', true],
    ['numeric(10, 2)', 'numeric', false],
    ['numeric', 'numeric', true],
    ['date', 'timestamptz', false],
    ['int[]', '_int4', true],
    ['text USING left(x, 3)', 'text', false],
  ])('is none if a new type keeps every value or fails: to %s from %s, kept: %s', async (to, from, keeps) => {
    const [change] = (await removalsIn(`ALTER TABLE a ALTER x TYPE ${to}`)).removals;
    expect(change?.to && keepsValues(change.to, from)).toBe(keeps);
  });
});

describe('statements outside of a transaction', () => {
  it.each([
    [
      'CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "I" ON ONLY a.t (x)',
      { kind: 'create-index', index: '"I"', table: 'a.t' },
    ],
    ['drop index concurrently if exists a.i', { kind: 'drop-index', index: 'a.i' }],
    ['REINDEX (VERBOSE) TABLE CONCURRENTLY t', { kind: 'reindex' }],
    ['ALTER TABLE p DETACH PARTITION c CONCURRENTLY', { kind: 'detach', table: 'p', partition: 'c' }],
    ['VACUUM t', { kind: 'repeatable' }],
    ["UPDATE t SET a = 'CREATE INDEX CONCURRENTLY'", { kind: 'transactional' }],
    ['CREATE INDEX CONCURRENTLY ON t (x)', { kind: 'refused' }],
    ['DROP INDEX CONCURRENTLY a, b', { kind: 'refused' }],
  ])('are classified: %s', (sql, step) => {
    expect(classify(sql)).toMatchObject(step);
  });
});

describe('the number of a new migration', () => {
  const now = new Date('2026-03-04T05:06:07.008Z');
  it('comes after all others, in their format', () => {
    expect(nextPrefix([], now)).toBe('20260304050607008');
    expect(nextPrefix(['0001_a', '0009_b'], now)).toBe('0010');
    expect(nextPrefix(['1700000000000_a'], now)).toBe(String(now.getTime()));
    expect(nextPrefix(['20990101000000000_a'], now)).toBe('20990101000000001');
  });
});

describe('a database that does not answer', () => {
  const endpoint = {
    host: '127.0.0.1',
    port: 1,
    database: 'arena',
    user: 'arena',
    password: 'sEcret',
    accessory: 'arena-postgres',
  };

  it.each(['28P01', '28000', '3D000', '53300', '57P03', '42501', 'ECONNREFUSED', ''])(
    'causes an error with a next step and without the password (%s)',
    (code) => {
      for (const accessory of ['arena-postgres', null]) {
        const error = unreachable({ ...endpoint, accessory }, Object.assign(new Error('no'), { code }));
        expect(error).toMatchObject({ code: 'DATABASE_UNREACHABLE', exitCode: 4 });
        expect(JSON.stringify([error.message, error.next, error.facts])).not.toContain('sEcret');
      }
    },
  );
});

it('the lock of a migration run has the key of node-pg-migrate, so that both never run at once', async () => {
  const { PG_MIGRATE_LOCK_ID } = await import('node-pg-migrate');
  expect(migrationLockKey).toBe(PG_MIGRATE_LOCK_ID);
});
