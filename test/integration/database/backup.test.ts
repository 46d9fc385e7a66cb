import { createHash } from 'node:crypto';
import { readdir, readFile, rm, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import Docker from 'dockerode';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { namesOf } from '../../../src/contract.ts';
import { listBackups } from '../../../src/database/backup/files.ts';
import type { Level } from '../../../src/database/backup/model.ts';
import { withTools } from '../../../src/database/backup/pg-tools.ts';
import {
  type BackupAccess,
  pruneBackups,
  type TakenBackup,
  takeBackup,
} from '../../../src/database/backup/take.ts';
import { verifyBackup } from '../../../src/database/backup/verify.ts';
import { withClient } from '../../../src/database/server/connection.ts';
import { emptyFolder } from '../../support/program.ts';
import {
  type BackupLab,
  backupLab,
  type CliOptions,
  change,
  copyOf,
  everything,
} from '../../support/site/backups.ts';
import { cut, damages, flip, middle, proven } from '../../support/site/damages.ts';
import { engineImage } from '../../support/site/engine-image.ts';
import { fullDisk } from '../../support/site/full-disk.ts';

let lab: BackupLab;
let first: TakenBackup;
let second: TakenBackup;

const request = (level: Level = 'read') => ({ level, release: 7, reason: 'test' });

beforeAll(async () => {
  lab = await backupLab('backup');
  await lab.query(everything);
  first = await takeBackup(await lab.open(), request());
  await lab.query('DELETE FROM finds WHERE id % 100 = 0');
  second = await takeBackup(await lab.open(), request('sha256'));
});
afterAll(() => lab?.remove());

describe('a backup', () => {
  it('is one file with its manifest, which only their owner can read, in a folder that only its owner can enter', async () => {
    const folder = join(first.path, '..');
    expect((await stat(folder)).mode & 0o777).toBe(0o700);
    expect((await readdir(folder)).sort()).toEqual(['.gitignore', `${first.id}.dump`, `${first.id}.json`]);
    for (const name of await readdir(folder))
      expect((await stat(join(folder, name))).mode & 0o777).toBe(0o600);
  });

  it('has a manifest with the rows of every table, the newest migration, the release and the verification', async () => {
    const { manifest, damage } = first;
    expect(damage).toBeNull();
    expect(manifest).toMatchObject({
      format: 1,
      project: lab.on.project,
      database: lab.endpoint.database,
      release: 7,
      reason: 'test',
      newestMigration: '2_second',
      verified: { level: 'read' },
      rows: {
        'public.players': 500,
        'public.finds': 4000,
        'public.moves_26': 200,
        'public.pgmigrations': 2,
      },
    });
    const content = await readFile(first.path);
    expect(manifest.bytes).toBe(content.length);
    expect(manifest.sha256).toBe(createHash('sha256').update(content).digest('hex'));
    expect(manifest.image).toMatch(/^sha256:/);
  });

  it('has a manifest that agrees with the dump, although players write meanwhile', async () => {
    const writing =
      lab.query(`DO $$ BEGIN PERFORM set_config('synchronous_commit', 'off', false); FOR n IN 1..300 LOOP
      INSERT INTO moves VALUES ('2026-05-01', n); COMMIT; PERFORM pg_sleep(0.002); END LOOP; END $$`);
    const taking = takeBackup(await lab.open(), request('restore'));
    const [taken] = await Promise.all([taking, writing]);
    expect(taken.manifest.verified.level).toBe('restore');
    expect(await lab.query(`SELECT datname FROM pg_database WHERE datname LIKE 'gameops%'`)).toEqual([]);
  });

  it('taken twice at the same time gives two backups', async () => {
    const access = await lab.open();
    const both = await Promise.all([takeBackup(access, request()), takeBackup(access, request())]);
    const listed = await listBackups(access.folder);
    expect(listed.map(({ id, damage }) => [id, damage]).sort()).toEqual(
      both.map(({ id }) => [id, null]).sort(),
    );
  });

  it('can be verified again later, and more thoroughly', async () => {
    const { folder } = await copyOf(second);
    const access = await lab.open({ folder });
    const [before] = await listBackups(folder);
    const after = await withTools(access, (tools) =>
      verifyBackup(folder, before as TakenBackup, { tools, endpoint: lab.endpoint, level: 'restore' }),
    );
    expect([before?.manifest?.verified.level, after.manifest?.verified.level]).toEqual(['sha256', 'restore']);
    expect((await listBackups(folder))[0]?.manifest?.verified.level).toBe('restore');
    await rm(folder, { recursive: true });
  });

  it('is removed when enough newer ones exist, but never the newest backup that was read to its end', async () => {
    const access = await lab.open();
    const ids: string[] = [];
    for (const level of ['read', 'sha256', 'sha256', 'sha256'] as const) {
      ids.push((await takeBackup(access, request(level))).id);
      await new Promise((resolve) => setTimeout(resolve, 1_000));
    }
    expect(await pruneBackups(access.folder, 2)).toEqual([ids[1]]);
    expect((await listBackups(access.folder)).map(({ id }) => id)).toEqual([ids[3], ids[2], ids[0]]);
  });
});

describe('verifying a backup', () => {
  it.each(damages)('finds with $level: $what', async ({ level, damage }) => {
    const copy = await copyOf(first);
    await damage(copy, second);
    expect(['not whole', 'damaged']).toContain(await proven(lab, copy.folder, level));
    await rm(copy.folder, { recursive: true });
  });

  it('finds nothing in an undamaged backup', async () => {
    const copy = await copyOf(first);
    for (const level of ['sha256', 'read', 'restore'] as const)
      expect(await proven(lab, copy.folder, level)).toBe('whole');
    await rm(copy.folder, { recursive: true });
  });

  it('lets `db backups` list damage that is visible at once, and hidden damage with --verify', async () => {
    const own = emptyFolder();
    const { json } = await lab.cli(['db', 'backup'], { cwd: own.path }).ended;
    expect(json.result).toMatchObject({ verified: { level: 'read' }, damage: null, removed: [] });
    await change(json.result.path, flip(middle));
    const listed = await lab.cli(['db', 'backups'], { cwd: own.path }).ended;
    expect(listed.json.result.backups).toMatchObject([{ id: json.result.id, damage: null }]);
    const proven = await lab.cli(['db', 'backups', '--verify', 'sha256'], { cwd: own.path }).ended;
    expect(proven.code).toBe(5);
    expect(proven.json.error).toMatchObject({ code: 'BACKUP_DAMAGED' });
    expect(proven.json.result.backups).toMatchObject([{ damage: 'content differs' }]);
    await change(json.result.path, cut(0.5));
    const seen = await lab.cli(['db', 'backups'], { cwd: own.path }).ended;
    expect(seen.json.result.backups).toMatchObject([{ damage: 'size differs' }]);
    own.remove();
  });
});

describe('problems while a backup is taken', () => {
  /** What the folder shows of a backup: nothing. */
  const nothingIn = async (folder: string) => {
    expect(await listBackups(folder)).toEqual([]);
    expect((await readdir(folder)).filter((name) => name !== '.gitignore')).toEqual([]);
  };

  it.each([
    ['a wrong password', { password: 'wrong-Pa55' }, 'DATABASE_UNREACHABLE', /password/],
    ['a missing database', { database: 'nowhere' }, 'DATABASE_UNREACHABLE', /no database nowhere/],
    ['a server that is down', { port: 1 }, 'DATABASE_UNREACHABLE', /no database answers/],
  ])('%s is named, and no file is left', async (_what, over, code, words) => {
    const access = await lab.open();
    const failing = takeBackup({ ...access, endpoint: { ...lab.endpoint, ...over } }, request());
    const error = await failing.catch((it) => it);
    expect(error).toMatchObject({ code, message: expect.stringMatching(words) });
    await nothingIn(access.folder);
  });

  it('a disk that becomes full during the dump leaves no file', async () => {
    const own = emptyFolder();
    // 32 kB: what is written beyond it fails, as it does on a disk that has no more.
    const through = ['sh', '-c', 'ulimit -f 64; exec "$@"', 'sh'];
    const failed = await lab.cli(['db', 'backup'], { cwd: own.path, through }).ended;
    expect(failed.code).toBe(5);
    expect(failed.json.error).toMatchObject({ code: 'DISK_TOO_FULL', facts: { reason: 'EFBIG' } });
    await nothingIn(lab.folder(own.path));
    await expect.poll(dumps).toEqual([]);
    own.remove();
  });

  it('a disk that is full from the start is noticed before anything is made', async () => {
    const own = emptyFolder();
    const disk = await fullDisk(join(own.path, 'engine.sock'), 'from the start');
    // The copy of a trial restore would lie on the disk of the database.
    const asked = ['db', 'backup', '--verify', 'restore'];
    const failed = await lab.cli(asked, { cwd: own.path, env: { DOCKER_HOST: disk.host } }).ended;
    disk.close();
    expect(failed).toMatchObject({ code: 5, json: { error: { code: 'DISK_TOO_FULL' } } });
    await nothingIn(lab.folder(own.path));
    own.remove();
  });

  it('a folder that cannot be written is named', async () => {
    const failing = takeBackup(await lab.open({ folder: '/proc/self/backups' }), request());
    await expect(failing).rejects.toMatchObject({
      code: 'BACKUP_FAILED',
      facts: { path: '/proc/self/backups' },
    });
  });

  it('a dump that the server ends ends the backup at once and leaves no file', async () => {
    const access = await lab.open();
    await locked(async () => {
      const before = await givenUp();
      const failing = takeBackup(access, request()).catch((it) => it);
      await expect.poll(dumps).toHaveLength(1);
      await lab.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE ${isDump}`);
      expect(await failing).toMatchObject({ code: 'BACKUP_FAILED', exitCode: 5 });
      expect(await givenUp()).toBe(before);
    });
    await nothingIn(access.folder);
  });

  it('a table that stays locked ends the backup after a bounded wait, and the error names the lock', async () => {
    const access = await lab.open();
    await locked(async () => {
      const before = await givenUp();
      await expect(takeBackup(access, request())).rejects.toMatchObject({
        code: 'BACKUP_FAILED',
        message: expect.stringMatching(/lock|timeout/),
      });
      expect(await givenUp()).toBeGreaterThan(before);
    });
    await nothingIn(access.folder);
  });

  it('Ctrl-C ends the backup at once and leaves no file', async () => {
    const own = emptyFolder();
    await locked(async () => {
      const before = await givenUp();
      const { child, ended } = lab.cli(['db', 'backup'], { cwd: own.path });
      await expect.poll(dumps).toHaveLength(1);
      child.kill('SIGINT');
      expect(await ended).toMatchObject({ code: 130, json: { error: { code: 'INTERRUPTED' } } });
      await expect.poll(dumps).toEqual([]);
      expect(await givenUp()).toBe(before);
    });
    await nothingIn(lab.folder(own.path));
    own.remove();
  });

  it('a read-only server is backed up like any other', async () => {
    await lab.query(`ALTER ROLE ${lab.endpoint.user} SET default_transaction_read_only = on`);
    try {
      const taken = await takeBackup(await lab.open(), request());
      expect(taken.manifest.rows).toEqual((await takeBackup(await lab.open(), request())).manifest.rows);
    } finally {
      await lab.query(
        `BEGIN READ WRITE; ALTER ROLE ${lab.endpoint.user} RESET default_transaction_read_only; COMMIT`,
      );
    }
  });
});

const isDump = `application_name LIKE 'gameops-dump-%'`;
const dumps = () => lab.query(`SELECT pid FROM pg_stat_activity WHERE ${isDump}`);
/** How many queries have waited for their table in vain until now: Postgres writes so. What was ended before is not among them. */
const givenUp = async () => {
  const log = await lab.on.engine.logTail(lab.on.project, namesOf(lab.on.project).postgres, 10_000);
  return log.filter((line) => /canceling statement due to (statement|lock) timeout/.test(line)).length;
};

/** Nobody can dump meanwhile. */
function locked(act: () => Promise<void>): Promise<void> {
  return withClient(lab.endpoint, async (holder) => {
    await holder.query('BEGIN; LOCK TABLE moves_26 IN ACCESS EXCLUSIVE MODE');
    await act();
  });
}

describe('a gameops that is killed while it dumps', () => {
  /** Until as much as that is in the partial file. */
  const partialOf = async (folder: string, bytes: number) => {
    const names = await readdir(folder).catch(() => []);
    const partial = names.find((name) => name.endsWith('.partial'));
    return partial !== undefined && (await stat(join(folder, partial))).size >= bytes ? partial : null;
  };

  const killed = async (over: CliOptions, folder: string, bytes: number) => {
    const { child, ended } = lab.cli(['db', 'backup'], over);
    await expect.poll(() => partialOf(folder, bytes), { interval: 2 }).not.toBeNull();
    await expect.poll(dumps, { interval: 2 }).toHaveLength(1);
    child.kill('SIGKILL');
    await ended;
  };

  it('leaves no pg_dump running, and the next backup removes its incomplete file', async () => {
    const own = emptyFolder();
    const folder = lab.folder(own.path);
    await locked(async () => {
      const before = await givenUp();
      await killed({ cwd: own.path }, folder, 0);
      await expect.poll(dumps).toEqual([]);
      expect(await givenUp()).toBe(before);
    });
    await lab.query(
      `CREATE UNLOGGED TABLE bulk AS SELECT md5(n::text) || md5((n * 3)::text) AS a FROM generate_series(1, 1800000) n`,
    );
    await rm(folder, { recursive: true });
    await killed({ cwd: own.path }, folder, 500_000);
    await expect.poll(dumps).toEqual([]);
    // The connection that counts rows beside the dump ends when it looks whether its client is there.
    const connections = `SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'gameops-%'`;
    await expect.poll(() => lab.query(connections)).toEqual([]);
    await lab.query('DROP TABLE bulk');

    expect(await listBackups(folder)).toEqual([]);
    const partial = join(folder, (await partialOf(folder, 0)) ?? '');
    // As if a minute had gone by: a younger one may be somebody's who has only begun.
    await utimes(partial, new Date(0), new Date(0));
    const { json } = await lab.cli(['db', 'backup'], { cwd: own.path }).ended;
    expect((await readdir(folder)).sort()).toEqual([
      '.gitignore',
      `${json.result.id}.dump`,
      `${json.result.id}.json`,
    ]);
    own.remove();
  });

  it('has its dump ended by the next backup, which leaves the dump of a running gameops alone', async () => {
    const connection = (application: string) =>
      withClientOpen({ application }, (client) => client.query('SELECT pg_sleep(0)'));
    const [orphan, mine, owner] = await Promise.all([
      connection('gameops-dump-20260101-000000-aaaa'),
      connection('gameops-dump-20260101-000000-bbbb'),
      connection('gameops-backup-20260101-000000-bbbb'),
    ]);
    await takeBackup(await lab.open(), request());
    await expect.poll(dumps).toHaveLength(1);
    await Promise.all([orphan.close(), mine.close(), owner.close()]);
  });

  /** A connection that stays until it is closed. */
  async function withClientOpen(
    limits: { application: string },
    act: (client: Parameters<Parameters<typeof withClient>[1]>[0]) => Promise<unknown>,
  ) {
    let close = () => {};
    let opened = () => {};
    const isOpen = new Promise<void>((resolve) => {
      opened = resolve;
    });
    const closing = new Promise<void>((resolve) => {
      close = resolve;
    });
    const ended = withClient(
      lab.endpoint,
      async (client) => {
        await act(client);
        opened();
        await closing;
      },
      limits,
    );
    await isOpen;
    return {
      close() {
        close();
        return ended;
      },
    };
  }
});

describe('a server that gameops does not run', () => {
  /** As another machine's: at its address, with tools in a container of their own. */
  const external = async (over: Partial<BackupAccess> = {}) => {
    const info = await new Docker().getContainer(namesOf(lab.on.project).postgres).inspect();
    const host = info.NetworkSettings.Networks[namesOf(lab.on.project).network]?.IPAddress ?? '';
    return lab.open({ endpoint: { ...lab.endpoint, host, port: 5432, accessory: null }, ...over });
  };
  const tools = async () =>
    (await lab.on.engine.observe(lab.on.project)).filter(({ role }) => role === 'tools');

  it('is dumped by a tools container that shows no password and is removed afterwards', async () => {
    const access = await external();
    let seen = '';
    await withTools(access, async () => {
      const [container] = await tools();
      seen = JSON.stringify(await new Docker().getContainer(container?.id ?? '').inspect());
    });
    expect(seen).toContain('tools');
    expect(seen).not.toContain(JSON.stringify(lab.endpoint.password).slice(1, -1));
    const taken = await takeBackup(access, request('restore'));
    expect(taken.manifest.rows).toMatchObject({ 'public.players': 500 });
    expect(await tools()).toEqual([]);
  });

  it('has no tools container left after gameops was killed', async () => {
    const own = emptyFolder();
    const { endpoint } = await external();
    await locked(async () => {
      const env = { DB_HOST: endpoint.host };
      const { child, ended } = lab.cli(['db', 'backup'], { cwd: own.path, env });
      await expect.poll(dumps).toHaveLength(1);
      child.kill('SIGKILL');
      await ended;
      await expect.poll(tools).toEqual([]);
      // Cut off before it could say goodbye, its connection ends when it has waited for the table for as long as it may.
      await expect.poll(dumps).toEqual([]);
    });
    own.remove();
  });

  it('that is newer than the tools is refused, and the error says which images.postgres to set', async () => {
    const tag = `${lab.on.project}-old:1`;
    const old = '#!/bin/sh\necho "pg_dump (PostgreSQL) 13.22"\n';
    const context = [
      {
        path: 'Dockerfile',
        content: `FROM ${await engineImage('postgres')}\nCOPY pg_dump /old/\nENV PATH=/old:$PATH\n`,
      },
      { path: 'pg_dump', content: old, mode: 0o755 },
    ];
    await lab.on.engine.buildImage({ tag, context, labels: {} });
    const access = await external({ image: tag });
    const error = await takeBackup(access, request()).catch((it) => it);
    expect(error).toMatchObject({
      code: 'BACKUP_FAILED',
      next: [expect.stringContaining('images.postgres')],
    });
    expect(error.message).toMatch(/Postgres \d+.*pg_dump.*13\.22/);
    expect(await listBackups(access.folder)).toEqual([]);
    await lab.on.engine.removeImage(tag);
  });
});
