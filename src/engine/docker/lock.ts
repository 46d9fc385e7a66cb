/**
 * The project's lock: a container with the lock's name that runs `cat` on a stdin which only we hold.
 * Promises: the name is the mutex; when this process dies, however it dies, the stream closes, `cat` ends and the engine
 * removes the container. Never takes a lock from a holder that lives.
 */
import type { Duplex } from 'node:stream';
import type Docker from 'dockerode';
import { label, namesOf } from '../../contract.ts';
import { megabyte } from '../../units.ts';
import { imageMissing, locked, lockLost } from '../failures.ts';
import type { Engine, Lock, LockHolder } from '../port.ts';
import { labelsOf } from '../spec.ts';
import { type Connection, ownContainer, removeById } from './client.ts';
import { isStatus } from './errors.ts';

/** A lock that was made but not started for this long lost its maker between the two. */
const abandonedMs = 10_000;
/** A holder may have been killed a moment ago, and the engine needs about this long to notice: asked again meanwhile. */
const dyingMs = 1_000;

export function lockVerbs(connection: Connection) {
  return {
    async lock(project: string, image: string, holder: LockHolder) {
      const began = performance.now();
      for (let tries = 0; ; ) {
        const made = await makeLock(connection, project, image, holder);
        if (made !== null) {
          const held = await hold(connection, made);
          await removeLeavings(connection, project).catch(() => undefined);
          return held;
        }
        const info = await ownContainer(connection, project, namesOf(project).lock);
        if (info !== null && isRunning(info) && performance.now() - began < dyingMs) {
          await new Promise((resolve) => setTimeout(resolve, 100));
          continue;
        }
        tries += 1;
        // Gone between our two requests: the name is free again.
        if (info === null && tries <= 5) continue;
        if (info !== null && tries <= 5 && (hasEnded(info) || (await isAbandoned(connection, info)))) {
          await removeById(connection, info.Id);
          continue;
        }
        throw locked(project, info === null ? null : holderOf(info));
      }
    },
    async lockHolder(project: string) {
      const info = await ownContainer(connection, project, namesOf(project).lock);
      const isFree = info === null || hasEnded(info) || (await isAbandoned(connection, info));
      return isFree ? null : holderOf(info);
    },
  } satisfies Partial<Engine>;
}

/** null when the name is taken. */
async function makeLock(
  { docker }: Connection,
  project: string,
  image: string,
  holder: LockHolder,
): Promise<Docker.Container | null> {
  try {
    return await docker.createContainer({
      name: namesOf(project).lock,
      Image: image,
      Entrypoint: ['cat'],
      Cmd: [],
      OpenStdin: true,
      StdinOnce: true,
      AttachStdin: true,
      AttachStdout: true,
      StopSignal: 'SIGTERM',
      Labels: {
        ...labelsOf(project, 'lock'),
        [label.holder]: holder.holder,
        [label.host]: holder.host,
        [label.verb]: holder.verb,
        [label.since]: holder.since,
      },
      HostConfig: {
        AutoRemove: true,
        NetworkMode: 'none',
        CapDrop: ['ALL'],
        SecurityOpt: ['no-new-privileges'],
        Init: true,
        ReadonlyRootfs: true,
        PidsLimit: 16,
        Memory: 32 * megabyte,
        LogConfig: { Type: 'none', Config: {} },
      },
    });
  } catch (error) {
    if (isStatus(error, 409)) return null;
    if (isStatus(error, 404)) throw imageMissing(image);
    throw error;
  }
}

async function hold(connection: Connection, made: Docker.Container): Promise<Lock> {
  let stream: Duplex;
  try {
    // `_body`: dockerode would send its options as a body too, which `cat` then reads as input.
    const attach = { _query: { stream: 1, stdin: 1, stdout: 1 }, _body: {}, hijack: true };
    stream = (await made.attach(attach as never)) as Duplex;
    await made.start();
  } catch (error) {
    await removeById(connection, made.id);
    throw error;
  }
  const lost = new AbortController();
  let released = false;
  const onEnd = () => {
    if (!released) lost.abort(lockLost());
  };
  stream.on('error', onEnd).on('end', onEnd).on('close', onEnd).resume();
  return {
    lost: lost.signal,
    async release() {
      if (released) return;
      released = true;
      stream.destroy();
      await removeById(connection, made.id);
    },
  };
}

/** Carriers, one-offs and their volumes that a killed gameops left. Only a holder of the lock makes such. */
async function removeLeavings(connection: Connection, project: string): Promise<void> {
  const filters = { label: [`${label.project}=${project}`] };
  const permanent = `/${namesOf(project).carrier}`;
  for (const { Id, Names, Labels } of await connection.docker.listContainers({ all: true, filters })) {
    const role = Labels[label.role];
    if (role === 'one-off' || (role === 'carrier' && !Names.includes(permanent)))
      await removeById(connection, Id);
  }
  const asked = { filters: { label: [...filters.label, `${label.role}=one-off`] } as never };
  for (const { Name } of (await connection.docker.listVolumes(asked)).Volumes ?? [])
    await connection.docker.getVolume(Name).remove();
}

const isRunning = ({ State }: Docker.ContainerInspectInfo): boolean => State.Status === 'running';

/** Its holder is dead or has released it, and the engine has only to remove it. */
const hasEnded = ({ State }: Docker.ContainerInspectInfo): boolean =>
  ['exited', 'dead', 'removing'].includes(State.Status);

/** By the engine's clock: the operator's may be wrong. */
async function isAbandoned({ docker }: Connection, info: Docker.ContainerInspectInfo): Promise<boolean> {
  if (info.State.Status !== 'created') return false;
  const { SystemTime } = (await docker.info()) as { SystemTime: string };
  return Date.parse(SystemTime) - Date.parse(info.Created) > abandonedMs;
}

function holderOf({ Config: { Labels } }: Docker.ContainerInspectInfo): LockHolder {
  const read = (key: string) => Labels[key] ?? 'unknown';
  return {
    holder: read(label.holder),
    host: read(label.host),
    verb: read(label.verb),
    since: read(label.since),
  };
}
