/**
 * Single containers: makes, starts and removes them, runs programs in them and as one of them.
 * Promises that a container that could not be started is not left behind, and that nothing of another project is touched.
 */
import type Docker from 'dockerode';
import { label } from '../../contract.ts';
import {
  engineFailed,
  engineRemote,
  imageMissing,
  notPublished,
  timedOut as timedOutError,
  volumeMissing,
} from '../failures.ts';
import type { ContainerProcess, ContainerSpec, Engine, ExecResult, ObservedContainer } from '../port.ts';
import { driftBetween, identityLabels, specLabel } from '../spec.ts';
import { type Connection, hasVolume, orDone, orNull, ownContainer, removeById } from './client.ts';
import { collectOutput, linesOf } from './demux.ts';
import { answerOf, isStatus, portTakenBy } from './errors.ts';
import { createBody, observed } from './spec.ts';

/** Connections whose engine refused to raise the limit of open files, with the number refused. */
const refusedOpenFiles = new WeakMap<Connection, number>();

/** @throws IMAGE_NOT_FOUND, FOREIGN_CONTAINER, ENGINE_FAILED when a volume was not made first */
export async function create(
  connection: Connection,
  spec: ContainerSpec,
  labels = identityLabels(spec),
): Promise<Docker.Container> {
  for (const { volume } of spec.mounts ?? []) {
    // Mounting a missing volume would make one without labels, which no verb of ours would ever find again.
    if (!(await hasVolume(connection, spec.project, volume))) throw volumeMissing(volume);
  }
  const refused = refusedOpenFiles.get(connection) ?? Number.POSITIVE_INFINITY;
  const openFiles = spec.openFiles !== undefined && spec.openFiles < refused ? spec.openFiles : null;
  try {
    return await connection.docker.createContainer(createBody(spec, labels, openFiles));
  } catch (error) {
    const { message } = answerOf(error);
    if (isStatus(error, 404) && /no such image/i.test(message)) throw imageMissing(spec.image);
    // 409: foreign (thrown by the look), or of this project and made a moment ago by another process.
    if (isStatus(error, 409)) await ownContainer(connection, spec.project, spec.name);
    throw error;
  }
}

/** Makes and starts; a container that cannot start is removed again. @throws PORT_TAKEN, and as `create` */
export async function createAndStart(
  connection: Connection,
  spec: ContainerSpec,
  labels = identityLabels(spec),
): Promise<void> {
  const made = await create(connection, spec, labels);
  try {
    await orDone(made.start());
  } catch (error) {
    await removeById(connection, made.id);
    const { openFiles } = spec;
    if (openFiles !== undefined && !refusedOpenFiles.has(connection) && isLimitRefusal(error)) {
      refusedOpenFiles.set(connection, openFiles);
      const message = `The engine is not allowed to raise the limit of open files to ${openFiles}, so ${spec.name} gets the engine's own limit.`;
      connection.emit({ type: 'note', level: 'warning', message });
      return createAndStart(connection, spec, labels);
    }
    throw (
      portTakenBy(
        error,
        (spec.publish ?? []).map((one) => one.hostPort),
      ) ?? error
    );
  }
}

function isLimitRefusal(error: unknown): boolean {
  return /rlimit/i.test(answerOf(error).message);
}

/** Starts a container that exists, whatever state it is in. */
export async function startExisting(
  connection: Connection,
  info: Docker.ContainerInspectInfo,
): Promise<void> {
  const container = connection.docker.getContainer(info.Id);
  if (info.State.Paused) return orDone(container.unpause(), 409);
  if (info.State.Running || info.State.Restarting) return;
  try {
    await orDone(container.start());
  } catch (error) {
    const asked = Object.values(
      (info.HostConfig.PortBindings ?? {}) as Record<string, { HostPort?: string }[]>,
    )
      .flat()
      .map((binding) => Number(binding?.HostPort || 0));
    throw portTakenBy(error, asked) ?? error;
  }
}

export function containerVerbs(connection: Connection) {
  const stopped: Stopped = new Map();
  return {
    observe: (project: string, release?: number) => observe(connection, stopped, project, release),
    ensureContainer: (spec: ContainerSpec) => ensureContainer(connection, spec),
    async removeContainer(project: string, name: string) {
      const info = await ownContainer(connection, project, name);
      if (info !== null) await removeById(connection, info.Id);
    },
    exec: (project: string, name: string, command: readonly string[], options: { user?: string } = {}) =>
      exec(connection, project, name, command, options),
    runOnce: (spec: ContainerSpec, deadlineMs: number) => runOnce(connection, spec, deadlineMs),
    async signal(project: string, name: string, signal: string) {
      const info = await ownContainer(connection, project, name);
      if (info !== null) await orDone(connection.docker.getContainer(info.Id).kill({ signal }), 409);
    },
    processes: (project: string, name: string) => processes(connection, project, name),
    async logTail(project: string, name: string, lines: number) {
      const info = await ownContainer(connection, project, name);
      if (info === null) return [];
      const wanted = { stdout: true, stderr: true, tail: lines, follow: false } as const;
      return linesOf(await connection.docker.getContainer(info.Id).logs(wanted)).slice(-lines);
    },
    async dial(project: string, name: string, containerPort: number) {
      if (!connection.isLocal) throw engineRemote(connection.address, name, containerPort);
      const info = await ownContainer(connection, project, name);
      const port = info === null ? undefined : observed(info).published[containerPort];
      if (port === undefined || !info?.State.Running) {
        throw notPublished(name, containerPort);
      }
      return { host: '127.0.0.1', port };
    },
  } satisfies Partial<Engine>;
}

