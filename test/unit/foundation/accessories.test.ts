import { describe, expect, it } from 'vitest';
import { whichAccessories } from '../../../src/foundation/accessories.ts';
import type { AccessorySettings } from '../../../src/foundation/model.ts';
import { postgresSecrets, postgresSpec } from '../../../src/foundation/postgres.ts';
import { redisSecrets, redisSpec } from '../../../src/foundation/redis.ts';

const settings: AccessorySettings = {
  DB_HOST: 'postgres',
  DB_PORT: 5432,
  DB_NAME: 'arena',
  DB_USER: 'arena',
  DB_PASSWORD: 'postgres-Pa55',
  REDIS_URL: 'redis://:redis-Pa55@redis:6379/0',
};
const auto = { accessories: { postgres: 'auto', redis: 'auto' } } as const;
const postgres = (replicas: number) =>
  postgresSpec({ project: 'arena', image: 'postgres:18', settings, replicas, connectionsPerReplica: 10 });
const redis = redisSpec({ project: 'arena', image: 'redis:8' });

describe('which accessories gameops runs', () => {
  it('runs both when .env names their hosts', () => {
    expect(whichAccessories(auto, settings)).toEqual({ postgres: 'managed', redis: 'managed' });
  });

  it('runs both when .env names their hosts in capitals or with a last dot, because Docker finds them so, too', () => {
    const shouted = { ...settings, DB_HOST: 'Postgres.', REDIS_URL: 'redis://:redis-Pa55@REDIS:6379/0' };
    expect(whichAccessories(auto, shouted)).toEqual({ postgres: 'managed', redis: 'managed' });
  });

  it('starts none where .env names a server of the operator', () => {
    const own = {
      ...settings,
      DB_HOST: 'db.example.com',
      DB_PORT: 6000,
      REDIS_URL: 'rediss://me:x@cache.example.com:1',
    };
    expect(whichAccessories(auto, own)).toEqual({ postgres: 'external', redis: 'external' });
  });

  it('decides for Postgres and Redis separately', () => {
    const mixed = { ...settings, DB_HOST: 'db.example.com' };
    expect(whichAccessories(auto, mixed)).toEqual({ postgres: 'external', redis: 'managed' });
  });

  it.each(['localhost', '127.0.0.1', '127.8.8.8', '::1'])(
    'refuses %s, which means the container itself inside a container',
    (host) => {
      expect(() => whichAccessories(auto, { ...settings, DB_HOST: host })).toThrow(
        expect.objectContaining({ code: 'DB_HOST_LOOPBACK' }),
      );
    },
  );

  it('refuses a loopback Redis too', () => {
    for (const REDIS_URL of ['redis://localhost:6379', 'redis://[::1]:6379']) {
      expect(() => whichAccessories(auto, { ...settings, REDIS_URL })).toThrow(
        expect.objectContaining({
          code: 'DB_HOST_LOOPBACK',
          facts: expect.objectContaining({ key: 'REDIS_URL' }),
        }),
      );
    }
  });

  it.each([
    ['managed', { DB_HOST: 'db.example.com' }],
    ['external', {}],
  ] as const)('refuses gameops.yaml that says %s against .env', (wish, other) => {
    const config = { accessories: { postgres: wish, redis: 'auto' } } as const;
    expect(() => whichAccessories(config, { ...settings, ...other })).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID' }),
    );
  });

  it.each([
    { DB_PORT: 6432 },
    { REDIS_URL: 'redis://:x@redis:7000' },
    { REDIS_URL: 'rediss://:x@redis:6379' },
    { REDIS_URL: 'redis://someone:x@redis:6379' },
  ])('refuses settings that an accessory cannot have: %o', (other) => {
    expect(() => whichAccessories(auto, { ...settings, ...other })).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID' }),
    );
  });

  it('shows no password in a refusal', () => {
    try {
      whichAccessories(auto, { ...settings, REDIS_URL: 'rediss://:redis-Pa55@redis:6379' });
      expect.unreachable();
    } catch (error) {
      expect(JSON.stringify(error) + String(error)).not.toContain('redis-Pa55');
    }
  });
});

describe('the specifications', () => {
  it.each([
    ['postgres', postgres(2)],
    ['redis', redis],
  ])('%s runs with the least it needs and is reached on loopback alone', (user, spec) => {
    expect(spec).toMatchObject({ user, readOnlyRoot: true, restart: 'always' });
    expect(spec.capabilities ?? []).toEqual([]);
    expect(spec.memoryBytes).toBeGreaterThan(0);
    expect(spec.health).toBeDefined();
    expect(spec.publish?.map(({ address, hostPort }) => [address, hostPort])).toEqual([['127.0.0.1', 0]]);
  });

  it('hold no secret', () => {
    expect(JSON.stringify([postgres(2), redis])).not.toMatch(/Pa55/);
  });

  it('give neither accessory the secrets of the other', () => {
    const secretsOf = (spec: typeof redis) => spec.mounts?.find(({ readOnly }) => readOnly)?.volume;
    expect(secretsOf(postgres(2))).not.toBe(secretsOf(redis));
  });

  it('have connections for two fleets at once, and one more replica is no drift', () => {
    const connections = (replicas: number) =>
      Number(/max_connections=(\d+)/.exec((postgres(replicas).command ?? []).join(' '))?.[1]);
    expect(connections(50)).toBeGreaterThanOrEqual(50 * 10 * 2 + 10);
    expect(postgres(3)).toEqual(postgres(2));
  });
});

describe('the secrets', () => {
  it('give Postgres its password as it is', () => {
    expect(postgresSecrets({ DB_PASSWORD: 'a b"c' })).toEqual([{ path: 'password', content: 'a b"c' }]);
  });

  it('let no Redis password add a line to its configuration', () => {
    const hostile = '"\nappendonly no\n#\\x41 ü';
    const files = redisSecrets({ REDIS_URL: `redis://:${encodeURIComponent(hostile)}@redis:6379` });
    expect(files.find(({ path }) => path === 'password')?.content).toBe(hostile);
    const lines = String(files.find(({ path }) => path === 'redis.conf')?.content).split('\n');
    expect(lines.filter((line) => line.startsWith('appendonly'))).toEqual(['appendonly yes']);
    expect(lines.find((line) => line.startsWith('requirepass'))).toMatch(/^requirepass "[A-Za-z0-9\\]+"$/);
  });
});
