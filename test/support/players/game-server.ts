/** The server bundle as a process of this machine, beside real accessories. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { namesOf, port } from '../../../src/contract.ts';
import { isPortFree } from '../../../src/host/ports.ts';
import { packageRoot } from '../../../src/package-root.ts';
import type { TestProject } from '../site/accessories.ts';

const bundle = join(packageRoot(), 'dist/server/server.mjs');

export interface Database {
  host: string;
  port: number;
}

export interface GameServer {
  url: string;
  wsUrl: string;
  adminUrl: string;
  process: ChildProcess;
  /** JSON log lines so far. */
  log(): string;
  hasEnded(): boolean;
  /** Sends SIGTERM; resolves with the exit code. */
  leave(): Promise<{ code: number | null; ms: number }>;
  kill(): Promise<void>;
}

export interface GameServerRequest {
  settings: Record<string, string>;
  project: string;
  release?: number;
  replica?: number;
  drainMs?: number;
  /** Unix socket to listen on, too. */
  unixSocket?: string;
}

/** Settings as a server outside of the project's network needs them. */
export async function dialledSettings(test: TestProject): Promise<Record<string, string>> {
  const names = namesOf(test.project);
  const postgres = await test.engine.dial(test.project, names.postgres, port.postgres);
  const redis = await test.engine.dial(test.project, names.redis, port.redis);
  const redisUrl = new URL(test.settings.REDIS_URL);
  redisUrl.hostname = redis.host;
  redisUrl.port = String(redis.port);
  return {
    DB_HOST: postgres.host,
    DB_PORT: String(postgres.port),
    DB_NAME: test.settings.DB_NAME,
    DB_USER: test.settings.DB_USER,
    DB_PASSWORD: test.settings.DB_PASSWORD,
    REDIS_URL: redisUrl.href,
    JWT_SECRET: 'a-secret-of-the-tests-that-is-long-enough',
    LOG_LEVEL: 'info',
  };
}

export async function startGameServer(request: GameServerRequest): Promise<GameServer> {
  const folder = await mkdtemp(join(tmpdir(), 'gameops-server-'));
  const [own, admin] = await Promise.all([freePort(), freePort()]);
  const file = join(folder, 'settings.json');
  await writeFile(file, JSON.stringify({ ...request.settings, PORT: String(own) }), { mode: 0o400 });
  const child = spawn(process.execPath, ['--enable-source-maps', bundle], {
    env: {
      PATH: process.env.PATH,
      GAMEOPS_SETTINGS_FILE: file,
      GAMEOPS_ADMIN_PORT: String(admin),
      GAMEOPS_PROJECT: request.project,
      GAMEOPS_RELEASE: String(request.release ?? 1),
      GAMEOPS_REPLICA: String(request.replica ?? 1),
      GAMEOPS_DRAIN_MS: String(request.drainMs ?? 20_000),
      ...(request.unixSocket === undefined ? {} : { GAMEOPS_UNIX_SOCKET: request.unixSocket }),
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (log += chunk.toString()));
  const ended = once(child, 'exit').then(async ([code]) => {
    await rm(folder, { recursive: true, force: true });
    return code as number | null;
  });
  return {
    url: `http://127.0.0.1:${own}`,
    wsUrl: `ws://127.0.0.1:${own}/ws`,
    adminUrl: `http://127.0.0.1:${admin}`,
    process: child,
    log: () => log,
    hasEnded: () => child.exitCode !== null || child.signalCode !== null,
    async leave() {
      const began = performance.now();
      child.kill('SIGTERM');
      return { code: await ended, ms: Math.round(performance.now() - began) };
    },
    async kill() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/** Status of one GET; null while nobody listens. */
export async function statusOf(url: string): Promise<number | null> {
  return fetch(url).then(
    async (response) => {
      await response.arrayBuffer();
      return response.status;
    },
    () => null,
  );
}

/** Asks until it is so. The test's own time limit is the only one. */
export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await new Promise((resolve) => setTimeout(resolve, 10));
}

/** Below the ports that the kernel gives out, and a range for each worker of vitest: nobody takes one before its server. */
const portsOfWorker = 1_000;
const firstPort = 20_000 + (Number(process.env.VITEST_POOL_ID ?? 0) % 12) * portsOfWorker;
/** Every file begins at another port, because servers of the last file may still be ending. */
let portsTried = process.pid;

/** That no other test file uses. */
export async function freePort(): Promise<number> {
  for (;;) {
    portsTried += 1;
    const found = firstPort + (portsTried % portsOfWorker);
    if (await isPortFree(found)) return found;
  }
}
