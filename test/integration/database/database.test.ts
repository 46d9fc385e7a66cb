import { execFileSync, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { Redis } from 'ioredis';
import { PG_MIGRATE_LOCK_ID } from 'node-pg-migrate';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { namesOf, redisKeys } from '../../../src/contract.ts';
import {
  appliedMigrations,
  migrateForward,
  pendingMigrations,
} from '../../../src/database/migrate/forward.ts';
import {
  type DatabaseEndpoint,
  databaseEndpoint,
  withClient,
} from '../../../src/database/server/connection.ts';
import { openPlayers, redisEndpoint } from '../../../src/observe/players.ts';
import type { Event } from '../../../src/report/events.ts';
import { openTestProject, type TestProject } from '../../support/site/accessories.ts';

let on: TestProject;
let endpoint: DatabaseEndpoint;
let dir: string;
let events: Event[];

beforeAll(async () => {
  on = await openTestProject('db');
  await on.ensure();
  endpoint = await databaseEndpoint(on.engine, on.project, on.settings);
});
afterAll(() => on?.remove());

beforeEach(async () => {
  await withClient(endpoint, (client) =>
    client.query('DROP SCHEMA IF EXISTS gameops CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public'),
  );
  dir = await mkdtemp(join(tmpdir(), 'gameops-db-'));
  events = [];
  return () => rm(dir, { recursive: true });
});

const options = () => ({ emit: (event: Event) => events.push(event) });
const query = (sql: string) => withClient(endpoint, async (client) => (await client.query(sql)).rows);
const write = (name: string, up: string, header = '', down = 'SELECT 1') =>
  writeFile(join(dir, `${name}.sql`), `${header}\n-- Up Migration\n${up};\n-- Down Migration\n${down};\n`);
const applied = () => withClient(endpoint, async (client) => [...(await appliedMigrations(client))]);
const namesIn = (result: { applied: { name: string }[] }) => result.applied.map(({ name }) => name);

describe('applying migrations', () => {
  it('applies pending migrations in order, and none when it runs again', async () => {
    await write('2_b', 'ALTER TABLE a ADD b int');
    await write('1_a', 'CREATE TABLE a (id int)');
    expect(namesIn(await migrateForward(endpoint, dir, options()))).toEqual(['1_a', '2_b']);
    expect(namesIn(await migrateForward(endpoint, dir, options()))).toEqual([]);
    expect(await applied()).toEqual(['1_a', '2_b']);
  });

  it('lists pending migrations without changing anything', async () => {
    await write('1_a', 'CREATE TABLE a (id int)');
    await write('2_b', 'DROP TABLE a', '-- gameops: phase=contract reversible=lossy');
    const pending = await withClient(endpoint, (client) => pendingMigrations(client, dir));
    expect(pending).toEqual({ expand: ['1_a'], contract: ['2_b'] });
    expect(await query(`SELECT to_regclass('pgmigrations') AS it`)).toEqual([{ it: null }]);
  });

  it('leaves contract migrations pending', async () => {
    await write('1_a', 'CREATE TABLE a (id int)');
    await write('2_b', 'DROP TABLE a', '-- gameops: phase=contract reversible=lossy');
    await write('3_c', 'ALTER TABLE a ADD c int');
    expect(namesIn(await migrateForward(endpoint, dir, options()))).toEqual(['1_a', '3_c']);
  });

  it('applies the migrations of the plan and no others', async () => {
    await write('1_a', 'CREATE TABLE a (id int)');
    await write('2_b', 'CREATE TABLE b (id int)');
    expect(namesIn(await migrateForward(endpoint, dir, { ...options(), names: ['1_a'] }))).toEqual(['1_a']);
    const gone = migrateForward(endpoint, dir, { ...options(), names: ['9_gone'] });
    await expect(gone).rejects.toMatchObject({ code: 'MIGRATION_INVALID' });
  });

  it('applies each migration once when two runs overlap', async () => {
    for (let n = 1; n <= 8; n += 1)
      await write(`${n}_t`, `CREATE TABLE t${n} (id int); SELECT pg_sleep(0.02)`);
    const both = await Promise.all([
      migrateForward(endpoint, dir, options()),
      migrateForward(endpoint, dir, options()),
    ]);
    expect(both.flatMap(namesIn).sort()).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map((n) => `${n}_t`));
    expect((await applied()).length).toBe(8);
  });

  it('reverts all that it applied when a migration fails, and says which one failed and why', async () => {
    await write('1_a', 'CREATE TABLE a (id int PRIMARY KEY)', '', 'DROP TABLE a');
    await write('2_b', 'CREATE TABLE b (id int); INSERT INTO a VALUES (1), (1)');
    await write('3_c', 'CREATE TABLE c (id int)');
    const error = await migrateForward(endpoint, dir, options()).catch((it) => it);
    expect(error).toMatchObject({
      code: 'MIGRATION_FAILED',
      exitCode: 9,
      facts: { migration: '2_b', sqlstate: '23505', constraint: 'a_pkey', applied: [], reverted: ['1_a'] },
    });
    expect(error.message).toContain('duplicate key');
    expect(await query(`SELECT to_regclass('a') AS a, to_regclass('b') AS b, to_regclass('c') AS c`)).toEqual(
      [{ a: null, b: null, c: null }],
    );
    expect(await applied()).toEqual([]);
    await write('2_b', 'CREATE TABLE b (id int)');
    expect(namesIn(await migrateForward(endpoint, dir, options()))).toEqual(['1_a', '2_b', '3_c']);
  });

  it('never makes players wait behind it for a table in use, and tries again', async () => {
    await query('CREATE TABLE busy (id int)');
    await write('1_a', 'ALTER TABLE busy ADD a int');
    await withClient(endpoint, async (reader) => {
      await reader.query('BEGIN; SELECT * FROM busy');
      const migrating = migrateForward(endpoint, dir, options());
      await expect.poll(() => events.filter(({ type }) => type === 'note').length).toBeGreaterThan(1);
      const count = 'SELECT count(*)::int AS n FROM busy';
      const { rows } = await withClient(endpoint, (player) => player.query(count), { lockMs: 10_000 });
      expect(rows).toEqual([{ n: 0 }]);
      await reader.query('COMMIT');
      expect(namesIn(await migrating)).toEqual(['1_a']);
    });
  });

  it('ends a dump whose gameops is gone, but no dump whose gameops lives and no dump of another role', async () => {
    await query(
      `CREATE TABLE busy (id int); CREATE ROLE dumper LOGIN PASSWORD 'dumper'; GRANT USAGE ON SCHEMA public TO dumper; GRANT SELECT ON busy TO dumper`,
    );
    await write('1_a', 'ALTER TABLE busy ADD a int');
    const dumping = (id: string, over: object, use: () => Promise<void>) =>
      withClient(
        { ...endpoint, ...over },
        async (dump) => {
          await dump.query('BEGIN; LOCK TABLE busy IN ACCESS SHARE MODE');
          await use();
        },
        { application: `gameops-dump-${id}` },
      );
    await dumping('20260101-000000-aaaa', {}, async () => {
      expect(namesIn(await migrateForward(endpoint, dir, { ...options(), waitMs: 3_000 }))).toEqual(['1_a']);
    });
    expect(events).toContainEqual(expect.objectContaining({ message: 'ended 1 dump of a killed gameops' }));
    await write('2_b', 'ALTER TABLE busy ADD b int');
    const busy = () => migrateForward(endpoint, dir, { ...options(), waitMs: 500 });
    const owner = { application: 'gameops-backup-20260101-000000-bbbb' };
    await withClient(
      endpoint,
      () =>
        dumping('20260101-000000-bbbb', {}, () =>
          expect(busy()).rejects.toMatchObject({ code: 'MIGRATION_BUSY' }),
        ),
      owner,
    );
    const other = { user: 'dumper', password: 'dumper' };
    await dumping('20260101-000000-cccc', other, () =>
      expect(busy()).rejects.toMatchObject({ code: 'MIGRATION_BUSY' }),
    );
    expect(namesIn(await busy())).toEqual(['2_b']);
    await query('DROP OWNED BY dumper; DROP TABLE busy; DROP ROLE dumper');
  });

  it('gives up after a bounded wait and names the connection in the way', async () => {
    await query('CREATE TABLE busy (id int)');
    await write('1_a', 'ALTER TABLE busy ADD a int');
    await withClient(endpoint, async (reader) => {
      await reader.query('BEGIN; SELECT * FROM busy');
      const { rows } = await reader.query('SELECT pg_backend_pid() AS pid');
      await expect(migrateForward(endpoint, dir, { ...options(), waitMs: 500 })).rejects.toMatchObject({
        code: 'MIGRATION_BUSY',
        exitCode: 9,
        facts: { pid: rows[0].pid },
      });
    });
    expect(await applied()).toEqual([]);
  });

  it('gives up while node-pg-migrate runs on the same database, and names its connection', async () => {
    await write('1_a', 'CREATE TABLE a (id int)');
    await withClient(endpoint, async (other) => {
      const { rows } = await other.query('SELECT pg_backend_pid() AS pid, pg_advisory_lock($1)', [
        PG_MIGRATE_LOCK_ID,
      ]);
      await expect(migrateForward(endpoint, dir, { ...options(), waitMs: 300 })).rejects.toMatchObject({
        code: 'MIGRATION_BUSY',
        facts: { pid: rows[0].pid },
      });
    });
    expect(namesIn(await migrateForward(endpoint, dir, options()))).toEqual(['1_a']);
  });

  it('does not wait for migrations of another database on the same server', async () => {
    await write('1_a', 'CREATE TABLE a (id int)');
    await withClient(endpoint, (client) => client.query('CREATE DATABASE other'));
    await withClient({ ...endpoint, database: 'other' }, async (holder) => {
      await holder.query('SELECT pg_advisory_lock($1)', [PG_MIGRATE_LOCK_ID]);
      expect(namesIn(await migrateForward(endpoint, dir, { ...options(), waitMs: 0 }))).toEqual(['1_a']);
    });
    await withClient(endpoint, (client) => client.query('DROP DATABASE other'));
  });

  it('refuses an invalid file before it touches the database', async () => {
    await write('1_a', 'CREATE TABLE a (id int)');
    await write('2_b', 'COMMIT');
    await expect(migrateForward(endpoint, dir, options())).rejects.toMatchObject({
      code: 'MIGRATION_INVALID',
    });
    expect(await applied()).toEqual([]);
  });

  it('reports that the server ended its connection, and leaves nothing half applied', async () => {
    await write('1_a', 'CREATE TABLE a (id int); SELECT pg_terminate_backend(pg_backend_pid())');
    await expect(migrateForward(endpoint, dir, options())).rejects.toMatchObject({
      code: 'DATABASE_UNREACHABLE',
    });
    expect(await query(`SELECT to_regclass('a') AS a`)).toEqual([{ a: null }]);
  });

  it('leaves no lock and nothing half done when gameops is killed', async () => {
    await write('1_a', 'CREATE TABLE a (id int); SELECT pg_sleep(60)');
    const program = `
      import { migrateForward } from './src/database/migrate/forward.ts';
      await migrateForward(JSON.parse(process.env.ENDPOINT), process.env.DIR, { emit() {} });`;
    const outfile = join(process.cwd(), 'node_modules', `.killed-${on.project}.mjs`);
    const stdin = { contents: program, resolveDir: process.cwd(), loader: 'ts' } as const;
    await build({ stdin, outfile, bundle: true, platform: 'node', format: 'esm', packages: 'external' });
    const env = { ...process.env, ENDPOINT: JSON.stringify(endpoint), DIR: dir };
    const killed = spawn(process.execPath, [outfile], { env, stdio: 'inherit' });
    const sleeping = `SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND application_name = 'gameops'`;
    await expect.poll(async () => (await query(sleeping)).length).toBe(1);
    killed.kill('SIGKILL');
    await rm(outfile);
    await write('1_a', 'CREATE TABLE a (id int)');
    expect(namesIn(await migrateForward(endpoint, dir, { ...options(), waitMs: 60_000 }))).toEqual(['1_a']);
  });

  it('reports that the role may not create tables', async () => {
    await write('1_a', 'CREATE TABLE a (id int)');
    await query(`CREATE ROLE guest LOGIN PASSWORD 'guest'`);
    const guest = { ...endpoint, user: 'guest', password: 'guest' };
    await expect(migrateForward(guest, dir, options())).rejects.toMatchObject({
      code: 'MIGRATION_FAILED',
      facts: { sqlstate: '42501' },
    });
  });

  it('stops between two migrations when asked to', async () => {
    await write('1_a', 'CREATE TABLE a (id int)');
    await write('2_b', 'CREATE TABLE b (id int)');
    const stop = new AbortController();
    const emit = (event: Event) => {
      if (event.type === 'note' && event.message.includes('applied')) stop.abort(new Error('asked'));
    };
    await expect(migrateForward(endpoint, dir, { emit, signal: stop.signal })).rejects.toThrow('asked');
    expect(await applied()).toEqual(['1_a']);
  });
});

