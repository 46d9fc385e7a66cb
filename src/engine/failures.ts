/**
 * What can go wrong on an engine, with the codes of the catalogue. Every body of the port uses these, so that the same
 * failure reads the same everywhere. Knows nothing of any engine's own errors.
 */
import { OpsError } from '../errors.ts';
import type { LockHolder } from './port.ts';

export function engineUnreachable(address: string, reason: string, code: string | null = null): OpsError {
  const mayNot = code === 'EACCES' || code === 'EPERM';
  return new OpsError('ENGINE_UNREACHABLE', {
    message: mayNot
      ? `This user is not allowed to use the Docker Engine at ${address}.`
      : `The Docker Engine at ${address} does not answer (${reason}). What runs there keeps running.`,
    next: mayNot
      ? ['add this user to the docker group, log in again, then gameops doctor']
      : ['gameops doctor', 'gameops host setup'],
    facts: { address, reason },
  });
}

export function engineFailed(
  words: string,
  facts: Record<string, string | number> = {},
  cause?: unknown,
): OpsError {
  if (/no space left on device/i.test(words)) return diskFull(words, cause);
  return new OpsError('ENGINE_FAILED', {
    message: `The Docker Engine refused: ${words}`,
    next: ['gameops doctor', 'gameops status'],
    facts,
    cause,
  });
}

export function diskFull(words: string, cause?: unknown): OpsError {
  return new OpsError('DISK_TOO_FULL', {
    message: `The disk of the Docker Engine is full: ${words}`,
    next: ['gameops prune', 'free space where Docker keeps its data, then run the command again'],
    cause,
  });
}

/** @param kind container, volume or network */
export function foreign(kind: string, name: string, project: string): OpsError {
  return new OpsError('FOREIGN_CONTAINER', {
    message: `A ${kind} named ${name} exists, but it does not belong to project ${project}. Nothing was changed.`,
    next: [`rename or remove that ${kind} yourself`, 'choose another project name with --project'],
    facts: { kind, name, project },
  });
}

export function portTaken(port: number, cause?: unknown): OpsError {
  return new OpsError('PORT_TAKEN', {
    message: `Port ${port} on the engine's host is taken by another program. Nothing was changed.`,
    next: [
      `choose another port in gameops.yaml (0 picks a free one), or stop what listens on ${port}`,
      `ss -ltnp 'sport = :${port}'`,
    ],
    facts: { port },
    cause,
  });
}

export function imageMissing(ref: string, words?: string): OpsError {
  return new OpsError('IMAGE_NOT_FOUND', {
    message:
      words === undefined ? `Image ${ref} is not on the engine.` : `Image ${ref} was not found: ${words}`,
    next: ['gameops images prepare', 'check the name, and log in to its registry with docker login'],
    facts: { image: ref },
  });
}

export function volumeMissing(volume: string): OpsError {
  return engineFailed(`volume ${volume} does not exist`, { volume });
}

export function timedOut(container: string, deadlineMs: number, output: string): OpsError {
  return new OpsError('STEP_TIMED_OUT', {
    message: `${container} did not finish within ${deadlineMs} ms and was stopped.`,
    next: ['gameops status', 'gameops doctor'],
    facts: { container, deadlineMs, lastLines: output.trimEnd().split('\n').slice(-5) },
  });
}

export function engineRemote(address: string, container: string, port: number): OpsError {
  return new OpsError('ENGINE_REMOTE', {
    message: `${container} listens on the loopback of the engine at ${address}, which is not this machine's.`,
    next: [
      'run gameops on that host',
      'or run it on a machine to which that port is forwarded, with the forwarded address in .env',
    ],
    facts: { container, port, address },
  });
}

export function notPublished(container: string, containerPort: number): OpsError {
  return engineFailed(`${container} publishes no port ${containerPort} or is not running`, {
    container,
    containerPort,
  });
}

export function noAddress(subnet: string): OpsError {
  return new OpsError('NO_FREE_SUBNET', {
    message: `Every address that gameops can lease in ${subnet} is in use by a replica that runs or is kept.`,
    next: ['gameops prune', 'gameops status'],
    facts: { subnet },
  });
}

export function noSubnet(project: string): OpsError {
  return new OpsError('NO_FREE_SUBNET', {
    message: 'No private /22 subnet is free on the engine. Nothing was changed.',
    next: ['docker network prune', 'gameops doctor'],
    facts: { project },
  });
}

export function locked(project: string, by: LockHolder | null): OpsError {
  const who = by === null ? 'another gameops' : `${by.holder} on ${by.host} (${by.verb}, since ${by.since})`;
  return new OpsError('LOCKED', {
    message: `Project ${project} is locked by ${who}. Nothing was changed.`,
    next: ['wait until that command has ended, then run this one again', 'gameops status'],
    facts: { project, ...(by ?? {}) },
  });
}

export function lockLost(): OpsError {
  return new OpsError('LOCK_LOST', {
    message:
      'The lock on the engine was lost. gameops stops before its next step; players stay where they are.',
    next: ['gameops status', 'gameops resume'],
  });
}
