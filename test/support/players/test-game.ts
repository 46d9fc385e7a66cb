/** Real Postgres (migrated) and Redis for the game servers of one test file, and functions that such a file needs. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { Client } from 'pg';
import { redisKeys } from '../../../src/contract.ts';
import { packageRoot } from '../../../src/package-root.ts';
import { mintToken } from '../../../src/tokens.ts';
import { openTestProject } from '../site/accessories.ts';
import {
  dialledSettings,
  type GameServer,
  type GameServerRequest,
  startGameServer,
  statusOf,
  until,
} from './game-server.ts';
import { type Hello, joinAs, type WirePlayer } from './wire-player.ts';

export interface TestGame {
  project: string;
  settings: Record<string, string>;
  redis: Redis;
  database: Client;
  keys: ReturnType<typeof redisKeys>;
  migrate(direction: 'up' | 'down'): Promise<void>;
  start(over?: Partial<GameServerRequest>): Promise<GameServer>;
  startReady(over?: Partial<GameServerRequest>): Promise<GameServer>;
  /** A server for several tests: `clear` leaves it running, `remove` ends it. */
  startKept(over?: Partial<GameServerRequest>): Promise<GameServer>;
  tokenOf(player: string): string;
  join(server: GameServer, player: string, hello?: Omit<Hello, 'token'>): Promise<WirePlayer>;
  /** After each test: its servers and players are gone. */
  clear(): Promise<void>;
  remove(): Promise<void>;
}

export async function openTestGame(area: string, { isMigrated = true } = {}): Promise<TestGame> {
  const test = await openTestProject(area);
  await test.ensure();
  const settings = await dialledSettings(test);
  const redis = new Redis(settings.REDIS_URL ?? '');
  const database = new Client({
    host: settings.DB_HOST,
    port: Number(settings.DB_PORT),
    database: settings.DB_NAME,
    user: settings.DB_USER,
    password: settings.DB_PASSWORD,
  });
  await database.connect();
  // None of these tests is about the disk: a disk that is slow for a moment must not look like a slow server.
  await redis.call('CONFIG', 'SET', 'appendonly', 'no');
  await redis.call('CONFIG', 'SET', 'save', '');
  await database.query('ALTER SYSTEM SET fsync = off');
  await database.query('SELECT pg_reload_conf()');
  const running: GameServer[] = [];
  const kept: GameServer[] = [];
  const players: WirePlayer[] = [];

  async function migrate(direction: 'up' | 'down'): Promise<void> {
    const folder = join(packageRoot(), 'migrations');
    await database.query(
      'CREATE TABLE IF NOT EXISTS pgmigrations (id serial PRIMARY KEY, name text NOT NULL, run_on timestamp NOT NULL)',
    );
    const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort();
    for (const name of direction === 'up' ? names : names.reverse()) {
      const [up = '', down = ''] = (await readFile(join(folder, name), 'utf8')).split('-- Down Migration');
      await database.query(direction === 'up' ? up : down);
      await database.query(
        direction === 'up'
          ? 'INSERT INTO pgmigrations (name, run_on) VALUES ($1, now())'
          : 'DELETE FROM pgmigrations WHERE name = $1',
        [name.replace('.sql', '')],
      );
    }
  }

  async function start(over: Partial<GameServerRequest> = {}, among = running): Promise<GameServer> {
    const server = await startGameServer({ settings, project: test.project, ...over });
    among.push(server);
    return server;
  }

  async function startReady(over: Partial<GameServerRequest> = {}, among = running): Promise<GameServer> {
    const server = await start(over, among);
    await until(async () => {
      if (server.hasEnded()) throw new Error(`the server ended: ${server.log()}`);
      return (await statusOf(`${server.url}/readyz`)) === 200;
    });
    return server;
  }

  async function end(servers: GameServer[]): Promise<void> {
    for (const server of servers.splice(0)) if (!server.hasEnded()) await server.kill();
  }

  const tokenOf = (player: string) =>
    mintToken(settings.JWT_SECRET ?? '', { id: player, name: player }, 60_000);
  if (isMigrated) await migrate('up');
  return {
    project: test.project,
    settings,
    redis,
    database,
    keys: redisKeys(test.project),
    migrate,
    start: (over) => start(over),
    startReady: (over) => startReady(over),
    startKept: (over) => startReady(over, kept),
    tokenOf,
    async join(server, player, hello = {}) {
      const joined = await joinAs(server.wsUrl, { token: tokenOf(player), ...hello });
      players.push(joined);
      return joined;
    },
    async clear() {
      for (const { socket } of players.splice(0)) socket.terminate();
      await end(running);
    },
    async remove() {
      await end(kept);
      redis.disconnect();
      await database.end();
      await test.remove();
    },
  };
}
