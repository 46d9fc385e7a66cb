/** The schema verbs of the real CLI: what they print, how they end, and what a kill leaves. */
import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { killRuns, prepareKills, twoAtOnce } from '../../chaos/schema-kills.ts';
import { until } from '../../support/players/game-server.ts';
import { openTestProject, type TestProject } from '../../support/site/accessories.ts';
import { openSchemaSite, type SchemaSite } from '../../support/site/schema-site.ts';

let on: TestProject;
let site: SchemaSite;

beforeAll(async () => {
  on = await openTestProject('schema');
  await on.ensure();
  site = await openSchemaSite(on);
});
afterAll(async () => {
  await site?.close();
  await on?.remove();
});
beforeEach(() => site.reset());

const table = (n: number) => site.write(`${n}_t`, `CREATE TABLE t${n} (id int)`, `DROP TABLE t${n}`);

describe('db status, migrate and rollback', () => {
  it('apply and revert migrations, and list the pending ones', async () => {
    await table(1);
    await table(2);
    await site.write('3_c', 'DROP TABLE t1', 'CREATE TABLE t1 (id int)', 'phase=contract reversible=lossy');
    const plan = await site.run(['db', 'migrate', '--plan']);
    expect(plan.json?.result).toMatchObject({ applied: [], planned: ['1_t', '2_t'] });
    expect((await site.run(['db', 'status'])).json?.result).toMatchObject({ applied: [], findings: [] });
    const one = await site.run(['db', 'migrate', '--to', '1_t']);
    expect(one.json?.result).toMatchObject({ applied: [{ name: '1_t' }], pending: ['2_t', '3_c'] });
    const rest = await site.run(['db', 'migrate']);
    expect(rest.json?.result).toMatchObject({ applied: [{ name: '2_t' }], pending: ['3_c'] });
    const status = await site.run(['db', 'status']);
    expect(status.json?.result).toMatchObject({
      applied: [{ name: '1_t' }, { name: '2_t' }],
      pending: [{ name: '3_c', phase: 'contract' }],
      needs: '2_t',
      floor: null,
    });
    expect((await site.run(['db', 'rollback', '--plan'])).json?.result).toMatchObject({
      planned: [{ name: '2_t' }],
    });
    const back = await site.run(['db', 'rollback', '--count', '2']);
    expect(back.json?.result).toMatchObject({ reverted: [{ name: '2_t' }, { name: '1_t' }] });
    expect(back.exitCode).toBe(0);
    expect((await site.run(['db', 'rollback'])).json?.result).toMatchObject({ reverted: [] });
  });

  it('apply contract migrations only with --contract, and do not revert them', async () => {
    await table(1);
    await site.write('2_c', 'DROP TABLE t1', 'CREATE TABLE t1 (id int)', 'phase=contract reversible=lossy');
    const refused = await site.run(['db', 'migrate', '--to', '2_c']);
    expect(refused).toMatchObject({ exitCode: 2, json: { error: { code: 'USAGE' } } });
    expect((await site.run(['db', 'migrate', '--contract'])).json?.result).toMatchObject({
      applied: [{ name: '1_t' }, { name: '2_c' }],
    });
    expect((await site.run(['db', 'status'])).json?.result).toMatchObject({ floor: '2_c' });
    expect(await site.run(['db', 'rollback'])).toMatchObject({
      exitCode: 9,
      json: { error: { code: 'MIGRATION_IRREVERSIBLE' } },
    });
  });

  it('need --accept-loss when data would be lost', async () => {
    await table(1);
    await site.run(['db', 'migrate']);
    await site.query('INSERT INTO t1 VALUES (1), (2)');
    const refused = await site.run(['db', 'rollback']);
    expect(refused).toMatchObject({ exitCode: 2, json: { error: { code: 'CONFIRMATION_NEEDED' } } });
    expect(refused.json?.error?.message).toMatch(/public\.t1: 2 rows since/);
    const { json } = await site.run(['db', 'rollback', '--accept-loss']);
    expect(json?.result).toMatchObject({ rescued: [{ table: 'public.t1', rows: 2 }] });
    expect(await site.query(`SELECT count(*)::int AS n FROM ${json?.result.rescued[0].savedAs}`)).toEqual([
      { n: 2 },
    ]);
  });

  it('do not accept a loss with --yes, and list separately what is neither counted nor saved', async () => {
    await table(1);
    await site.write(
      '2_b',
      'CREATE SCHEMA shop; CREATE TABLE shop.goods (id int)',
      'DROP SCHEMA shop CASCADE; DELETE FROM t1',
    );
    await site.run(['db', 'migrate']);
    await site.query('INSERT INTO t1 VALUES (1)');
    const refused = await site.run(['db', 'rollback', '--yes']);
    expect(refused).toMatchObject({ exitCode: 2, json: { error: { code: 'CONFIRMATION_NEEDED' } } });
    expect(refused.json?.error?.message).toMatch(/Saved before it is removed: public\.t1: 1 row since/);
    expect(refused.json?.error?.message).toMatch(/NOT counted and NOT saved: 2_b drops the schema shop/);
    expect(refused.json?.error?.message).toContain('--yes does not accept this loss');
    expect(refused.json?.error?.next).toEqual([
      expect.stringContaining('gameops db backup'),
      'gameops db rollback --accept-loss',
    ]);
    expect((await site.run(['db', 'rollback', '--plan'])).json?.result).toMatchObject({
      losses: [{ table: 'public.t1' }],
      uncounted: ['2_b'],
      unsaved: [{ migration: '2_b', what: expect.stringContaining('shop') }],
    });
    expect((await site.run(['db', 'rollback', '--accept-loss'])).exitCode).toBe(0);
    expect(await site.query('SELECT id FROM t1')).toEqual([]);
  });

  it('wait for a table in use, and let its readers read meanwhile', async () => {
    await table(1);
    await site.run(['db', 'migrate']);
    await site.write('2_a', 'ALTER TABLE t1 ADD a int', 'ALTER TABLE t1 DROP a');
    const holder = new pg.Client({ connectionString: site.url });
    await holder.connect();
    await holder.query('BEGIN; LOCK TABLE t1 IN ACCESS SHARE MODE');
    const reads: number[] = [];
    const reading = (async () => {
      for (let n = 0; n < 40; n += 1) {
        const began = performance.now();
        await site.query('SELECT count(*) FROM t1');
        reads.push(performance.now() - began);
        await new Promise((resolve) => setTimeout(resolve, 40));
      }
    })();
    const { process: child, ended } = site.start(['db', 'migrate']);
    let told = '';
    child.stderr?.on('data', (text) => (told += text));
    await until(() => told.includes('lock its table yet') || child.exitCode !== null);
    await reading;
    await holder.query('COMMIT');
    await holder.end();
    const ran = await ended;
    expect(ran.json?.result).toMatchObject({ applied: [{ name: '2_a' }] });
    expect(ran.stderr).toContain('lock its table yet');
    expect(reads.length).toBe(40);
  });
});

