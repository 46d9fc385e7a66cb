/**
 * A Docker daemon that is restarted in the middle of a deploy: on an engine of its own, in network and mount namespaces
 * of its own, so that nobody else on this machine notices. Needs Linux, root and the dockerd of this machine. Removes the
 * engine, its containers and its data afterwards.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../src/package-root.ts';

export interface DaemonReport {
  summary: string;
  problems: string[];
}

// An empty /run: a containerd of the machine's own that listens there would otherwise be shared.
const hold = 'mount -t tmpfs tmpfs /run && ip link set lo up && echo ready && exec sleep 3600';

/** Runs daemon-restart-inside.ts in the namespaces, and says what it found. */
export async function daemonRestart(say: (text: string) => void): Promise<DaemonReport> {
  if (process.platform !== 'linux' || process.getuid?.() !== 0)
    return { summary: 'not tried: needs Linux and root', problems: [] };
  const state = mkdtempSync(join(tmpdir(), 'gameops-own-engine-'));
  const holder = spawn(
    'setpriv',
    ['--pdeathsig', 'SIGKILL', 'unshare', '--net', '--mount', '--propagation', 'private', 'sh', '-c', hold],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const namespace = await mountNamespaceOf(holder);
  try {
    const inside = spawn(
      'nsenter',
      [
        `--net=/proc/${holder.pid}/ns/net`,
        '--',
        process.execPath,
        'scripts/run.js',
        'test/chaos/daemon-restart-inside.ts',
        state,
        String(holder.pid),
      ],
      {
        cwd: packageRoot(),
        stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
        env: { ...process.env, DOCKER_HOST: `unix://${state}/docker.sock` },
      },
    );
    let report: DaemonReport = {
      summary: '',
      problems: ['the run on its own engine ended without a report'],
    };
    inside.on('message', (message) => {
      if (typeof message === 'string') say(message);
      else report = message as DaemonReport;
    });
    await new Promise((resolve) => inside.on('exit', resolve));
    return report;
  } finally {
    await endAllIn(namespace);
    holder.kill('SIGKILL');
    rmSync(state, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
  }
}

/** @throws when the namespaces could not be made */
async function mountNamespaceOf(holder: ChildProcess): Promise<string> {
  await new Promise((resolve, reject) => {
    holder.stdout?.once('data', resolve);
    holder.once('exit', (code) => reject(new Error(`no namespaces: exit ${code}`)));
  });
  const theirs = readlinkSync(`/proc/${holder.pid}/ns/mnt`);
  if (theirs === readlinkSync('/proc/self/ns/mnt')) throw new Error('no mount namespace of its own');
  return theirs;
}

/** The engine, its containerd and shims, which outlive a killed engine. Only what lives in that namespace. */
async function endAllIn(namespace: string): Promise<void> {
  for (let round = 0; round < 100; round += 1) {
    const left = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
      .filter((pid) => isIn(pid, namespace));
    if (left.length === 0) return;
    for (const pid of left) {
      try {
        process.kill(Number(pid), round < 30 ? 'SIGTERM' : 'SIGKILL');
      } catch {
        // It has ended in the meantime.
      }
    }
    await sleep(200);
  }
}

function isIn(pid: string, namespace: string): boolean {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`) === namespace;
  } catch {
    return false;
  }
}
