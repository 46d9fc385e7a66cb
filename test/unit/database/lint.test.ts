/** Every rule of lint with a sample that it must find and one that does the same safely, of which it must say nothing. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { lintFolder, lintMigration, rules } from '../../../src/database/lint/lint.ts';
import { parseMigration } from '../../../src/database/migrate/files.ts';

interface Sample {
  bad: string | string[];
  good: string | string[];
  /** Of the file. */
  header?: string;
  goodHeader?: string;
  /** The samples are of the way back. */
  isDown?: true;
}

const off = 'transaction=off';
const contract = 'phase=contract reversible=lossy';

const samples: Record<string, Sample> = {
  'index-not-concurrent': {
    bad: ['CREATE INDEX i ON t (x)', 'CREATE UNIQUE INDEX i ON a.t (lower(x)) WHERE x IS NOT NULL'],
    good: ['CREATE INDEX CONCURRENTLY i ON t (x)', 'CREATE TABLE n (id bigint); CREATE INDEX i ON n (id)'],
    goodHeader: off,
  },
  'drop-index-not-concurrent': { bad: 'DROP INDEX i', good: 'DROP INDEX CONCURRENTLY i', goodHeader: off },
  'reindex-not-concurrent': {
    bad: ['REINDEX TABLE t', 'REINDEX INDEX i'],
    good: 'REINDEX TABLE CONCURRENTLY t',
    goodHeader: off,
  },
  'detach-not-concurrent': {
    bad: 'ALTER TABLE p DETACH PARTITION c',
    good: 'ALTER TABLE p DETACH PARTITION c CONCURRENTLY',
    goodHeader: off,
  },
  'volatile-default': {
    bad: [
      'ALTER TABLE t ADD x uuid DEFAULT gen_random_uuid()',
      'ALTER TABLE t ADD x float DEFAULT 1 + random()',
    ],
    good: [
      'ALTER TABLE t ADD x int DEFAULT 1, ADD y timestamptz NOT NULL DEFAULT now()',
      'CREATE TABLE n (id uuid DEFAULT gen_random_uuid())',
      'ALTER TABLE t ADD x uuid; ALTER TABLE t ALTER x SET DEFAULT gen_random_uuid()',
    ],
  },
  'add-serial': {
    bad: ['ALTER TABLE t ADD n bigserial', 'ALTER TABLE t ADD n bigint GENERATED ALWAYS AS IDENTITY'],
    good: 'CREATE SEQUENCE t_n; ALTER TABLE t ADD n bigint',
  },
  'add-stored-generated': {
    bad: 'ALTER TABLE t ADD n int GENERATED ALWAYS AS (a + 1) STORED',
    good: ['ALTER TABLE t ADD n int', 'ALTER TABLE t ADD n int GENERATED ALWAYS AS (a + 1) VIRTUAL'],
  },
  'column-type-change': { bad: 'ALTER TABLE t ALTER x TYPE bigint', good: 'ALTER TABLE t ADD x_new bigint' },
  'set-not-null': { bad: 'ALTER TABLE t ALTER x SET NOT NULL', good: 'ALTER TABLE t ALTER x DROP NOT NULL' },
  'check-not-valid': {
    bad: 'ALTER TABLE t ADD CONSTRAINT c CHECK (x > 0)',
    good: 'ALTER TABLE t ADD CONSTRAINT c CHECK (x > 0) NOT VALID',
  },
  'foreign-key-not-valid': {
    bad: 'ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (x) REFERENCES b (id)',
    good: [
      'ALTER TABLE t ADD CONSTRAINT f FOREIGN KEY (x) REFERENCES b (id) NOT VALID',
      'CREATE TABLE n (x bigint); ALTER TABLE n ADD FOREIGN KEY (x) REFERENCES b (id)',
    ],
  },
  'validate-in-same-transaction': {
    bad: 'ALTER TABLE t ADD CONSTRAINT c CHECK (x > 0) NOT VALID; ALTER TABLE t VALIDATE CONSTRAINT c',
    good: 'ALTER TABLE t VALIDATE CONSTRAINT c',
  },
  'unique-without-index': {
    bad: [
      'ALTER TABLE t ADD UNIQUE (x)',
      'ALTER TABLE t ADD PRIMARY KEY (x)',
      'ALTER TABLE t ADD y bigint UNIQUE',
    ],
    good: ['ALTER TABLE t ADD CONSTRAINT u UNIQUE USING INDEX i', 'CREATE TABLE n (x bigint UNIQUE)'],
  },
  'exclude-constraint': {
    bad: 'ALTER TABLE t ADD EXCLUDE USING gist (x WITH &&)',
    good: 'CREATE TABLE n (x tstzrange, EXCLUDE USING gist (x WITH &&))',
  },
  'set-logged': { bad: 'ALTER TABLE t SET UNLOGGED', good: 'CREATE UNLOGGED TABLE n (x bigint)' },
  'lock-table': { bad: 'LOCK TABLE t IN ACCESS EXCLUSIVE MODE', good: 'SELECT 1 FROM t LIMIT 1' },
  'vacuum-full': { bad: 'VACUUM FULL t', header: off, good: 'VACUUM (ANALYZE) t', goodHeader: off },
  cluster: { bad: 'CLUSTER t USING i', good: 'ANALYZE t' },
  'refresh-not-concurrent': {
    bad: 'REFRESH MATERIALIZED VIEW v',
    good: 'REFRESH MATERIALIZED VIEW CONCURRENTLY v',
  },
  'add-not-null-without-default': {
    bad: 'ALTER TABLE t ADD x int NOT NULL',
    good: [
      'ALTER TABLE t ADD x int NOT NULL DEFAULT 0',
      'ALTER TABLE t ADD x int',
      'CREATE TABLE n (x int NOT NULL)',
    ],
  },
  'drop-column': { bad: 'ALTER TABLE t DROP COLUMN x', good: 'ALTER TABLE t DROP x', goodHeader: contract },
  'drop-object': {
    bad: ['DROP TABLE t', 'DROP SCHEMA s', 'DROP TYPE mood', 'DROP FUNCTION f(int)', 'DROP VIEW v'],
    good: ['DROP TABLE t'],
    goodHeader: contract,
  },
  rename: {
    bad: [
      'ALTER TABLE t RENAME COLUMN a TO b',
      'ALTER TABLE t RENAME TO u',
      'ALTER SCHEMA s RENAME TO r',
      `ALTER TYPE mood RENAME VALUE 'a' TO 'b'`,
      'ALTER TABLE t SET SCHEMA s',
    ],
    good: [
      `ALTER TYPE mood ADD VALUE 'b'`,
      'ALTER INDEX i RENAME TO j',
      'ALTER TABLE t RENAME CONSTRAINT c TO d',
    ],
  },
  'backfill-with-ddl': {
    bad: [
      'ALTER TABLE t ADD x int; UPDATE t SET x = 1 WHERE x IS NULL',
      'ALTER TABLE t ADD x int; INSERT INTO u SELECT * FROM t',
    ],
    good: ['UPDATE t SET x = 1 WHERE id < 1000', 'ALTER TABLE t ADD x int; INSERT INTO u VALUES (1)'],
  },
  'whole-table-write': {
    bad: ['UPDATE t SET x = 1', 'DELETE FROM t'],
    good: ['UPDATE t SET x = 1 WHERE id < 1000', 'CREATE TABLE n (x int); UPDATE n SET x = 1'],
  },
  truncate: { bad: 'TRUNCATE t', good: 'DELETE FROM t WHERE id < 1000' },
  'json-type': { bad: 'CREATE TABLE n (j json)', good: 'CREATE TABLE n (j jsonb)' },
  'int-key': {
    bad: ['CREATE TABLE n (id serial PRIMARY KEY)', 'CREATE TABLE n (id int PRIMARY KEY)'],
    good: ['CREATE TABLE n (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, level int)'],
  },
  'timestamp-without-zone': {
    bad: ['CREATE TABLE n (at timestamp)', 'ALTER TABLE t ADD at timestamp'],
    good: 'CREATE TABLE n (at timestamptz, day date)',
  },
  'long-name': {
    bad: `CREATE TABLE ${'n'.repeat(64)} (x bigint)`,
    good: [`CREATE TABLE ${'n'.repeat(63)} (x bigint)`, `INSERT INTO t VALUES ('${'n'.repeat(80)}')`],
  },
  'opaque-block': { bad: 'DO $$ BEGIN PERFORM 1; END $$', good: 'SELECT 1' },
  'set-session': {
    bad: `SET lock_timeout = '1s'`,
    good: [`SET LOCAL lock_timeout = '1s'`, 'RESET lock_timeout'],
  },
  'claims-reversible': {
    isDown: true,
    bad: [
      'DROP TABLE n',
      'ALTER TABLE t DROP x',
      'TRUNCATE t',
      'DELETE FROM t WHERE x = 1',
      ...[
        'UPDATE t SET x = 1 WHERE id < 1000',
        'WITH gone AS (DELETE FROM t RETURNING x) SELECT x FROM gone',
      ],
      'INSERT INTO t (id, x) VALUES (1, 2) ON CONFLICT (id) DO UPDATE SET x = 2',
      'MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN UPDATE SET x = u.x',
      ...[
        'DROP SCHEMA s CASCADE',
        'DROP TYPE mood CASCADE',
        'DROP OWNED BY guest',
        'DO $$ BEGIN DELETE FROM t; END $$',
      ],
      'ALTER TABLE t ALTER x TYPE int',
      'ALTER TABLE t ALTER x TYPE text USING left(x, 9)',
    ],
    good: [
      'DROP TABLE n',
      'ALTER TABLE t DROP x',
      'UPDATE t SET x = 1 WHERE id < 1000',
      'DROP SCHEMA s CASCADE',
    ],
    goodHeader: 'reversible=lossy',
  },
};

