import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  findBackup,
  listUndos,
  type RestoreMoment,
  restoreBackup,
  restoreUndo,
} from '../../../src/database/backup/restore.ts';
import { type BackupAccess, type TakenBackup, takeBackup } from '../../../src/database/backup/take.ts';
import { catalogueOf } from '../../../src/database/server/catalogue.ts';
import { withClient } from '../../../src/database/server/connection.ts';
import { emptyFolder } from '../../support/program.ts';
import { type BackupLab, backupLab, change, everything } from '../../support/site/backups.ts';
import { engineImage } from '../../support/site/engine-image.ts';

let lab: BackupLab;
let access: BackupAccess;
let backup: TakenBackup;
let before: string;

beforeAll(async () => {
  lab = await backupLab('restore');
});
afterAll(() => lab?.remove());

beforeEach(async () => {
  await lab.query(everything);
  access = await lab.open();
  backup = await takeBackup(access, { level: 'read', release: null, reason: 'test' });
  before = await content();
  await lab.query(`
    INSERT INTO players (name) VALUES ('late'); UPDATE players SET points = 9 WHERE id <= 10;
    DELETE FROM finds WHERE id <= 5; SELECT nextval('tickets'); CREATE TABLE later (id int); DROP VIEW best`);
  expect(await content()).not.toBe(before);
  return async () => {
    for (const { name } of await listUndos(access)) await lab.query(`DROP DATABASE "${name}"`, 'postgres');
  };
});

/** Every row of every table, where every sequence stands, and the schema. */
function content(database = lab.endpoint.database): Promise<string> {
  return withClient({ ...lab.endpoint, database }, async (client) => {
    const { rows: tables } = await client.query<{ name: string }>(
      `SELECT oid::regclass::text AS name FROM pg_class
       WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1`,
    );
    const parts: unknown[] = [];
    for (const { name } of tables) {
      const { rows } = await client.query(
        `SELECT md5(string_agg(t::text, ';' ORDER BY t::text)) FROM ${name} t`,
      );
      parts.push(name, rows);
    }
    const { rows: sequences } = await client.query(
      `SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2`,
    );
    return JSON.stringify([parts, sequences, (await catalogueOf(client)).lines]);
  });
}

const stagingDatabases = () =>
  lab.query<{ name: string }>(
    `SELECT datname AS name FROM pg_database WHERE datname LIKE 'gameops%'`,
    'postgres',
  );

