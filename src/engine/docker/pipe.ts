/**
 * Programs with streams: bytes in and out, of any length. Promises unchanged bytes (there is no terminal between), the
 * program's own exit code (there is no shell pipe between), and that no program outlives the gameops that started it, because
 * an engine never ends one by itself when its client is gone.
 */
import type { Duplex } from 'node:stream';
import type Docker from 'dockerode';
import { realClock, until } from '../../clock.ts';
import { engineFailed } from '../failures.ts';
import type { ContainerSpec, Engine, Held, Piped, PipeRequest } from '../port.ts';
import { identityLabels } from '../spec.ts';
import { type Connection, ownContainer, removeById } from './client.ts';
import { demuxer } from './demux.ts';
import { createBody } from './spec.ts';

const stderrBytesMax = 64 * 1024;

/**
 * The program runs beside a `cat` on the stdin that only gameops holds: when that closes, the program is asked to end.
 * A background job reads nothing unless told to, so what is watched is a copy.
 */
const watched = `exec 3<&0 </dev/null
"$@" 3<&- &
program=$!
(cat <&3; kill "$program") >/dev/null 2>&1 &
watch=$!
wait "$program"
code=$?
kill "$watch" 2>/dev/null
exit "$code"`;

export function pipeVerbs(connection: Connection) {
  return {
    pipe: (project: string, name: string, command: readonly string[], request: PipeRequest) =>
      pipe(connection, project, name, command, request),
    hold: (spec: ContainerSpec) => hold(connection, spec),
  } satisfies Partial<Engine>;
}

async function pipe(
  connection: Connection,
  project: string,
  name: string,
  command: readonly string[],
  request: PipeRequest,
): Promise<Piped> {
  const info = await ownContainer(connection, project, name);
  if (info === null) throw engineFailed(`container ${name} does not exist`, { container: name });
  request.signal?.throwIfAborted();
  const made = await connection.docker.getContainer(info.Id).exec({
    Cmd: request.input ? [...command] : ['sh', '-c', watched, 'sh', ...command],
    AttachStdin: true,
    AttachStdout: true,
    AttachStderr: true,
    Tty: false,
    Env: Object.entries(request.env ?? {}).map(([key, value]) => `${key}=${value}`),
    ...(request.user === undefined ? {} : { User: request.user }),
  });
  const stream = (await made.start({ hijack: true, Tty: false } as Docker.ExecStartOptions)) as Duplex;
  const onAbort = () => stream.destroy();
  request.signal?.addEventListener('abort', onAbort);
  try {
    const feeding = request.input ? feed(stream, request.input) : null;
    const stderr = await read(stream, request.output);
    const failure = await feeding;
    request.signal?.throwIfAborted();
    // A program that ends early reads no more: its own words say why, unless the source itself failed.
    if (failure) throw failure;
    return { exitCode: await exitCodeOf(made), stderr };
  } catch (error) {
    request.signal?.throwIfAborted();
    throw error;
  } finally {
    request.signal?.removeEventListener('abort', onAbort);
    stream.destroy();
  }
}

/** Resolves with the failure of the source, never for a stream that ended under it. */
async function feed(stream: Duplex, input: AsyncIterable<Uint8Array>): Promise<unknown> {
  let isOpen = true;
  const closed = new Promise<void>((resolve) => {
    stream.once('close', () => {
      isOpen = false;
      resolve();
    });
  });
  try {
    for await (const bytes of input) {
      if (!isOpen) return null;
      if (!stream.write(bytes)) await Promise.race([closed, drained(stream)]);
    }
    stream.end();
    return null;
  } catch (error) {
    stream.destroy();
    return error;
  }
}

function drained(stream: Duplex): Promise<void> {
  return new Promise((resolve) => stream.once('drain', resolve));
}

/** Hands stdout over piece by piece; resolves with the end of stderr. */
async function read(stream: Duplex, output: PipeRequest['output']): Promise<string> {
  const pieces: Uint8Array[] = [];
  let stderr = Buffer.alloc(0);
  const take = demuxer(({ stream: from, payload }) => {
    if (from === 'stdout') pieces.push(payload);
    else stderr = Buffer.concat([stderr, payload]).subarray(-stderrBytesMax);
  });
  for await (const chunk of stream) {
    take(chunk as Buffer);
    for (const piece of pieces.splice(0)) await output?.(piece);
  }
  return stderr.toString('utf8');
}

/** Null while it runs, and for a moment after its output has ended. */
async function exitCodeOf(made: Docker.Exec): Promise<number> {
  const exitCode = await until(realClock, { deadlineMs: 30_000, everyMs: 25 }, async () => {
    const { Running, ExitCode } = await made.inspect();
    return Running ? null : ExitCode;
  });
  if (exitCode === null) throw engineFailed('a program closed its output but is still running');
  return exitCode;
}

async function hold(connection: Connection, spec: ContainerSpec): Promise<Held> {
  const { entrypoint: _entrypoint, command: _command, health: _health, openFiles: _files, ...rest } = spec;
  const body = createBody({ ...rest, entrypoint: ['cat'], command: [] }, identityLabels(spec), null);
  const made = await connection.docker.createContainer({
    ...body,
    OpenStdin: true,
    StdinOnce: true,
    AttachStdin: true,
    HostConfig: { ...body.HostConfig, AutoRemove: true, RestartPolicy: { Name: 'no' } },
  });
  try {
    const attach = { _query: { stream: 1, stdin: 1, stdout: 1 }, _body: {}, hijack: true };
    const stream = (await made.attach(attach as never)) as Duplex;
    // Its failures show in the programs inside.
    stream.on('error', () => undefined).resume();
    await made.start();
    return {
      async release() {
        stream.destroy();
        await removeById(connection, made.id);
      },
    };
  } catch (error) {
    await removeById(connection, made.id);
    throw error;
  }
}