const lint = async (sql: string, header = '', isDown = false) => {
  const [up, down] = isDown ? ['SELECT 1', sql] : [sql, 'SELECT 1'];
  const text = `-- gameops: ${header}\n-- Up Migration\n${up};\n-- Down Migration\n${down};\n`;
  return lintMigration(parseMigration('1_a.sql', text), text);
};
const all = (sample: string | string[]) => (Array.isArray(sample) ? sample : [sample]);

describe('the rules of db lint', () => {
  it('have samples, all of them', () => {
    expect(Object.keys(samples).sort()).toEqual(rules.map(({ name }) => name).sort());
  });

  for (const [rule, { bad, good, header, goodHeader, isDown }] of Object.entries(samples)) {
    it(`${rule} finds its bad samples, with a reason and a safe way`, async () => {
      for (const sql of all(bad)) {
        const found = await lint(sql, header, isDown);
        expect(
          found.map((one) => one.rule),
          sql,
        ).toContain(rule);
        const [hit] = found.filter((one) => one.rule === rule);
        expect(hit?.why && hit.rewrite, sql).toBeTruthy();
      }
    });

    it(`${rule} finds nothing in its good samples, and neither does any other rule`, async () => {
      for (const sql of all(good)) expect(await lint(sql, goodHeader, isDown), sql).toEqual([]);
    });
  }
});

