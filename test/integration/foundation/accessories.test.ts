import { execFileSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { namesOf } from '../../../src/contract.ts';
import { databaseEndpoint, withClient } from '../../../src/database/server/connection.ts';
import { redisPassword } from '../../../src/foundation/redis.ts';
import { openPlayers, redisEndpoint } from '../../../src/observe/players.ts';
import { openTestProject, type TestProject } from '../../support/site/accessories.ts';

let on: TestProject;
let names: ReturnType<typeof namesOf>;

const container = (name: string) =>
  JSON.parse(execFileSync('docker', ['inspect', name], { encoding: 'utf8' }))[0];
const idOf = async (name: string) =>
  (await on.engine.observe(on.project)).find((one) => one.name === name)?.id;
const query = async (sql: string) =>
  withClient(
    await databaseEndpoint(on.engine, on.project, on.settings),
    async (client) => (await client.query(sql)).rows,
  );

beforeAll(async () => {
  on = await openTestProject('acc');
  names = namesOf(on.project);
  await on.ensure();
});
afterAll(() => on?.remove());

describe('the embedded Postgres and Redis', () => {
  it('start, and accept the settings of .env', async () => {
    expect(await query('SELECT current_user::text AS who, current_database()::text AS what')).toEqual([
      { who: 'arena_user', what: 'arena_db' },
    ]);
    const players = openPlayers(await redisEndpoint(on.engine, on.project, on.settings));
    await expect.poll(() => players.closed(1)).toEqual({ sockets: 0, missing: 0 });
    players.close();
  });

  it('are published on loopback only', () => {
    for (const name of [names.postgres, names.redis]) {
      const bindings = Object.values(container(name).NetworkSettings.Ports).flat() as { HostIp: string }[];
      expect(bindings.filter(Boolean).map(({ HostIp }) => HostIp)).toEqual(['127.0.0.1']);
    }
  });

  it('run without root, capabilities, a writable root or an endless log, and come back by themselves', () => {
    for (const name of [names.postgres, names.redis]) {
      const { Config, HostConfig } = container(name);
      expect(Config.User).toMatch(/^(postgres|redis)$/);
      expect(HostConfig).toMatchObject({
        ReadonlyRootfs: true,
        CapDrop: ['ALL'],
        RestartPolicy: { Name: 'always' },
        LogConfig: { Type: 'local' },
      });
      expect(HostConfig.Memory).toBeGreaterThan(0);
    }
  });

  it('show no secret in docker inspect, in a process list or in a log', async () => {
    const secrets = [on.settings.DB_PASSWORD, redisPassword(on.settings)];
    for (const name of [names.postgres, names.redis]) {
      const shown = [
        JSON.stringify(container(name)),
        execFileSync('docker', ['top', name], { encoding: 'utf8' }),
        (await on.engine.logTail(on.project, name, 1_000)).join('\n'),
      ].join('\n');
      for (const secret of secrets) {
        expect(shown).not.toContain(secret);
        expect(shown).not.toContain(JSON.stringify(secret).slice(1, -1));
      }
    }
  });

  it('keep their secrets where only their own user reads them', async () => {
    for (const [name, user] of [
      [names.postgres, 'postgres'],
      [names.redis, 'redis'],
    ] as const) {
      const stat = await on.engine.exec(on.project, name, ['stat', '-c', '%a %U', '/run/gameops/password']);
      expect(stat.stdout.trim()).toBe(`400 ${user}`);
    }
  });

  it('refuse everybody who has no password', async () => {
    const noPassword = await on.engine.exec(on.project, names.redis, [
      'redis-cli',
      '-h',
      '127.0.0.1',
      'ping',
    ]);
    expect(noPassword.stdout).toContain('NOAUTH');
    const settings = { ...on.settings, DB_PASSWORD: 'wrong' };
    const endpoint = await databaseEndpoint(on.engine, on.project, settings);
    await expect(withClient(endpoint, async () => null)).rejects.toMatchObject({
      code: 'DATABASE_UNREACHABLE',
    });
  });

  it('are left alone by a second run', async () => {
    const before = await Promise.all([names.postgres, names.redis].map(idOf));
    on.events.length = 0;
    await on.ensure();
    expect(await Promise.all([names.postgres, names.redis].map(idOf))).toEqual(before);
    expect(on.events).toEqual([]);
  });

  it('are not changed when the settings ask for something else, which is reported', async () => {
    const before = await idOf(names.postgres);
    on.events.length = 0;
    await on.ensure({ replicas: 40 });
    expect(await idOf(names.postgres)).toBe(before);
    expect(on.events).toMatchObject([
      { type: 'note', level: 'warning', message: expect.stringContaining(names.postgres) },
    ]);
  });

  it('refuse a Redis password that the running one does not have, before game servers meet it', async () => {
    const settings = { ...on.settings, REDIS_URL: 'redis://:another@redis:6379' };
    await expect(on.ensure({ settings })).rejects.toMatchObject({ code: 'REDIS_UNREACHABLE', exitCode: 4 });
    execFileSync('docker', ['stop', names.redis]);
    await expect(on.ensure({ settings })).rejects.toMatchObject({ code: 'REDIS_UNREACHABLE' });
    await on.ensure();
  });

  it('keep their data when the containers are removed and made anew', async () => {
    await query('CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)');
    const redisCli = (...words: string[]) =>
      on.engine.exec(on.project, names.redis, [
        'sh',
        '-c',
        'REDISCLI_AUTH="$(cat /run/gameops/password)" exec redis-cli "$@"',
        'redis-cli',
        ...words,
      ]);
    expect((await redisCli('SET', 'kept', '7')).stdout.trim()).toBe('OK');
    for (const name of [names.postgres, names.redis]) await on.engine.removeContainer(on.project, name);
    await on.ensure();
    expect(await query('SELECT id FROM kept')).toEqual([{ id: 7 }]);
    expect((await redisCli('GET', 'kept')).stdout.trim()).toBe('7');
  });

  it('start again when they were stopped', async () => {
    execFileSync('docker', ['stop', names.postgres, names.redis]);
    await on.ensure();
    expect(await query('SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });
});

describe('an accessory that cannot run', () => {
  it('fails at once with its last log lines, and shows no secret', async () => {
    const bad = await openTestProject('accbad');
    try {
      await bad.engine.ensureVolume(bad.project, namesOf(bad.project).volume.postgres, 'data');
      await bad.engine.putFiles(bad.project, namesOf(bad.project).volume.postgres, [
        { path: 'cluster/PG_VERSION', content: '9.6\n', mode: 0o644 },
      ]);
      const error = await bad.ensure({ owned: { postgres: 'managed', redis: 'external' } }).catch((it) => it);
      expect(error).toMatchObject({ code: 'ACCESSORY_NOT_READY', exitCode: 4 });
      expect(error.message).toMatch(/last log lines/);
      expect(JSON.stringify([error.message, error.facts])).not.toContain(bad.settings.DB_PASSWORD);
    } finally {
      await bad.remove();
    }
  });
});