describe('restoring', () => {
  it('brings back every row, every sequence and the schema, and keeps the present database to go back to', async () => {
    const changed = await content();
    const { undo } = await restoreBackup(access, backup);
    expect(await content()).toBe(before);
    expect(await content(undo)).toBe(changed);
    expect(await listUndos(access)).toMatchObject([
      { name: undo, comment: expect.stringContaining(backup.id) },
    ]);
    expect(await stagingDatabases()).toEqual([]);
    // Within the same second, too.
    const back = await restoreUndo(access, undo);
    expect(await content()).toBe(changed);
    expect((await listUndos(access)).map(({ name }) => name)).toEqual([back.undo]);
  });

  it('keeps rights, settings and collation of the database', async () => {
    const { database } = lab.endpoint;
    await lab.query(`
      DO $$ BEGIN CREATE ROLE guest; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
      REVOKE ALL ON DATABASE "${database}" FROM PUBLIC; GRANT CONNECT ON DATABASE "${database}" TO guest;
      ALTER DATABASE "${database}" SET search_path = "$user", public; ALTER DATABASE "${database}" SET work_mem = '5MB';
      ALTER ROLE guest IN DATABASE "${database}" SET lock_timeout = '1s'`);
    const shape = () =>
      lab.query(
        `SELECT d.datcollate, d.datctype, d.encoding, d.datlocprovider, d.datacl::text, pg_get_userbyid(d.datdba) AS owner,
           (SELECT json_agg(json_build_array(setrole, setconfig) ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = d.oid) AS settings
         FROM pg_database d WHERE datname = '${database}'`,
        'postgres',
      );
    const had = await shape();
    await restoreBackup(access, backup);
    expect(await shape()).toEqual(had);
    await lab.query(
      `ALTER DATABASE "${database}" RESET ALL; ALTER ROLE guest IN DATABASE "${database}" RESET ALL;
       GRANT CONNECT, TEMPORARY ON DATABASE "${database}" TO PUBLIC; REVOKE ALL ON DATABASE "${database}" FROM guest`,
    );
  });

  it('gives everything to the login role when the owner of the backup is no role of this server', async () => {
    const { user } = lab.endpoint;
    expect(backup.manifest.owner).toBe(user);
    await lab.query('CREATE ROLE former; ALTER TABLE players OWNER TO former');
    const ofFormer = await takeBackup(access, { level: 'read', release: null, reason: 'test' });
    await lab.query(`ALTER TABLE players OWNER TO "${user}"; DROP ROLE former`);
    const manifest = { ...ofFormer.manifest, owner: 'former' };
    await restoreBackup(access, { ...ofFormer, manifest });
    const owners = `SELECT tableowner AS who FROM pg_tables WHERE tablename = 'players'`;
    expect(await lab.query(owners)).toEqual([{ who: user }]);
  });

  it('makes clients that reconnect wait only for a moment, and ends every connection to the old database', async () => {
    let isOver = false;
    const answers: string[] = [];
    const player = async () => {
      while (!isOver) {
        const rows = await lab.query<{ n: string }>('SELECT count(*) AS n FROM players').catch(() => null);
        if (rows) answers.push(rows[0]?.n ?? '');
      }
    };
    const players = [player(), player(), player()];
    const idle = withClient(
      lab.endpoint,
      (client) => new Promise((_, reject) => client.on('end', () => reject(new Error('ended')))),
    );
    const ended = expect(idle).rejects.toThrow('ended');
    const { connections } = await restoreBackup(access, backup);
    await ended;
    await expect.poll(() => answers.includes('500')).toBe(true);
    isOver = true;
    await Promise.all(players);
    expect(connections).toBeGreaterThan(0);
    expect(new Set(answers)).toEqual(new Set(['501', '500']));
    expect(answers.lastIndexOf('501')).toBeLessThan(answers.indexOf('500'));
  });
});

