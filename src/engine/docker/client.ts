/**
 * The connection to a Docker Engine: its address, whether its loopback is ours, and small questions that all verbs ask.
 * Never pins the API version (Engine 29 speaks nothing below 1.44, Debian 12's nothing above 1.41); never dials over
 * SSH by itself (dockerode opens one unverified SSH connection per request).
 */
import { readFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { Agent as TlsAgent } from 'node:https';
import { homedir, hostname, platform } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import Docker from 'dockerode';
import pLimit from 'p-limit';
import { realClock, until } from '../../clock.ts';
import { label } from '../../contract.ts';
import { OpsError } from '../../errors.ts';
import { isLoopback } from '../../hosts.ts';
import type { Emit } from '../../report/events.ts';
import { engineFailed, engineUnreachable, foreign } from '../failures.ts';
import { isStatus, translate } from './errors.ts';

const pingMsMax = 10_000;
/** A disk that still has much to write may need that long. */
const goneMsMax = 60_000;
const looksBetweenRemovals = 40;

export interface Connection {
  docker: Docker;
  /** As in DOCKER_HOST, for messages. */
  address: string;
  isLocal: boolean;
  emit: Emit;
  close(): void;
}

/** @throws ENGINE_UNREACHABLE */
export async function connect(host: string | undefined, emit: Emit): Promise<Connection> {
  const address = host ?? process.env.DOCKER_HOST ?? (await defaultSocket());
  const { docker, agent } = dial(address);
  const connection = { docker, address, isLocal: false, emit, close: () => agent.destroy() };
  try {
    await docker.ping({ abortSignal: AbortSignal.timeout(pingMsMax) } as never);
    connection.isLocal = await isLocal(docker, address);
    return connection;
  } catch (error) {
    agent.destroy();
    const told = translate(error, address);
    if (told instanceof OpsError) throw told;
    throw engineUnreachable(
      address,
      (error as Error).name === 'AbortError' ? 'no answer in 10 s' : String(error),
    );
  }
}

/** Where Docker Desktop and rootless installs put it, when the usual one is absent. */
async function defaultSocket(): Promise<string> {
  const { existsSync } = await import('node:fs');
  const usual = '/var/run/docker.sock';
  const others = [
    join(homedir(), '.docker/run/docker.sock'),
    ...(process.env.XDG_RUNTIME_DIR ? [join(process.env.XDG_RUNTIME_DIR, 'docker.sock')] : []),
  ];
  return `unix://${existsSync(usual) ? usual : (others.find((path) => existsSync(path)) ?? usual)}`;
}

function dial(address: string): { docker: Docker; agent: Agent } {
  if (address.startsWith('ssh://')) {
    throw new OpsError('ENGINE_UNREACHABLE', {
      message: `gameops does not speak SSH itself, and DOCKER_HOST is ${address}. Forward the engine's socket to this machine and set DOCKER_HOST to the forwarded one.`,
      next: [
        `ssh -fnNT -L /tmp/gameops-docker.sock:/var/run/docker.sock ${address.slice('ssh://'.length)}`,
        'export DOCKER_HOST=unix:///tmp/gameops-docker.sock, then run the command again',
      ],
      facts: { address },
    });
  }
  if (address.startsWith('unix://') || address.startsWith('/')) {
    const agent = terse(new Agent({ keepAlive: false }));
    return {
      agent,
      docker: new Docker({ socketPath: address.replace('unix://', ''), agent } as Docker.DockerOptions),
    };
  }
  const url = parse(address);
  const secure = url.protocol === 'https:' || process.env.DOCKER_TLS_VERIFY === '1' || url.port === '2376';
  const certificates = process.env.DOCKER_CERT_PATH ?? join(homedir(), '.docker');
  const read = (name: string) => {
    try {
      return readFileSync(join(certificates, name));
    } catch (error) {
      throw new OpsError('ENGINE_UNREACHABLE', {
        message: `The Docker Engine at ${address} needs TLS, but ${join(certificates, name)} can't be read (${(error as NodeJS.ErrnoException).code}). What runs there keeps running.`,
        next: ['set DOCKER_CERT_PATH to the folder with ca.pem, cert.pem and key.pem', 'gameops doctor'],
        facts: { address, certificates },
      });
    }
  };
  const agent = terse(secure ? new TlsAgent({ keepAlive: true }) : new Agent({ keepAlive: true }));
  const docker = new Docker({
    host: url.hostname,
    port: url.port || (secure ? 2376 : 2375),
    protocol: secure ? 'https' : 'http',
    ...(secure ? { ca: read('ca.pem'), cert: read('cert.pem'), key: read('key.pem') } : {}),
    agent,
  } as unknown as Docker.DockerOptions);
  return { agent, docker };
}

/**
 * docker-modem formats every request for its debug log, ten levels deep, even when debugging is off. With an agent full of
 * sockets that takes a third of a deploy's own time (https://github.com/apocas/docker-modem/blob/master/lib/modem.js).
 */
function terse<T extends Agent>(agent: T): T {
  return Object.assign(agent, { [inspect.custom]: () => 'Agent' });
}

function parse(address: string): URL {
  try {
    return new URL(address.includes('//') ? address : `tcp://${address}`);
  } catch {
    throw engineUnreachable(
      address,
      'DOCKER_HOST is not an address such as unix:///var/run/docker.sock or tcp://host:2376',
    );
  }
}

/**
 * A local socket may be one that SSH forwards. On Linux an engine of this machine has this machine's host name;
 * elsewhere the engine lives in a virtual machine whose published ports appear on our loopback.
 */
async function isLocal(docker: Docker, address: string): Promise<boolean> {
  const onLoopback = /^(unix:|\/)/.test(address) || isLoopback(parse(address).hostname);
  if (!onLoopback || platform() !== 'linux') return onLoopback;
  const info = (await docker.info()) as { Name?: string; OperatingSystem?: string };
  return info.Name === hostname() || info.OperatingSystem === 'Docker Desktop';
}

/** null when there is no such object; every other failure is thrown. */
export async function orNull<T>(question: Promise<T>, ...statuses: number[]): Promise<T | null> {
  try {
    return await question;
  } catch (error) {
    if (isStatus(error, 404, ...statuses)) return null;
    throw error;
  }
}

/** For verbs whose aim is already reached: 304 (already so), 404 (not there). */
export async function orDone(act: Promise<unknown>, ...statuses: number[]): Promise<void> {
  try {
    await act;
  } catch (error) {
    if (!isStatus(error, 304, 404, ...statuses)) throw error;
  }
}

/** The project's container of that name; null when absent. @throws FOREIGN_CONTAINER */
export async function ownContainer(
  { docker }: Connection,
  project: string,
  name: string,
): Promise<Docker.ContainerInspectInfo | null> {
  const info = await orNull(docker.getContainer(name).inspect());
  if (info === null || info.Config.Labels?.[label.project] === project) return info;
  // The engine also finds a container by the beginning of its id: such a container has another name and is not ours.
  if (info.Name !== `/${name}`) return null;
  throw foreign('container', name, project);
}

/** Whether the project's volume exists. @throws FOREIGN_CONTAINER */
export async function hasVolume({ docker }: Connection, project: string, name: string): Promise<boolean> {
  const info = await orNull(docker.getVolume(name).inspect());
  if (info === null) return false;
  if (info.Labels?.[label.project] !== project) throw foreign('volume', name, project);
  return true;
}

/**
 * Removes by id and waits until the name is free. The engine answers 409 when a removal is in progress already, and that
 * one may fail; so it is asked again as long as the container is there.
 */
export async function removeById({ docker }: Connection, id: string): Promise<void> {
  const container = docker.getContainer(id);
  let looks = 0;
  const isGone = await until(realClock, { deadlineMs: goneMsMax, everyMs: 50 }, async () => {
    const remove = () => orDone(container.remove({ force: true, v: true }), 409);
    if (looks === 0) await remove();
    // Asked again, because a removal that met another change is forgotten by some engines; what they answer then tells nothing.
    else if (looks % looksBetweenRemovals === 0) await remove().catch(() => undefined);
    looks += 1;
    return (await orNull(container.inspect())) === null ? true : null;
  });
  if (!isGone)
    throw engineFailed(`the container ${id.slice(0, 12)} could not be removed`, {
      container: id.slice(0, 12),
    });
}

/** Runs `act` on all, at most `width` at once; every one is tried before the first failure is thrown. */
export async function inParallel<T>(
  items: readonly T[],
  width: number,
  act: (item: T) => Promise<void>,
): Promise<void> {
  const limit = pLimit(width);
  const ended = await Promise.allSettled(items.map((item) => limit(act, item)));
  for (const one of ended) if (one.status === 'rejected') throw one.reason;
}