describe('db lint', () => {
  it('names the line and the column', async () => {
    const text =
      '-- gameops: reversible=lossy\n\n-- Up Migration\n-- ü\nCREATE TABLE n (id bigint);\n  /* x */ DROP TABLE old;\n-- Down Migration\nSELECT 1;\n';
    const found = await lintMigration(parseMigration('1_a.sql', text), text);
    expect(found).toMatchObject([{ rule: 'drop-object', line: 6, column: 11 }]);
    const checkout = text.replaceAll('\n', '\r\n');
    expect(await lintMigration(parseMigration('1_a.sql', checkout), checkout)).toEqual(found);
  });

  it('names the line of a syntax error', async () => {
    const [found] = await lint('CREATE TABLE n (id bigint);\nSELCT 1');
    expect(found).toMatchObject({ rule: 'syntax', severity: 'error', line: 4 });
  });

  it('allows a finding that the header of the file allows', async () => {
    expect(await lint('DROP TABLE t', 'allow=drop-object')).toEqual([]);
  });

  it('accepts a down script that touches no data of players', async () => {
    const harmless = [
      'ALTER TABLE t ADD x int; UPDATE t SET x = y WHERE id < 1000',
      'CREATE TABLE n (id bigint); INSERT INTO n SELECT id FROM t; DELETE FROM n WHERE id = 0',
      ...[
        'DROP SCHEMA s',
        'DROP TYPE mood',
        'DROP VIEW v CASCADE',
        'ALTER TABLE t DROP CONSTRAINT c CASCADE',
      ],
      'INSERT INTO t (id) VALUES (1) ON CONFLICT DO NOTHING',
    ];
    for (const sql of harmless) expect(await lint(sql, '', true), sql).toEqual([]);
    // Only the rewrite of the table is found: nothing is lost in a wider type.
    const found = await lint('ALTER TABLE t ALTER x TYPE text', '', true);
    expect(found.map(({ rule }) => rule)).toEqual(['column-type-change']);
  });

  it('lowers the severity for small tables and names the size of large ones', async () => {
    const text =
      '-- Up Migration\nCREATE INDEX i ON t (x);\n-- Down Migration\nDROP INDEX CONCURRENTLY IF EXISTS i;\n'.replace(
        'CONCURRENTLY ',
        '',
      );
    const migration = parseMigration('1_a.sql', text);
    const of = async (rows: number) =>
      (await lintMigration(migration, text, undefined, new Map([['t', rows]])))[0];
    expect(await of(10)).toMatchObject({ rule: 'index-not-concurrent', severity: 'info' });
    expect(await of(5_000_000)).toMatchObject({
      severity: 'error',
      message: expect.stringContaining('5,000,000 rows'),
    });
  });

  it('checks a folder: reports invalid files, skips applied ones, and knows constraints of earlier files', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'gameops-lint-'));
    const write = (name: string, up: string) =>
      writeFile(join(dir, name), `-- Up Migration\n${up};\n-- Down Migration\nSELECT 1;\n`);
    await write('1_a.sql', 'ALTER TABLE t ADD CONSTRAINT x_set CHECK (x IS NOT NULL) NOT VALID');
    await write('2_b.sql', 'ALTER TABLE t VALIDATE CONSTRAINT x_set');
    await write('3_c.sql', 'ALTER TABLE t ALTER x SET NOT NULL');
    await write('4_d.sql', 'DROP TABLE t');
    await writeFile(join(dir, '5_e.sql'), 'SELECT 1;');
    await writeFile(join(dir, '6_f.mjs'), 'export const up = () => {};');
    const request = { dir, shownDir: 'm', sizes: null };
    const found = await lintFolder({ ...request, applied: new Set() });
    expect(found.map(({ rule, file }) => `${rule} ${file}`)).toEqual([
      'drop-object m/4_d.sql',
      'invalid-file m/5_e.sql',
      'opaque-code m/6_f.mjs',
    ]);
    expect(await lintFolder({ ...request, applied: new Set(['4_d']) })).toHaveLength(2);
    await rm(dir, { recursive: true });
  });

  it("finds nothing in the bundled server's own migrations", async () => {
    const dir = join(import.meta.dirname, '../../../migrations');
    expect(await lintFolder({ dir, shownDir: '', applied: new Set(), sizes: null })).toEqual([]);
  });
});
