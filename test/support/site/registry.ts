/**
 * A real registry for tests of pulls: Debian's docker-registry in a container of the test's own, on loopback, where an
 * engine takes plain HTTP. Set up by itself: the package is fetched with this machine's apt, unpacked, never installed,
 * and made into one small image that stays on the engine for the next run. The same image, asked on another port, is the
 * game of these tests: its only program answers HTTP, and a push of it takes no time.
 */
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import Docker from 'dockerode';
import { label } from '../../../src/contract.ts';
import { tarOf } from '../../../src/engine/docker/tar.ts';
import type { FileEntry } from '../../../src/engine/port.ts';
import { type Held, openHoldingProxy } from '../holding-proxy.ts';
import { testProject } from '../leftovers.ts';
import { until } from '../players/game-server.ts';
import { removeLabelled } from './site.ts';

const program = '/usr/bin/docker-registry';
const config = `version: 0.1
log: { level: warn }
storage:
  filesystem: { rootdirectory: /tmp/registry }
  delete: { enabled: true }
http: { addr: ":5000" }
`;
/** What `docker login` would ask for at a registry that was opened with `isLocked`. */
export const account = { name: 'arena', password: 'of-the-test-alone' };
const recipe: readonly FileEntry[] = [
  {
    path: 'Dockerfile',
    content: `FROM scratch\nCOPY root /\nENTRYPOINT ["${program}", "serve", "/config.yml"]\nEXPOSE 5000\n`,
  },
  { path: 'root/config.yml', content: config },
  {
    path: 'root/htpasswd',
    content: `${account.name}:$2y$05$abcdefghijklmnopqrstuuMpEej93nAcVpkKMaJjC6aoS3PHiU2cG\n`,
  },
];

const run = promisify(execFile);