describe('an error with its exit code, and no change, is the answer to', () => {
  it.each([
    ['a wrong password', { DB_PASSWORD: 'wrong-Pa55' }, 4, 'DATABASE_UNREACHABLE', /password/],
    ['a missing database', { DB_NAME: 'nowhere' }, 4, 'DATABASE_UNREACHABLE', /no database nowhere/],
    ['a server that is down', { DB_PORT: '1' }, 4, 'DATABASE_UNREACHABLE', /no database answers/],
    [
      'a server that runs read-only',
      { PGOPTIONS: '-c default_transaction_read_only=on' },
      9,
      'MIGRATION_FAILED',
      /read-only/,
    ],
    ['no database in the settings', { DB_HOST: '' }, 3, 'NO_DATABASE', /DB_HOST/],
  ] as const)('%s', async (_what, env, exitCode, code, words) => {
    await table(1);
    const ran = await site.run(['db', 'migrate'], env as Record<string, string>);
    expect(ran).toMatchObject({ exitCode, json: { ok: false, error: { code } } });
    expect(ran.json?.error?.message).toMatch(words);
    expect(ran.json?.error?.next.length).toBeGreaterThan(0);
    expect(await site.query(`SELECT to_regclass('t1') AS it`)).toEqual([{ it: null }]);
  });

  it.each([['migrate'], ['rollback'], ['baseline']])(
    'a server that became read-only after the ledger was made: db %s',
    async (verb) => {
      await table(1);
      expect((await site.run(['db', 'migrate'])).exitCode).toBe(0);
      if (verb === 'migrate') await table(2);
      const ran = await site.run(['db', verb], { PGOPTIONS: '-c default_transaction_read_only=on' });
      expect(ran).toMatchObject({
        exitCode: 9,
        json: { error: { code: 'MIGRATION_FAILED', facts: { sqlstate: '25006' } } },
      });
      expect(ran.json?.error?.next[0]).toContain('primary');
      expect((await site.run(['db', 'rollback'])).json?.result.reverted).toHaveLength(1);
    },
  );

  it('a role that may not read the ledger', async () => {
    await table(1);
    await site.run(['db', 'migrate']);
    await site.query(`CREATE ROLE guest LOGIN PASSWORD 'guest-Pa55'`);
    const guest = { DB_USER: 'guest', DB_PASSWORD: 'guest-Pa55' };
    for (const verb of ['status', 'migrate', 'rollback']) {
      const ran = await site.run(['db', verb], guest);
      expect(ran).toMatchObject({ exitCode: 4, json: { error: { code: 'DATABASE_UNREACHABLE' } } });
      expect(ran.json?.error?.message).toContain('permission denied');
    }
    await site.query('DROP ROLE guest');
  });

  it('a migration name with a typo', async () => {
    await site.write('20260101000000000_players', 'CREATE TABLE t1 (id int)', 'DROP TABLE t1');
    const ran = await site.run(['db', 'migrate', '--to', '20260101000000000_palyers']);
    expect(ran.json?.error?.message).toContain('Did you mean 20260101000000000_players? Nothing was run.');
  });

  it('an unknown migration name', async () => {
    await table(1);
    for (const verb of ['migrate', 'rollback'])
      expect(await site.run(['db', verb, '--to', '9_nope'])).toMatchObject({
        exitCode: 2,
        json: { error: { code: 'MIGRATION_UNKNOWN' } },
      });
  });

  it('an empty folder of migrations', async () => {
    expect(await site.run(['db', 'migrate'])).toMatchObject({
      exitCode: 2,
      json: { error: { code: 'NO_MIGRATIONS' } },
    });
    expect((await site.run(['db', 'status'])).exitCode).toBe(0);
  });
});

