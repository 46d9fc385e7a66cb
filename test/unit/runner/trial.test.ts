import { describe, expect, it } from 'vitest';
import { elsewhere } from '../../../src/runner/trial.ts';

const database = { host: 'arena-postgres-throw-away', name: 'arena', user: 'arena', password: 'p@ss' };
const redisUrl = 'redis://:x@arena-redis-throw-away:6379';
const moved = (settings: Record<string, string>) => elsewhere({ settings, database }, redisUrl);

describe('the settings of a release on trial', () => {
  it('point to the throw-away database and Redis in every key and URL that is known to point to one', () => {
    expect(
      moved({
        DB_HOST: 'postgres',
        DB_PORT: '6432',
        DB_NAME: 'live',
        DB_USER: 'live',
        DB_PASSWORD: 'live',
        REDIS_URL: 'rediss://:live@cache:6380/2',
        DATABASE_URL: 'postgresql://live:live@postgres:5432/live',
        QUEUE: 'redis://cache',
      }),
    ).toEqual({
      DB_HOST: 'arena-postgres-throw-away',
      DB_PORT: '5432',
      DB_NAME: 'arena',
      DB_USER: 'arena',
      DB_PASSWORD: 'p@ss',
      REDIS_URL: redisUrl,
      QUEUE: redisUrl,
      DATABASE_URL: 'postgres://arena:p%40ss@arena-postgres-throw-away:5432/arena',
    });
  });

  it('are unchanged otherwise, and none is added', () => {
    const settings = { JWT_SECRET: 'x', SHOP: 'https://shop.example', DB_HOST_NAME: 'postgres' };
    expect(moved(settings)).toEqual(settings);
    expect(moved({})).toEqual({});
  });
});