/** By id, of containers that do not run: what an inspection said, and the line of the list at that time. */
type Stopped = Map<string, { line: string; seen: ObservedContainer }>;

async function observe(
  { docker }: Connection,
  stopped: Stopped,
  project: string,
  release?: number,
): Promise<ObservedContainer[]> {
  const ofRelease = release === undefined ? [] : [`${label.release}=${release}`];
  const filters = { label: [`${label.project}=${project}`, ...ofRelease] };
  const listed = await docker.listContainers({ all: true, filters });
  // An inspection costs the engine as much as a probe costs a server, and there may be many kept releases. So a container that
  // does not run is inspected once. After a start in between, its line "Exited (1) 2 seconds ago" would differ.
  const look = async ({ Id, State, Status }: Docker.ContainerInfo) => {
    const line = `${State} ${Status}`;
    const known = stopped.get(Id);
    if (known?.line === line) return known.seen;
    const info = await orNull(docker.getContainer(Id).inspect());
    if (info === null) return null;
    const seen = observed(info);
    if (seen.state === 'exited' && State === 'exited') stopped.set(Id, { line, seen });
    return seen;
  };
  const all = await Promise.all(listed.map(look));
  return all.filter((one) => one !== null).sort((a, b) => (a.name < b.name ? -1 : 1));
}

async function ensureContainer(
  connection: Connection,
  spec: ContainerSpec,
): Promise<{ created: boolean; drift: string[] }> {
  const existing = await ownContainer(connection, spec.project, spec.name);
  if (existing === null) {
    await createAndStart(connection, spec);
    return { created: true, drift: [] };
  }
  await startExisting(connection, existing);
  return { created: false, drift: driftBetween(existing.Config.Labels[label.spec] ?? '', specLabel(spec)) };
}

async function processes(
  connection: Connection,
  project: string,
  name: string,
): Promise<ContainerProcess[] | null> {
  const info = await ownContainer(connection, project, name);
  if (!info?.State.Running) return [];
  try {
    const container = connection.docker.getContainer(info.Id);
    const { Processes }: { Processes: string[][] } = await container.top({ ps_args: '-eo pid,args' });
    return Processes.map(([pid, command]) => ({ pid: Number(pid), command: command?.trim() ?? '' }));
  } catch (error) {
    // Gone or ended meanwhile.
    if (isStatus(error, 404) || isStatus(error, 409)) return [];
    // The engine runs `ps` of its own machine, and not every machine has one that it can use.
    if (isStatus(error, 500)) return null;
    throw error;
  }
}

async function exec(
  connection: Connection,
  project: string,
  name: string,
  command: readonly string[],
  options: { user?: string },
): Promise<ExecResult> {
  const info = await ownContainer(connection, project, name);
  if (info === null) throw engineFailed(`container ${name} does not exist`, { container: name });
  const made = await connection.docker.getContainer(info.Id).exec({
    Cmd: [...command],
    AttachStdout: true,
    AttachStderr: true,
    ...(options.user === undefined ? {} : { User: options.user }),
  });
  const output = collectOutput();
  try {
    await drain(await made.start({ hijack: false, Tty: false } as Docker.ExecStartOptions), output.feed);
  } catch (error) {
    // A program that does not exist is an exit code, as in a shell, and not a failure of the engine.
    const { message } = answerOf(error);
    if (!/executable file not found|no such file or directory/i.test(message)) throw error;
    return { exitCode: 127, stdout: '', stderr: message };
  }
  const { ExitCode } = await made.inspect();
  return { exitCode: ExitCode ?? 1, stdout: output.stdout(), stderr: output.stderr() };
}

async function drain(stream: NodeJS.ReadableStream, feed: (chunk: Buffer) => void): Promise<void> {
  for await (const chunk of stream) feed(chunk as Buffer);
}

/** @throws STEP_TIMED_OUT after `deadlineMs`, with the program killed and its container gone */
async function runOnce(connection: Connection, spec: ContainerSpec, deadlineMs: number): Promise<ExecResult> {
  const left = await ownContainer(connection, spec.project, spec.name);
  // A killed gameops left the one-off of that name; the caller holds the project's lock, so nobody uses it.
  if (left !== null) await removeById(connection, left.Id);
  const { openFiles: _, ...once } = spec;
  const made = await create(connection, once);
  const output = collectOutput();
  let timedOut = false;
  let timer: NodeJS.Timeout | undefined;
  try {
    const attach = { _query: { stream: 1, stdout: 1, stderr: 1 }, _body: {}, hijack: true };
    const stream = await made.attach(attach as never);
    const drained = drain(stream, output.feed).catch(() => undefined);
    await made.start();
    timer = setTimeout(() => {
      timedOut = true;
      made.kill({ signal: 'SIGKILL' }).catch(() => undefined);
    }, deadlineMs);
    const { StatusCode } = (await made.wait()) as { StatusCode: number };
    await Promise.race([drained, new Promise((resolve) => setTimeout(resolve, 2000).unref())]);
    if (timedOut) throw timedOutError(spec.name, deadlineMs, output.stderr() || output.stdout());
    return { exitCode: StatusCode, stdout: output.stdout(), stderr: output.stderr() };
  } finally {
    clearTimeout(timer);
    await removeById(connection, made.id);
  }
}