describe('migration runs', () => {
  it('that are killed at random moments leave nothing half applied, and the next run succeeds by itself', async () => {
    await prepareKills(site);
    const seen = await killRuns(site, 3);
    for (const one of [seen.migrate, seen.rollback])
      expect(one).toMatchObject({ kills: 3, halfApplied: [], stuck: [] });
    expect(seen.migrate.midRun + seen.rollback.midRun).toBeGreaterThan(0);
  });

  it('that overlap apply each migration once, also a concurrent index', async () => {
    await prepareKills(site);
    expect(await twoAtOnce(site, 2)).toEqual([]);
  });
});

describe('proofs on a throw-away server', () => {
  const leftovers = async () => {
    const { default: Docker } = await import('dockerode');
    const filters = { label: [`gameops.project=${site.project}`] };
    return (await new Docker().listContainers({ all: true, filters })).map(({ Names }) => Names.join());
  };

  it('db verify proves up, down and up again, and leaves no container', async () => {
    await site.write(
      '1_a',
      'CREATE TABLE a (id bigint PRIMARY KEY, x int)',
      'DROP TABLE a',
      'reversible=lossy',
    );
    await site.write(
      '2_i',
      'CREATE INDEX CONCURRENTLY a_x ON a (x)',
      'DROP INDEX CONCURRENTLY a_x',
      'transaction=off',
    );
    await site.write(
      '3_c',
      'ALTER TABLE a DROP x',
      'ALTER TABLE a ADD x int; CREATE INDEX a_x ON a (x)',
      'phase=contract reversible=lossy',
    );
    await site.write('4_d', 'CREATE TABLE d (id bigint)', 'SELECT 1', 'reversible=no');
    const ran = await site.run(['db', 'verify']);
    expect(ran).toMatchObject({
      exitCode: 0,
      json: { result: { proven: ['1_a', '2_i', '3_c'], oneWay: ['4_d'], findings: [] } },
    });
    expect(await leftovers()).toEqual([]);
    expect(await site.query(`SELECT to_regclass('a') AS it`)).toEqual([{ it: null }]);
  });

  it('db verify finds a down script that leaves something, removes too much, or fails', async () => {
    await site.write('1_a', 'CREATE TABLE a (id bigint, x int)', 'DROP TABLE a');
    await site.write('2_b', 'ALTER TABLE a ADD y int', 'ALTER TABLE a DROP y, DROP x');
    await site.write('3_c', 'CREATE TABLE c (id bigint)', 'DROP TABLE nope');
    await site.write('4_d', 'CREATE TABLE IF NOT EXISTS d (id bigint)', 'SELECT 1');
    const ran = await site.run(['db', 'verify']);
    expect(ran).toMatchObject({ exitCode: 9, json: { error: { code: 'MIGRATION_NOT_PROVEN' } } });
    const findings = (ran.json?.result.findings ?? []) as { rule: string; file: string }[];
    const found = findings.map(({ rule, file }) => `${rule} ${file}`);
    expect([...new Set(found)]).toEqual([
      'down-differs 2_b.sql',
      'up-again-differs 2_b.sql',
      'down-fails 3_c.sql',
      'down-differs 4_d.sql',
    ]);
    expect(await leftovers()).toEqual([]);
  });

  it('db baseline records migrations for a database that an init.sql made, once its schema is proven', async () => {
    await site.query('CREATE TABLE a (id bigint PRIMARY KEY, x text); CREATE INDEX by_hand ON a (x)');
    await site.write(
      '1_a',
      'CREATE TABLE a (x text, id bigint PRIMARY KEY)',
      'DROP TABLE a',
      'reversible=lossy',
    );
    const differs = await site.run(['db', 'baseline']);
    expect(differs).toMatchObject({ exitCode: 9, json: { error: { code: 'BASELINE_DIFFERS' } } });
    expect(differs.json?.error?.message).toContain('by_hand');
    expect(await site.query(`SELECT to_regnamespace('gameops') AS it`)).toEqual([{ it: null }]);
    await site.query('DROP INDEX by_hand');
    await table(2);
    const taken = await site.run(['db', 'baseline', '--to', '1_a']);
    expect(taken).toMatchObject({
      exitCode: 0,
      json: { result: { applied: [{ name: '1_a' }], pending: ['2_t'] } },
    });
    expect((await site.run(['db', 'migrate'])).json?.result).toMatchObject({ applied: [{ name: '2_t' }] });
    expect((await site.run(['db', 'rollback', '--count', '2'])).json?.result.reverted).toHaveLength(2);
  });

  it('db baseline proves that a changed file leads to the same schema, and then db migrate accepts it', async () => {
    await table(1);
    await site.run(['db', 'migrate']);
    await site.write('1_t', 'CREATE TABLE t1 (id integer)', 'DROP TABLE IF EXISTS t1');
    expect(await site.run(['db', 'migrate'])).toMatchObject({
      exitCode: 9,
      json: { error: { code: 'MIGRATION_INVALID' } },
    });
    expect((await site.run(['db', 'baseline'])).exitCode).toBe(0);
    expect((await site.run(['db', 'migrate'])).exitCode).toBe(0);
  });
});

