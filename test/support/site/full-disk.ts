/**
 * A proxy before the real engine that answers as if its disk were full. Free space is that of a file system which really has
 * none; a write is refused in Docker's own words.
 */
import { once } from 'node:events';
import { createConnection, createServer, type Socket } from 'node:net';
import Docker from 'dockerode';

const real = (process.env.DOCKER_HOST ?? 'unix:///var/run/docker.sock').replace('unix://', '');
/** A file system of Linux that never has a free byte. */
const fullFileSystem = '/proc';

export interface FullDisk {
  /** For DOCKER_HOST. */
  host: string;
  close(): void;
}

/** @param full 'from the start', or the volume at whose files it becomes full */
export async function fullDisk(
  socketPath: string,
  full: 'from the start' | { volume: string },
): Promise<FullDisk> {
  const open = new Set<Socket>();
  // gameops opens a connection for each request, so the first bytes tell what it is about.
  const server = createServer({ allowHalfOpen: true }, async (client) => {
    open.add(client.on('error', () => undefined).on('close', () => open.delete(client)));
    const [first] = (await once(client, 'data')) as [Buffer];
    const line = decodeURIComponent(first.toString('latin1').split(' HTTP/1.1')[0] ?? '');
    if (full === 'from the start' && /^GET \S*\/info$/.test(line)) return client.end(await infoWithoutRoom());
    if (full !== 'from the start' && /^PUT /.test(line) && line.endsWith(`/${full.volume}`))
      return client.resume().end(answerOf('500 Internal Server Error', noSpace));
    const engine = createConnection({ path: real, allowHalfOpen: true });
    open.add(engine.on('error', () => client.destroy()).on('close', () => open.delete(engine)));
    engine.write(first);
    client.pipe(engine).pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  return {
    host: `unix://${socketPath}`,
    close: () => {
      for (const socket of open) socket.destroy();
      server.close();
    },
  };
}

const noSpace = { message: 'Error processing tar file(exit status 1): write /x: no space left on device' };

async function infoWithoutRoom(): Promise<string> {
  const info = (await new Docker({ socketPath: real }).info()) as object;
  return answerOf('200 OK', { ...info, DockerRootDir: fullFileSystem });
}

function answerOf(status: string, content: object): string {
  const body = JSON.stringify(content);
  const headers = ['Content-Type: application/json', `Content-Length: ${Buffer.byteLength(body)}`];
  return [`HTTP/1.1 ${status}`, ...headers, 'Connection: close', '', body].join('\r\n');
}
