/**
 * One at a time on this machine: set-up of the engine, and the building of images, by flock(1).
 * The kernel releases the lock when this process dies, however it dies, so there is never a stale lock.
 * Never held across an interaction; never needed where nothing is installed or built.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

function lockFolder(): string {
  for (const folder of ['/run/lock', '/run']) {
    try {
      accessSync(folder, constants.W_OK);
      return folder;
    } catch {
      // The next one.
    }
  }
  return tmpdir();
}

/** Runs `work` while no other gameops process of this machine holds `name`. `onWait` is called if it has to wait. */
export async function oneAtATime<T>(name: string, work: () => Promise<T>, onWait?: () => void): Promise<T> {
  const file = join(lockFolder(), `gameops-${name}.lock`);
  // `cat` ends when our end of its stdin closes, and with it the lock.
  const holder = spawn('flock', [file, 'sh', '-c', 'echo held; exec cat'], {
    stdio: ['pipe', 'pipe', 'ignore'],
    detached: true,
  });
  const waiting = setTimeout(() => onWait?.(), 1_000);
  try {
    const lines = createInterface({ input: holder.stdout });
    await Promise.race([
      once(lines, 'line'),
      once(holder, 'exit').then(() => Promise.reject(new Error(`flock ${file} ended without the lock`))),
    ]);
    clearTimeout(waiting);
    return await work();
  } finally {
    clearTimeout(waiting);
    holder.stdin.end();
  }
}