describe('`gameops db restore`', () => {
  it('shows what would be lost, and changes nothing without a confirmation', async () => {
    const own = emptyFolder();
    const taken = await lab.cli(['db', 'backup'], { cwd: own.path }).ended;
    const { id } = taken.json.result;
    await lab.query(`INSERT INTO players (name) SELECT 'more ' || n FROM generate_series(1, 37) n`);
    const changed = await content();
    await expect
      .poll(async () => {
        const asked = await lab.cli(['db', 'restore', id], { cwd: own.path }).ended;
        expect(asked).toMatchObject({ code: 2, json: { error: { code: 'CONFIRMATION_NEEDED' } } });
        expect(asked.json.error?.next).toEqual([`gameops db restore ${id} --yes`]);
        return asked.json.error?.message;
      })
      .toMatch(/37 rows added.*37 in public\.players \(501 rows then, 538 now\)/);
    expect(await content()).toBe(changed);

    const done = await lab.cli(['db', 'restore', id, '--yes'], { cwd: own.path }).ended;
    expect(done.code).toBe(0);
    const { undo } = done.json.result;
    expect(done.json.result).toMatchObject({
      id,
      goBack: `gameops db restore ${undo}`,
      drop: expect.stringContaining(`dropdb -U`),
      loss: { writes: { inserted: 37, updated: 0, deleted: 0 } },
    });
    expect(await lab.query('SELECT count(*)::int AS n FROM players')).toEqual([{ n: 501 }]);
    const listed = await lab.cli(['db', 'backups'], { cwd: own.path }).ended;
    expect(listed.json.result.undos).toMatchObject([{ name: undo }]);

    const back = await lab.cli(['db', 'restore', undo, '--yes'], { cwd: own.path }).ended;
    expect(back.code).toBe(0);
    expect(await content()).toBe(changed);
    expect([taken, done, back].map(({ out, err }) => out + err).join()).not.toContain(lab.endpoint.password);
    own.remove();
  });

  it('refuses an unknown backup, a damaged backup, and a project that another command has locked', async () => {
    const own = emptyFolder();
    const changed = await content();
    const unknown = await lab.cli(['db', 'restore', '20260101-000000-aaaa', '--yes'], { cwd: own.path })
      .ended;
    expect(unknown).toMatchObject({ code: 2, json: { error: { code: 'BACKUP_UNKNOWN' } } });
    const nobody = await lab.cli(['db', 'restore', 'postgres', '--yes'], { cwd: own.path }).ended;
    expect(nobody).toMatchObject({ code: 2, json: { error: { code: 'BACKUP_UNKNOWN' } } });
    const taken = await lab.cli(['db', 'backup'], { cwd: own.path }).ended;
    const { id, path } = taken.json.result;
    const holder = { holder: 'ada', host: 'desk', verb: 'deploy', since: '2026-01-01T00:00:00.000Z' };
    const lock = await lab.on.engine.lock(lab.on.project, await engineImage(), holder);
    const locked = await lab.cli(['db', 'restore', id, '--yes'], { cwd: own.path }).ended;
    expect(locked).toMatchObject({ code: 8, json: { error: { code: 'LOCKED' } } });
    await lock.release();
    await change(path, (dump) => dump.fill(0, 2_000, 2_100));
    const damaged = await lab.cli(['db', 'restore', id, '--yes'], { cwd: own.path }).ended;
    expect(damaged).toMatchObject({ code: 5, json: { error: { code: 'BACKUP_DAMAGED' } } });
    expect(await content()).toBe(changed);
    expect(await stagingDatabases()).toEqual([]);
    own.remove();
  });
});

describe('a restore that fails', () => {
  it('changes nothing when the server is read-only', async () => {
    const { user } = lab.endpoint;
    await lab.query(`ALTER ROLE "${user}" SET default_transaction_read_only = on`);
    const failing = await restoreBackup(access, backup).catch((it) => it);
    await lab.query(`BEGIN READ WRITE; ALTER ROLE "${user}" RESET default_transaction_read_only; COMMIT`);
    expect(failing).toMatchObject({ code: 'RESTORE_FAILED', facts: { sqlstate: '25006' } });
    expect(await lab.query('SELECT count(*)::int AS n FROM players')).toEqual([{ n: 501 }]);
  });

  it('ends within seconds when a connection cannot be ended, and players can use the database again', async () => {
    await lab.query(`CREATE ROLE keeper LOGIN CREATEDB PASSWORD 'keeper-Pa55'`);
    await lab.query('CREATE DATABASE kept OWNER keeper', 'postgres');
    const endpoint = { ...lab.endpoint, database: 'kept', user: 'keeper', password: 'keeper-Pa55' };
    await lab.query('SET ROLE keeper; CREATE TABLE mine (id int); INSERT INTO mine VALUES (1)', 'kept');
    const own = await lab.open({ endpoint });
    const taken = await takeBackup(own, { level: 'restore', release: null, reason: 'test' });
    // Of a superuser, which the owner of the database may not end.
    await withClient({ ...lab.endpoint, database: 'kept' }, async (stubborn) => {
      const failed = await restoreBackup(own, taken).catch((it) => it);
      expect(failed).toMatchObject({ code: 'RESTORE_FAILED', facts: { sqlstate: expect.any(String) } });
      await stubborn.query('SELECT 1');
    });
    expect(
      await withClient(endpoint, async (client) => (await client.query('SELECT id FROM mine')).rows),
    ).toEqual([{ id: 1 }]);
    await restoreBackup(own, taken);
    for (const { name } of await listUndos(own)) await lab.query(`DROP DATABASE "${name}"`, 'postgres');
    await lab.query('DROP DATABASE kept', 'postgres');
    await lab.query('DROP ROLE keeper', 'postgres');
    expect(await stagingDatabases()).toEqual([]);
  });
});

