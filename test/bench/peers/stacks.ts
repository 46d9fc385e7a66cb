/** The servers that are compared, each started as a process by itself with nothing else beside it. */
import { fork, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { cp, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { packageRoot } from '../../../src/package-root.ts';
import type { TestGame } from '../../support/players/test-game.ts';
import type { Kind } from './players.ts';

export interface Stack {
  pid: number;
  /** Where players connect. */
  url: string;
  stop(): Promise<void>;
}

/**
 * Peers are no dependencies of this package, not even of its development: what is measured beside it must not weigh
 * on who installs or audits it. Their own lock pins them; they are installed once for each state of that lock.
 * @returns the folder of their servers
 */
export async function installPeers(): Promise<string> {
  const source = join(packageRoot(), 'test/bench/peers/servers');
  const lock = await readFile(join(source, 'package-lock.json'));
  const digest = createHash('sha256').update(lock).digest('hex').slice(0, 12);
  const folder = join(packageRoot(), 'node_modules/.cache', `gameops-peers-${digest}`);
  const isThere = await stat(folder).then(
    () => true,
    () => false,
  );
  if (!isThere) {
    const aside = `${folder}.${process.pid}`;
    await cp(source, aside, { recursive: true });
    const { status } = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
      cwd: aside,
      stdio: 'inherit',
    });
    if (status !== 0) {
      await rm(aside, { recursive: true, force: true });
      throw new Error('the peers could not be installed');
    }
    await rename(aside, folder);
  }
  // The programs as they are now; only packages are kept.
  await cp(source, folder, { recursive: true });
  return folder;
}

const programs = { 'bare ws': 'bare-ws.js', 'Socket.IO': 'socket-io.js', Colyseus: 'colyseus.js' } as const;

export async function startStack(
  kind: Kind,
  { game, peers, roomSize }: { game: TestGame; peers: string; roomSize: number },
): Promise<Stack> {
  if (kind === 'gameops') {
    const server = await game.startReady();
    const stop = async () => {
      await server.kill();
    };
    return { pid: server.process.pid ?? 0, url: server.wsUrl, stop };
  }
  const child = fork(join(peers, programs[kind]), [], {
    env: {
      PATH: process.env.PATH,
      NODE_ENV: 'production',
      REDIS_URL: game.settings.REDIS_URL,
      ROOM_SIZE: String(roomSize),
    },
  });
  const ended = once(child, 'exit');
  const [port] = await Promise.race([
    once(child, 'message'),
    ended.then(() => Promise.reject(new Error(`${kind} ended by itself`))),
  ]);
  const scheme = kind === 'bare ws' ? 'ws' : 'http';
  return {
    pid: child.pid ?? 0,
    url: `${scheme}://127.0.0.1:${port}`,
    async stop() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}
