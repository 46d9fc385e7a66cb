/**
 * What gameops may do about a machine whose engine does not answer: facts in, one act out.
 * Reads the machine, changes nothing.
 */
import { access, constants, readFile, stat } from 'node:fs/promises';
import { OpsError } from '../errors.ts';
import { daemonIsRunning } from './daemon.ts';
import { isProgram } from './packages.ts';

export const defaultSocket = '/var/run/docker.sock';

export interface HostFacts {
  platform: string;
  isRoot: boolean;
  /** DOCKER_HOST, when it names anything but the default socket. */
  elsewhere: string | null;
  /** The socket is there but this user may not write to it. */
  socketDenied: boolean;
  /** ID and ID_LIKE of /etc/os-release. */
  distribution: string[];
  hasDockerd: boolean;
  hasIptables: boolean;
  /** systemd is really running, not only installed. */
  systemd: boolean;
  daemonRunning: boolean;
}

export type HostAct =
  | { kind: 'start' }
  | { kind: 'install'; packages: string[] }
  | { kind: 'refuse'; code: 'ENGINE_UNREACHABLE' | 'ENGINE_NOT_INSTALLABLE'; because: string; next: string };

/** Pure. Called only when no engine answers. */
export function planHost(facts: HostFacts): HostAct {
  if (facts.elsewhere !== null) {
    return {
      kind: 'refuse',
      code: 'ENGINE_UNREACHABLE',
      because: `DOCKER_HOST is ${facts.elsewhere}, and no engine answers there`,
      next: 'start that engine, or unset DOCKER_HOST to use one on this machine',
    };
  }
  if (facts.socketDenied) {
    return {
      kind: 'refuse',
      code: 'ENGINE_UNREACHABLE',
      because: `this user may not use ${defaultSocket}`,
      next: 'sudo usermod -aG docker "$USER", then log in again',
    };
  }
  if (facts.platform !== 'linux') {
    return refuse('gameops installs Docker on Debian and Ubuntu only', 'install Docker Desktop and start it');
  }
  if (!facts.isRoot) {
    const what = facts.hasDockerd
      ? 'Docker Engine is installed but not running'
      : 'there is no Docker Engine';
    return refuse(`${what}, and this user is not root`, 'run this once as root: sudo gameops host setup');
  }
  const packages = [...(facts.hasDockerd ? [] : ['docker.io']), ...(facts.hasIptables ? [] : ['iptables'])];
  if (packages.length === 0) return { kind: 'start' };
  if (!facts.distribution.some((id) => id === 'debian' || id === 'ubuntu')) {
    return facts.hasDockerd
      ? refuse('dockerd needs iptables, which is missing', "install iptables with your system's packages")
      : refuse(
          'this is neither Debian nor Ubuntu',
          'install Docker Engine as https://docs.docker.com/engine/install/ says',
        );
  }
  return { kind: 'install', packages };
}

function refuse(because: string, next: string): HostAct {
  return { kind: 'refuse', code: 'ENGINE_NOT_INSTALLABLE', because, next };
}

export function refusal(act: HostAct & { kind: 'refuse' }): OpsError {
  return new OpsError(act.code, {
    message: `No Docker Engine answers: ${act.because}.`,
    next: [act.next, 'gameops host setup'],
  });
}

export async function observeHost(env: NodeJS.ProcessEnv = process.env): Promise<HostFacts> {
  const host = env.DOCKER_HOST;
  return {
    platform: process.platform,
    isRoot: process.getuid?.() === 0,
    elsewhere:
      !host || host === `unix://${defaultSocket}` || host === 'unix:///run/docker.sock' ? null : host,
    socketDenied: await isDenied(defaultSocket),
    distribution: distributionOf(await readFile('/etc/os-release', 'utf8').catch(() => '')),
    hasDockerd: await isProgram('dockerd', env),
    hasIptables: await isProgram('iptables', env),
    systemd: (await stat('/run/systemd/system').catch(() => null))?.isDirectory() ?? false,
    daemonRunning: await daemonIsRunning(),
  };
}

/** Pure. */
export function distributionOf(osRelease: string): string[] {
  const ids: string[] = [];
  for (const line of osRelease.split('\n')) {
    const match = /^(?:ID|ID_LIKE)=["']?([^"']*)["']?\s*$/.exec(line);
    if (match?.[1]) ids.push(...match[1].split(/\s+/));
  }
  return ids;
}

async function isDenied(socket: string): Promise<boolean> {
  return access(socket, constants.W_OK).then(
    () => false,
    (error: NodeJS.ErrnoException) => error.code === 'EACCES',
  );
}