describe('a server of another major version than images.postgres', () => {
  // It says so by a function of that name that is found first; the throw-away has no such schema.
  const older = { PGOPTIONS: '-c search_path=older,pg_catalog,public' };
  beforeEach(async () => {
    await table(1);
    await site.query(`CREATE SCHEMA older; CREATE FUNCTION older.current_setting(text) RETURNS text LANGUAGE sql
      AS $$ SELECT CASE $1 WHEN 'server_version' THEN '12.3 (Debian)' ELSE pg_catalog.current_setting($1) END $$`);
    return () => site.query('DROP SCHEMA older CASCADE');
  });

  it.each(['verify', 'baseline'])(
    'is refused by db %s, and the error says which images.postgres to set',
    async (verb) => {
      const ran = await site.run(['db', verb], older);
      expect(ran).toMatchObject({
        exitCode: 3,
        json: { error: { code: 'CONFIG_INVALID', facts: { key: 'images.postgres', server: '12.3' } } },
      });
      expect(ran.json?.error?.next[0]).toContain('set images.postgres to postgres:12');
      expect(await site.query(`SELECT to_regnamespace('gameops') AS it`)).toEqual([{ it: null }]);
    },
  );

  it('does not matter when it does not answer, because db verify needs no live server', async () => {
    expect((await site.run(['db', 'verify'], { DB_PORT: '1' })).exitCode).toBe(0);
  });
});

