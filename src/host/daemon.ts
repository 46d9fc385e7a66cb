/**
 * The acts of host set-up: systemctl, dockerd. Argument arrays only; every program is bounded in time.
 * Never stops or restarts a daemon that runs.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readFile, rm } from 'node:fs/promises';
import { execa } from 'execa';
import { searchPath } from './packages.ts';

export const daemonLog = '/var/log/gameops-dockerd.log';

const pidFiles = [
  { path: '/var/run/docker.pid', program: 'dockerd' },
  { path: '/var/run/docker/containerd/containerd.pid', program: 'containerd' },
  { path: '/run/docker/containerd/docker-containerd.pid', program: 'containerd' },
] as const;

/** systemd's own answer is not the test: whether the engine answers is asked afterwards. */
export async function startUnit(): Promise<void> {
  await execa('systemctl', ['enable', '--now', 'docker'], {
    timeout: 90_000,
    reject: false,
    stdin: 'ignore',
  });
}

/** Starts dockerd in a session of its own, so that neither Ctrl-C nor the end of this terminal reaches it. */
export async function startDaemon(): Promise<{ ended(): boolean }> {
  await removeStalePidFiles();
  const log = openSync(daemonLog, 'a', 0o640);
  let ended = false;
  const daemon = spawn('dockerd', [], {
    detached: true,
    cwd: '/',
    stdio: ['ignore', log, log],
    env: { ...process.env, PATH: searchPath(), DOCKER_HOST: undefined },
  });
  daemon.on('error', () => {
    ended = true;
  });
  daemon.on('exit', () => {
    ended = true;
  });
  daemon.unref();
  closeSync(log);
  return { ended: () => ended };
}

/** A killed dockerd leaves its number behind; when that number is in use again, the next dockerd refuses to start. */
async function removeStalePidFiles(): Promise<void> {
  for (const { path, program } of pidFiles) {
    if ((await programOfPidFile(path)) !== program) await rm(path, { force: true });
  }
}

export async function daemonIsRunning(): Promise<boolean> {
  return (await programOfPidFile('/var/run/docker.pid')) === 'dockerd';
}

async function programOfPidFile(path: string): Promise<string | null> {
  const pid = Number.parseInt(await readFile(path, 'utf8').catch(() => ''), 10);
  if (!Number.isInteger(pid) || pid <= 0) return null;
  return readFile(`/proc/${pid}/comm`, 'utf8').then(
    (name) => name.trim(),
    () => null,
  );
}

export async function lastLines(path: string, count: number): Promise<string[]> {
  const text = await readFile(path, 'utf8').catch(() => '');
  return text.split('\n').filter(Boolean).slice(-count);
}