describe('a gameops that is killed while it restores', () => {
  const stages: [RestoreMoment, 'as it was' | 'restored'][] = [
    ['creating', 'as it was'],
    ['filling', 'as it was'],
    ['comparing', 'as it was'],
    ['swapping', 'as it was'],
    ['swapping-half', 'as it was'],
    ['swapped', 'restored'],
  ];

  it.each(stages)(
    'at "%s" leaves a database that can be used (%s), and the next restore succeeds',
    async (stage, how) => {
      const changed = await content();
      await killedAt(stage);
      // The server may take a moment to see that the connection is gone.
      await expect.poll(() => content().catch(() => null)).toBe(how === 'restored' ? before : changed);
      const restored = await restoreBackup(access, await findBackup(access.folder, backup.id));
      expect(await content()).toBe(before);
      expect(await stagingDatabases()).toEqual([]);
      expect((await listUndos(access)).map(({ name }) => name)).toContain(restored.undo);
    },
  );

  it('in the middle of filling leaves the old database, and the next restore drops the half-filled one', async () => {
    await lab.query('CREATE TABLE bulk AS SELECT md5(n::text) AS a FROM generate_series(1, 1200000) n');
    const large = await takeBackup(access, { level: 'sha256', release: null, reason: 'test' });
    const changed = await content();
    const child = await starting(large.id, 'none');
    await expect.poll(filling, { interval: 2 }).toHaveLength(1);
    child.kill('SIGKILL');
    await once(child, 'exit');
    await connectionsAreGone();
    expect(await content()).toBe(changed);
    expect(await stagingDatabases()).toHaveLength(1);
    await restoreBackup(access, large);
    expect(await stagingDatabases()).toEqual([]);
    expect(await filling()).toEqual([]);
    expect(await content()).toBe(changed);
  });

  const filling = () =>
    lab.query(
      `SELECT pid FROM pg_stat_activity WHERE datname LIKE 'gameops%' AND query LIKE 'COPY%'`,
      'postgres',
    );

  async function killedAt(stage: RestoreMoment): Promise<void> {
    const child = await starting(backup.id, stage);
    const [, signal] = await once(child, 'exit');
    expect(signal).toBe('SIGKILL');
    await connectionsAreGone();
  }

  /** What a connection still holds is not swept: its gameops could be running. */
  const connectionsAreGone = () =>
    expect
      .poll(() =>
        lab.query(
          `SELECT application_name FROM pg_stat_activity
             WHERE application_name IN (SELECT datname FROM pg_database WHERE datname LIKE 'gameops%')`,
          'postgres',
        ),
      )
      .toEqual([]);

  /** @param stage at which it kills itself */
  async function starting(id: string, stage: RestoreMoment | 'none'): Promise<ChildProcess> {
    const program = `
      import { dockerEngine } from './src/engine/docker/engine.ts';
      import { findBackup, restoreBackup } from './src/database/backup/restore.ts';
      const { stage, id, ...access } = JSON.parse(process.env.KILLED);
      const engine = await dockerEngine();
      const backup = await findBackup(access.folder, id);
      await restoreBackup({ ...access, engine, emit() {} }, backup, (at) => {
        if (at === stage) process.kill(process.pid, 'SIGKILL');
      });`;
    const outfile = join(process.cwd(), 'node_modules', `.killed-${lab.on.project}.mjs`);
    const stdin = { contents: program, resolveDir: process.cwd(), loader: 'ts' } as const;
    await build({ stdin, outfile, bundle: true, platform: 'node', format: 'esm', packages: 'external' });
    const { engine: _engine, emit: _emit, ...plain } = access;
    const env = { ...process.env, KILLED: JSON.stringify({ ...plain, stage, id }) };
    const child = spawn(process.execPath, [outfile], { env, stdio: 'inherit' });
    child.once('exit', () => rmSync(outfile, { force: true }));
    return child;
  }
});