/** On the engine from now on. @throws with apt's words when the package can't be had */
async function registryImage(docker: Docker): Promise<string> {
  const tag = `gameops-test-registry:${createHash('sha256').update(JSON.stringify(recipe)).digest('hex').slice(0, 12)}`;
  if (await idOf(docker, tag).catch(() => null)) return tag;
  const folder = await mkdtemp(join(tmpdir(), 'gameops-registry-'));
  try {
    await unpackRegistry(folder);
    // Linked to nothing but libc, which this machine has as new as its own package needs it.
    const { stdout } = await run('ldd', [join(folder, program)]).catch(() => ({ stdout: '' }));
    const libraries = [...stdout.matchAll(/\/\S+(?= \()/g)].map(([path]) => path);
    const files = [
      { path: `root${program}`, content: await readFile(join(folder, program)), mode: 0o755 },
      ...(await Promise.all(
        libraries.map(async (path) => ({ path: `root${path}`, content: await readFile(path), mode: 0o755 })),
      )),
    ];
    await build(docker, tag, [...recipe, ...files]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  return tag;
}

async function unpackRegistry(folder: string): Promise<void> {
  const apt = (...args: string[]) => run('apt-get', ['-q', ...args], { cwd: folder, timeout: 600_000 });
  try {
    await apt('download', 'docker-registry').catch(async () => {
      // A machine whose lists of packages are empty, or older than its mirror.
      await apt('update');
      await apt('download', 'docker-registry');
    });
    const [file = ''] = await readdir(folder);
    await run('dpkg', ['-x', join(folder, file), folder]);
  } catch (cause) {
    const words = (cause as { stderr?: string }).stderr || String(cause);
    throw new Error(
      `These tests need Debian's package docker-registry, on Debian or Ubuntu: ${words.trim()}`,
      { cause },
    );
  }
}

export interface Pushed {
  /** "127.0.0.1:5000/arena/server:1" */
  ref: string;
  /** The same by digest. */
  digestRef: string;
  /** Image id, sha256:… */
  id: string;
  /** Digest of the layer that only this image has, as the registry stores it. */
  layer: string;
}

export interface Registry {
  /** "127.0.0.1:5000": what references begin with. */
  host: string;
  /** Makes a game that is like no other and pushes it under `name`, "arena/server:1". Stays on the engine. */
  push(name: string): Promise<Pushed>;
  /** Points a tag at another image of its repository, as a push from another machine does. */
  moveTag(name: string, to: Pushed): Promise<void>;
  /** Forgets a layer, as a disk that lost it would. */
  removeLayer(pushed: Pushed): Promise<void>;
  /** Holds the next layer that is pulled, half sent. */
  holdLayer(): Promise<Held>;
  /** Nobody answers at its port until `comeBack`. */
  goAway(): void;
  comeBack(): Promise<void>;
  /** Removes images from the engine, by every name. */
  removeHere(...images: { id: string }[]): Promise<void>;
  /** Removes the registry, and every image pushed to it from the engine. */
  close(): Promise<void>;
}

const payloadBytes = 2 * 1024 ** 2;

/** @param isLocked only `account` may push and pull */
export async function openRegistry({ isLocked = false } = {}): Promise<Registry> {
  const docker = new Docker();
  const image = await registryImage(docker);
  const project = testProject('registry');
  const port = await startRegistry(docker, { project, image, isLocked });
  const way = await openHoldingProxy(port);
  const { host } = way;
  const authconfig = { username: account.name, password: account.password, serveraddress: host };
  const pushed: { id: string }[] = [];

  return {
    host,
    async push(name) {
      const ref = `${host}/${name}`;
      const context = [
        {
          path: 'Dockerfile',
          content: `FROM ${image}\nCOPY payload /payload\nENV REGISTRY_HTTP_ADDR=:3000\n`,
        },
        { path: 'payload', content: randomBytes(payloadBytes) },
      ];
      const id = await build(docker, ref, context);
      pushed.push({ id });
      await finished(await docker.getImage(ref).push({ authconfig }));
      const [repository = '', tag = ''] = name.split(':');
      const answer = await ask(port, `${repository}/manifests/${tag}`);
      const { layers } = (await answer.json()) as { layers: { digest: string }[] };
      const digest = answer.headers.get('docker-content-digest');
      return { ref, id, digestRef: `${host}/${repository}@${digest}`, layer: layers.at(-1)?.digest ?? '' };
    },
    async moveTag(name, { digestRef }) {
      const [repository, tag] = name.split(':');
      const manifest = await ask(port, `${repository}/manifests/${digestRef.split('@')[1]}`);
      await ask(port, `${repository}/manifests/${tag}`, 'PUT', await manifest.text());
    },
    async removeLayer({ digestRef, layer }) {
      const repository = digestRef.slice(host.length + 1).split('@')[0];
      await ask(port, `${repository}/blobs/${layer}`, 'DELETE');
    },
    holdLayer: () => way.holdAfter(payloadBytes / 2),
    goAway: () => way.refuse(),
    comeBack: () => way.listen(),
    removeHere: (...images) => removeImages(docker, images),
    async close() {
      way.close();
      await removeLabelled(docker, project);
      await removeImages(docker, pushed);
    },
  };
}

/** @returns the port it answers at, on loopback */
async function startRegistry(
  docker: Docker,
  { project, image, isLocked }: { project: string; image: string; isLocked: boolean },
): Promise<number> {
  const locked = ['AUTH=htpasswd', 'AUTH_HTPASSWD_REALM=test', 'AUTH_HTPASSWD_PATH=/htpasswd'];
  const made = await docker.createContainer({
    name: project,
    Image: image,
    Labels: { [label.project]: project, [label.role]: 'one-off' },
    Env: isLocked ? locked.map((line) => `REGISTRY_${line}`) : [],
    HostConfig: {
      PortBindings: { '5000/tcp': [{ HostIp: '127.0.0.1', HostPort: '' }] },
      Memory: 256 * 1024 ** 2,
    },
  });
  try {
    await made.start();
    const port = Number((await made.inspect()).NetworkSettings.Ports['5000/tcp']?.[0]?.HostPort);
    await untilAnswers(port);
    return port;
  } catch (error) {
    await removeLabelled(docker, project);
    throw error;
  }
}

async function ask(port: number, path: string, method = 'GET', body: string | null = null) {
  const type = 'application/vnd.docker.distribution.manifest.v2+json';
  const basic = Buffer.from(`${account.name}:${account.password}`).toString('base64');
  const answer = await fetch(`http://127.0.0.1:${port}/v2/${path}`, {
    method,
    body,
    headers: {
      accept: type,
      authorization: `Basic ${basic}`,
      ...(body === null ? {} : { 'content-type': type }),
    },
  });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
  return answer;
}

async function removeImages(docker: Docker, images: readonly { id: string }[]): Promise<void> {
  for (const { id } of images) {
    const image = docker.getImage(id);
    await image.remove({ force: true }).catch((error: { statusCode?: number }) => {
      if (error.statusCode !== 404) throw error;
    });
  }
}

/** Not through gameops, which would label it as its own. @returns its id */
async function build(docker: Docker, tag: string, context: readonly FileEntry[]): Promise<string> {
  await finished(await docker.buildImage(tarOf(context) as never, { t: tag, forcerm: true }));
  return idOf(docker, tag);
}

const idOf = async (docker: Docker, ref: string) => (await docker.getImage(ref).inspect()).Id;

async function finished(stream: NodeJS.ReadableStream): Promise<void> {
  let text = '';
  for await (const chunk of stream) text += chunk;
  const failed = text.split('\n').find((line) => line.includes('"error"'));
  if (failed) throw new Error(failed);
}

async function untilAnswers(port: number): Promise<void> {
  await until(() =>
    // Asked again after a second: fetch was seen to never settle when the engine's proxy hung up in the middle of it.
    fetch(`http://127.0.0.1:${port}/v2/`, { signal: AbortSignal.timeout(1_000) }).then(
      () => true,
      () => false,
    ),
  );
}