describe('a database that cannot be reached', () => {
  it.each([
    ['a wrong password', { password: 'wrong-Pa55' }, /password/],
    ['a missing database', { database: 'nowhere' }, /no database nowhere/],
    ['a server that is down', { port: 1 }, /no database answers/],
  ])('%s is named, without showing the password', async (_what, other, words) => {
    const broken = { ...endpoint, ...other };
    const error = await withClient(broken, async () => null).catch((it) => it);
    expect(error).toMatchObject({
      code: 'DATABASE_UNREACHABLE',
      exitCode: 4,
      message: expect.stringMatching(words),
    });
    expect(JSON.stringify([error.message, error.next, error.facts])).not.toContain(broken.password);
  });
});

describe('a server that is frozen', () => {
  it('makes nobody wait longer than the limits', async () => {
    const { postgres, redis } = namesOf(on.project);
    const players = openPlayers(await redisEndpoint(on.engine, on.project, on.settings));
    await players.closed(1);
    execFileSync('docker', ['pause', postgres, redis]);
    try {
      const connecting = withClient(endpoint, async () => null, { connectMs: 300 });
      await expect(connecting).rejects.toMatchObject({ code: 'DATABASE_UNREACHABLE' });
      expect(await players.closed(1)).toBeNull();
    } finally {
      execFileSync('docker', ['unpause', postgres, redis]);
      players.close();
    }
    expect(await query('SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });
});

describe('counting players', () => {
  it('adds up the replicas of each release, and does not take silence for zero', async () => {
    const at = await redisEndpoint(on.engine, on.project, on.settings);
    const redis = new Redis({ host: at.host, port: at.port, password: at.password });
    const keys = redisKeys(on.project);
    await redis.mset({ [keys.players(7, 1)]: 20, [keys.players(7, 2)]: 3, [keys.players(8, 1)]: 0 });
    await redis.incrby(keys.closedCount(7), 5);
    await redis.zadd(keys.closed, 7, 'a', 7, 'b', 8, 'c');
    await redis.quit();
    const players = openPlayers(at);
    const wanted = new Map([
      [7, [1, 2, 3]],
      [8, [1]],
      [9, [1]],
    ]);
    expect(await players.online(wanted)).toEqual(
      new Map([
        [7, 23],
        [8, 0],
        [9, null],
      ]),
    );
    await expect.poll(() => players.closed(7)).toEqual({ sockets: 5, missing: 2 });
    players.close();
  });

  it('gives no number while Redis is away, and a number again when it is back', async () => {
    const name = namesOf(on.project).redis;
    const players = openPlayers(await redisEndpoint(on.engine, on.project, on.settings));
    await expect.poll(() => players.closed(1)).not.toBeNull();
    await on.engine.signal(on.project, name, 'SIGTERM');
    await expect.poll(() => players.closed(1)).toBeNull();
    expect(await players.online(new Map([[7, [1]]]))).toEqual(new Map([[7, null]]));
    players.close();
    await on.ensure();
    const again = openPlayers(await redisEndpoint(on.engine, on.project, on.settings));
    await expect.poll(() => again.closed(1)).not.toBeNull();
    again.close();
  });

  it('answers null, not an error, for a wrong password', async () => {
    const at = await redisEndpoint(on.engine, on.project, on.settings);
    const players = openPlayers({ ...at, password: 'wrong' });
    expect(await players.online(new Map([[7, [1]]]))).toEqual(new Map([[7, null]]));
    expect(await players.closed(7)).toBeNull();
    players.close();
  });
});