describe('db create and db lint', () => {
  it('db create writes a file that comes last and is refused until it has statements', async () => {
    await site.write(
      '20990101000000000_far',
      'CREATE TABLE far (id bigint)',
      'DROP TABLE far',
      'reversible=lossy',
    );
    const made = await site.run(['db', 'create', 'Add Guilds!']);
    expect(made.exitCode).toBe(0);
    expect(made.json?.result.file).toMatch(/20990101000000001_add_guilds\.sql$/);
    expect(await site.run(['db', 'migrate'])).toMatchObject({
      exitCode: 9,
      json: { error: { code: 'MIGRATION_INVALID' } },
    });
    expect(await site.run(['db', 'create', '!!'])).toMatchObject({ exitCode: 2 });
  });

  it('db lint judges by the size of the tables when the database answers, and skips applied files', async () => {
    await site.query(
      'CREATE TABLE big (x int); INSERT INTO big SELECT generate_series(1, 5000); CREATE TABLE small (x int); ANALYZE',
    );
    await site.write('1_big', 'CREATE INDEX big_x ON big (x)', 'SELECT 1');
    await site.write('2_small', 'CREATE INDEX small_x ON small (x)', 'SELECT 1');
    const ran = await site.run(['db', 'lint']);
    expect(ran).toMatchObject({ exitCode: 9, json: { error: { code: 'MIGRATION_UNSAFE' } } });
    expect(ran.json?.result.findings).toMatchObject([
      { rule: 'index-not-concurrent', severity: 'error', file: 'migrations/1_big.sql', line: 2, column: 1 },
      { rule: 'index-not-concurrent', severity: 'info', file: 'migrations/2_small.sql' },
    ]);
    const blind = await site.run(['db', 'lint'], { DB_PORT: '1' });
    expect(blind.json?.result.findings.map((one: { severity: string }) => one.severity)).toEqual([
      'error',
      'error',
    ]);
    await site.run(['db', 'migrate']);
    expect(await site.run(['db', 'lint'])).toMatchObject({
      exitCode: 0,
      json: { result: { findings: [], skipped: 2 } },
    });
  });
});

it('a migration whose last statement ends in a comment, or without a semicolon, is applied and reverted', async () => {
  await table(1);
  await site.write('2_bare', 'INSERT INTO t1 VALUES (1)', 'DELETE FROM t1');
  await site.write('3_noted', 'INSERT INTO t1 VALUES (2) -- two', 'DELETE FROM t1 WHERE id = 2 -- gone');
  await site.write(
    '4_block',
    'INSERT INTO t1 VALUES (3); /* three */',
    'DELETE FROM t1 WHERE id = 3 /* gone */',
  );
  expect(await site.run(['db', 'migrate'])).toMatchObject({ exitCode: 0 });
  expect(await site.query('SELECT id FROM t1 ORDER BY id')).toEqual([{ id: 1 }, { id: 2 }, { id: 3 }]);
  expect(await site.run(['db', 'rollback', '--to', '1_t', '--accept-loss'])).toMatchObject({ exitCode: 0 });
  expect(await site.query('SELECT id FROM t1')).toEqual([]);
});
