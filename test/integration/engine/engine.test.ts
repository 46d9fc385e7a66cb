import { spawn } from 'node:child_process';
import { mkdir, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import Docker from 'dockerode';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { label, namesOf } from '../../../src/contract.ts';
import { dockerEngine } from '../../../src/engine/docker/engine.ts';
import type { ContainerSpec, Engine } from '../../../src/engine/port.ts';
import type { Event } from '../../../src/report/events.ts';
import { engineContract, removeAll } from '../../support/engine-contract.ts';
import { testProject } from '../../support/leftovers.ts';
import { engineImage } from '../../support/site/engine-image.ts';

const docker = new Docker();
const someone = { holder: 'ada', host: 'desk', verb: 'deploy', since: '2026-01-01T00:00:00.000Z' };

describe('the Docker engine', () => {
  engineContract(async () => {
    const [engine, other, image] = await Promise.all([dockerEngine(), dockerEngine(), engineImage()]);
    const foreign: Docker.Container[] = [];
    return {
      engine,
      other,
      image,
      async foreignContainer(name) {
        // Labelled for the leak check of the suites, but not as a project's.
        const made = await docker.createContainer({
          name,
          Image: image,
          Cmd: ['true'],
          Labels: { 'gameops.test': name },
        });
        foreign.push(made);
      },
      pass: (ms) => sleep(ms),
      async close() {
        for (const container of foreign) await container.remove({ force: true });
        await Promise.all([engine.close(), other.close()]);
      },
    };
  });
});

describe('what only a real engine can show', () => {
  const project = testProject('engine');
  const names = namesOf(project);
  const events: Event[] = [];
  let engine: Engine;
  let image: string;

  beforeAll(async () => {
    image = await engineImage();
    engine = await dockerEngine({ emit: (event) => events.push(event) });
  });
  afterAll(async () => {
    await removeAll(engine, project);
    await engine.close();
  });

  const idle = (more: Partial<ContainerSpec> = {}): ContainerSpec => ({
    project,
    name: names.proxy,
    role: 'proxy',
    image,
    entrypoint: ['sleep'],
    command: ['1000'],
    network: 'none',
    memoryBytes: 32 * 2 ** 20,
    readOnlyRoot: true,
    restart: 'unless-stopped',
    ...more,
  });

  it('every container is hardened, bounded and told its stop signal', async () => {
    await engine.ensureContainer(idle());
    const info = await docker.getContainer(names.proxy).inspect();
    expect(info.HostConfig).toMatchObject({
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges'],
      Init: true,
      ReadonlyRootfs: true,
      LogConfig: { Type: 'local', Config: { 'max-size': '10m', 'max-file': '3' } },
    });
    expect(info.HostConfig.PidsLimit).toBeGreaterThan(0);
    expect((info.Config as { StopSignal?: string }).StopSignal).toBe('SIGTERM');
    expect(info.Config.Labels).toMatchObject({ [label.project]: project, [label.role]: 'proxy' });
    await engine.removeContainer(project, names.proxy);
  });

  it('the daemon gives a replica that it stops its whole drain deadline, and an inspection shows none of its files', async () => {
    const { network } = names;
    await engine.ensureNetwork(project);
    await engine.startFleet({
      project,
      release: 3,
      replicas: [1],
      network,
      image: { id: image, digestRef: null },
      files: {
        folder: '/run/gameops',
        entries: [{ path: 'settings.json', content: 'hunter2', mode: 0o400 }],
      },
      drainMs: 120_000,
      container: { command: ['sleep', '1000'], memoryBytes: 32 * 2 ** 20, readOnlyRoot: true, restart: 'no' },
    });
    const info = await docker.getContainer(names.game(3, 1)).inspect();
    expect((info.Config as { StopTimeout?: number }).StopTimeout).toBeGreaterThanOrEqual(120);
    expect((info.Config as { StopTimeout?: number }).StopTimeout).toBeLessThanOrEqual(130);
    expect(JSON.stringify(info)).not.toContain('hunter2');
    await removeAll(engine, project);
  });

  it('more open files than the engine may have is a warning, not a failure', async () => {
    await engine.ensureContainer(idle({ openFiles: 2 ** 30 }));
    expect((await engine.observe(project)).map(({ state }) => state)).toEqual(['running']);
    expect(events.filter((event) => event.type === 'note' && event.level === 'warning')).toHaveLength(1);
    await engine.removeContainer(project, names.proxy);
  });

  it('a large output arrives complete, with standard error apart from it', async () => {
    await engine.ensureContainer(idle());
    const script = 'head -c 3000000 /dev/zero | tr "\\0" x; echo oops >&2; exit 3';
    const answer = await engine.exec(project, names.proxy, ['sh', '-c', script]);
    expect({ ...answer, stdout: answer.stdout.length }).toEqual({
      exitCode: 3,
      stdout: 3_000_000,
      stderr: 'oops\n',
    });
    await engine.removeContainer(project, names.proxy);
  });

  it('files keep owner and mode, folders can be read, and no temporary carrier stays', async () => {
    const volume = names.volume.settings(1);
    await engine.ensureVolume(project, volume, 'settings');
    await engine.putFiles(project, volume, [
      { path: 'deep/settings.json', content: '{}', mode: 0o400, uid: 10001, gid: 7 },
      { path: 'all', content: '', mode: 0o1777, isFolder: true },
    ]);
    expect(await engine.observe(project)).toEqual([]);
    const mounts = [{ volume, path: '/run/gameops', readOnly: true }];
    const look = [
      'stat',
      '-c',
      '%a %u %g %n',
      '/run/gameops/deep',
      '/run/gameops/deep/settings.json',
      '/run/gameops/all',
    ];
    const spec = idle({
      name: `${project}-look`,
      role: 'one-off',
      restart: 'no',
      mounts,
      entrypoint: look,
      command: [],
    });
    const { stdout } = await engine.runOnce(spec, 20_000);
    expect(stdout).toBe(
      '755 0 0 /run/gameops/deep\n400 10001 7 /run/gameops/deep/settings.json\n1777 0 0 /run/gameops/all\n',
    );
    await engine.removeVolume(project, volume);
  });

  it('a reader overtaken by the removal of a volume does not bring it back', async () => {
    const volume = names.volume.record;
    const reader = await dockerEngine();
    for (const aheadMs of [0, 5, 10, 15, 20, 25, 30, 40]) {
      await engine.ensureVolume(project, volume, 'record');
      const reading = reader.readFiles(project, volume, '');
      await sleep(aheadMs);
      await engine.removeVolume(project, volume);
      await reading;
      const { Volumes } = await docker.listVolumes({ filters: JSON.stringify({ name: [volume] }) as never });
      expect(Volumes ?? []).toEqual([]);
      await engine.removeContainer(project, names.carrier);
    }
    await reader.close();
  });

  it('the lock of a process that was killed with SIGKILL is free soon after', async () => {
    const child = await startLockHolder(project, image);
    await expect(engine.lock(project, image, someone)).rejects.toMatchObject({
      code: 'LOCKED',
      facts: { holder: 'child' },
    });
    child.kill('SIGKILL');
    let lock = null;
    for (let tries = 0; tries < 600 && lock === null; tries += 1) {
      lock = await engine.lock(project, image, someone).catch(() => null);
      if (lock === null) await sleep(50);
    }
    expect(lock).not.toBeNull();
    await lock?.release();
  });

  it('a lock whose maker died before it started is taken over', async () => {
    const labels = { [label.project]: project, [label.role]: 'lock', [label.holder]: 'dead' };
    await docker.createContainer({
      name: names.lock,
      Image: image,
      Entrypoint: ['cat'],
      OpenStdin: true,
      Labels: labels,
    });
    await expect(engine.lock(project, image, someone)).rejects.toMatchObject({
      code: 'LOCKED',
      facts: { holder: 'dead' },
    });
    await sleep(10_500);
    expect(await engine.lockHolder(project)).toBeNull();
    const lock = await engine.lock(project, image, someone);
    expect(await engine.lockHolder(project)).toMatchObject({ holder: 'ada' });
    await lock.release();
  });

  it('a build that fails says so with its last lines; the image of a build that succeeds is on the engine', async () => {
    const tag = `${project}:built`;
    const dockerfile = (line: string) => [
      { path: 'Dockerfile', content: `FROM ${image}\nCOPY hello /hello\n${line}\n` },
    ];
    const file = { path: 'hello', content: 'hello' };
    const build = (line: string) =>
      engine.buildImage({ tag, context: [...dockerfile(line), file], labels: { [label.content]: 'x' } });
    await expect(build('RUN echo so it ends && false')).rejects.toMatchObject({
      code: 'IMAGE_BUILD_FAILED',
      facts: { lastLines: expect.arrayContaining(['so it ends']) },
    });
    expect(await engine.image(tag)).toBeNull();
    expect(await build('USER 12')).toMatchObject({ user: '12', labels: { [label.content]: 'x' } });
    // By its id, as somebody does who prunes: a name would only be taken off.
    const child = `${project}:child`;
    await engine.buildImage({
      tag: child,
      context: [{ path: 'Dockerfile', content: `FROM ${tag}\nUSER 13\n` }],
      labels: {},
    });
    const { id } = (await engine.image(tag)) ?? { id: '' };
    expect(await engine.removeImage(id)).toBe(false);
    expect(await engine.image(tag)).not.toBeNull();
    await engine.removeImage(child);
    expect(await engine.removeImage(id)).toBe(true);
    expect(await engine.image(tag)).toBeNull();
  });

  it('a registry whose name does not resolve is REGISTRY_UNREACHABLE at once', async () => {
    const pull = engine.pullImage('registry.invalid/arena/server:1');
    await expect(pull).rejects.toMatchObject({ code: 'REGISTRY_UNREACHABLE' });
  });

  it('a registry that refuses is IMAGE_NOT_FOUND; a registry that hangs up is REGISTRY_UNREACHABLE', async () => {
    const registry = createServer((request, response) => {
      if (request.url?.includes('/broken/')) return request.socket.destroy();
      const isAlive = request.url === '/v2/';
      response.writeHead(isAlive ? 200 : 404, { 'content-type': 'application/json' });
      response.end(isAlive ? '{}' : '{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}');
    });
    await new Promise<void>((resolve) => registry.listen(0, '127.0.0.1', resolve));
    try {
      const { port } = registry.address() as AddressInfo;
      const pull = (name: string) => engine.pullImage(`127.0.0.1:${port}/${name}:1`);
      await expect(pull('arena/server')).rejects.toMatchObject({ code: 'IMAGE_NOT_FOUND' });
      await expect(pull('broken/server')).rejects.toMatchObject({ code: 'REGISTRY_UNREACHABLE' });
    } finally {
      registry.close();
    }
  });

  it('an engine that is not there is ENGINE_UNREACHABLE with the address that was tried', async () => {
    for (const host of ['unix:///nowhere/docker.sock', 'tcp://127.0.0.1:1', 'ssh://ada@example.com']) {
      const refused = { code: 'ENGINE_UNREACHABLE', facts: { address: host } };
      await expect(dockerEngine({ host })).rejects.toMatchObject(refused);
    }
  });

  it('an engine whose certificates are not there is ENGINE_UNREACHABLE, too, and names the file', async () => {
    process.env.DOCKER_CERT_PATH = '/nonexistent';
    const asked = dockerEngine({ host: 'tcp://127.0.0.1:2376' });
    await expect(asked).rejects.toMatchObject({
      code: 'ENGINE_UNREACHABLE',
      message: expect.stringContaining('/nonexistent/ca.pem'),
    });
    delete process.env.DOCKER_CERT_PATH;
  });

  it('free disk space is a number of bytes', async () => {
    expect(await engine.freeDiskBytes(project, image)).toBeGreaterThan(2 ** 20);
  });
});

/** Inside the repository, so that the bundle finds its packages. */
async function startLockHolder(project: string, image: string) {
  const folder = join('node_modules', '.gameops-test', project);
  await mkdir(folder, { recursive: true });
  const outfile = join(folder, 'lock-holder.mjs');
  const entryPoints = ['test/support/lock-holder.ts'];
  await build({ entryPoints, outfile, bundle: true, platform: 'node', format: 'esm', packages: 'external' });
  const child = spawn(process.execPath, [outfile, project, image], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise<void>((resolve, reject) => {
    child.stdout.once('data', () => resolve());
    child.once('exit', (code) => reject(new Error(`the lock holder exited with ${code}`)));
  });
  await rm(folder, { recursive: true });
  return child;
}
