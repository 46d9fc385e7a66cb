/**
 * The promises of src/engine/port.ts as sentences. Every body of the port is held to the same ones.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { label, namesOf } from '../../src/contract.ts';
import type { ContainerSpec, Engine, FleetFiles, FleetSpec, LockHolder } from '../../src/engine/port.ts';
import { rangeOf, toNumber } from '../../src/engine/subnet.ts';
import { OpsError } from '../../src/errors.ts';
import { testProject } from './leftovers.ts';

export interface Body {
  engine: Engine;
  /** Another gameops process on the same engine. */
  other: Engine;
  /** On the engine; has sh, sleep, echo, cat, printenv, false. */
  image: string;
  /** Makes a container of that name without our label; the body removes it at close. */
  foreignContainer(name: string): Promise<void>;
  /** Lets about that much time pass on the engine. */
  pass(ms: number): Promise<void>;
  close(): Promise<void>;
}

const someone: LockHolder = {
  holder: 'ada',
  host: 'desk',
  verb: 'deploy',
  since: '2026-01-01T00:00:00.000Z',
};

export function engineContract(open: () => Promise<Body>): void {
  let body: Body;
  let engine: Engine;
  let project: string;
  let names: ReturnType<typeof namesOf>;

  beforeAll(async () => {
    body = await open();
    engine = body.engine;
  });
  beforeEach(() => {
    project = testProject('engine');
    names = namesOf(project);
  });
  afterEach(() => removeAll(engine, project));
  afterAll(() => body.close());

  const idle = (name: string, more: Partial<ContainerSpec> = {}): ContainerSpec => ({
    project,
    name,
    role: 'proxy',
    image: body.image,
    entrypoint: ['sleep'],
    command: ['1000'],
    network: 'none',
    memoryBytes: 32 * 2 ** 20,
    readOnlyRoot: true,
    restart: 'no',
    ...more,
  });
  const fleet = (replicas: number[], more: Partial<FleetSpec['container']> = {}, release = 7): FleetSpec => {
    const { entrypoint, command, memoryBytes, readOnlyRoot, restart } = idle('');
    const template = { entrypoint, command, memoryBytes, readOnlyRoot, restart, env: { N: '{replica}' } };
    return {
      project,
      release,
      replicas,
      network: names.network,
      image: { id: body.image, digestRef: null },
      drainMs: 10_000,
      container: { ...template, ...more } as FleetSpec['container'],
    };
  };
  const seen = async (name: string) => (await engine.observe(project)).find((one) => one.name === name);
  const until = async (name: string, state: string) => {
    for (let tries = 0; tries < 100 && (await seen(name))?.state !== state; tries += 1) await body.pass(100);
    return seen(name);
  };
  /** The kernel drops signals to the first process of a container that has not asked for them yet: until one is heard. */
  const endedBy = async (name: string, send: () => Promise<void>) => {
    for (let tries = 0; tries < 100 && (await seen(name))?.state !== 'exited'; tries += 1) {
      await send();
      await body.pass(100);
    }
    return seen(name);
  };

  describe('repeating a verb', () => {
    it('ensuring the network twice keeps one network with one subnet', async () => {
      const first = await engine.ensureNetwork(project);
      expect(await engine.ensureNetwork(project)).toEqual(first);
      expect(await engine.network(project)).toEqual(first);
      expect(first.name).toBe(names.network);
    });

    it('two processes that ensure the network at once get the same one', async () => {
      const made = await Promise.all(
        [engine, body.other, engine, body.other].map((one) => one.ensureNetwork(project)),
      );
      expect(new Set(made.map(({ subnet }) => subnet)).size).toBe(1);
      expect(await engine.network(project)).toEqual(made[0]);
    });

    it('two projects get subnets that do not overlap', async () => {
      const second = `${project}-b`;
      try {
        const [a, b] = await Promise.all([engine.ensureNetwork(project), body.other.ensureNetwork(second)]);
        const [left, right] = [rangeOf(a.subnet), rangeOf(b.subnet)];
        expect(left.to < right.from || right.to < left.from).toBe(true);
      } finally {
        await engine.removeNetwork(second);
      }
    });

    it('ensuring a container twice makes it once, and names the differing fields without applying them', async () => {
      expect(await engine.ensureContainer(idle(names.proxy))).toEqual({ created: true, drift: [] });
      const before = await seen(names.proxy);
      expect(await engine.ensureContainer(idle(names.proxy))).toEqual({ created: false, drift: [] });
      const changed = idle(names.proxy, { memoryBytes: 48 * 2 ** 20, env: { A: 'b' } });
      expect(await engine.ensureContainer(changed)).toEqual({
        created: false,
        drift: ['env', 'memoryBytes'],
      });
      expect(await seen(names.proxy)).toEqual(before);
    });

    it('a stopped container is started again', async () => {
      await engine.ensureContainer(idle(names.proxy));
      const ended = await endedBy(names.proxy, () => engine.signal(project, names.proxy, 'SIGTERM'));
      expect(ended?.exitCode).toBe(143);
      expect(await engine.ensureContainer(idle(names.proxy))).toMatchObject({ created: false });
      expect((await seen(names.proxy))?.state).toBe('running');
    });

    it('removing or stopping something that does not exist succeeds', async () => {
      await engine.removeContainer(project, names.proxy);
      await engine.removeVolume(project, names.volume.record);
      await engine.removeNetwork(project);
      await engine.removeImage(`${project}:none`);
      await engine.signal(project, names.proxy, 'SIGHUP');
      await engine.beginDrain({ project, release: 7, replicas: [1, 2] }, 1_000);
      await engine.retireFleet({ project, release: 7, replicas: [1, 2] }, 'nothing', 0);
      await engine.forgetFleet(project, 7, 0);
      expect((await engine.fleetFiles(project, 7)).size).toBe(0);
      expect(await engine.logTail(project, names.proxy, 5)).toEqual([]);
      expect(await engine.network(project)).toBeNull();
    });
  });

  describe('objects of others', () => {
    it('a foreign container under our name is refused by name and left as it is', async () => {
      await body.foreignContainer(names.proxy);
      const refused = { code: 'FOREIGN_CONTAINER', facts: { name: names.proxy } };
      await expect(engine.ensureContainer(idle(names.proxy))).rejects.toMatchObject(refused);
      await expect(engine.removeContainer(project, names.proxy)).rejects.toMatchObject(refused);
      await expect(engine.signal(project, names.proxy, 'SIGTERM')).rejects.toMatchObject(refused);
      expect(await engine.observe(project)).toEqual([]);
    });

    it('a name that the project may need later and somebody else has is reported before it is used', async () => {
      await engine.ensureVolume(project, names.volume.record, 'record');
      await engine.ensureNetwork(project);
      await body.foreignContainer(`${names.game(7, 12)}-b`);
      await engine.mustOwnNames(project);
      await body.foreignContainer(names.game(7, 12));
      await expect(engine.mustOwnNames(project)).rejects.toMatchObject({
        code: 'FOREIGN_CONTAINER',
        facts: { name: names.game(7, 12) },
      });
    });

    it('observing lists only the project, and every project once', async () => {
      await engine.ensureVolume(project, names.volume.record, 'record');
      await engine.ensureContainer(idle(names.proxy));
      expect((await engine.observe(project)).map(({ name, role }) => ({ name, role }))).toEqual([
        { name: names.proxy, role: 'proxy' },
      ]);
      expect(await engine.observe(`${project}-b`)).toEqual([]);
      expect((await engine.projects()).filter((one) => one === project)).toEqual([project]);
      expect(await engine.volumes(project)).toEqual([names.volume.record]);
    });
  });

  describe('a refusal', () => {
    it('a taken port is named, and no container stays behind', async () => {
      const publish = (hostPort: number) => [{ address: '127.0.0.1', hostPort, containerPort: 8080 }];
      await engine.ensureNetwork(project);
      const network = { name: names.network };
      await engine.ensureContainer(idle(names.proxy, { network, publish: publish(0) }));
      const { host, port } = await engine.dial(project, names.proxy, 8080);
      expect({ host, isPort: port > 0 }).toEqual({ host: '127.0.0.1', isPort: true });
      const second = idle(names.redis, { network, publish: publish(port) });
      await expect(engine.ensureContainer(second)).rejects.toMatchObject({
        code: 'PORT_TAKEN',
        facts: { port },
      });
      expect(await seen(names.redis)).toBeUndefined();
    });

    it('an image that is not on the engine is named', async () => {
      const spec = idle(names.proxy, { image: `${project}:none` });
      await expect(engine.ensureContainer(spec)).rejects.toMatchObject({ code: 'IMAGE_NOT_FOUND' });
      expect(await engine.image(`${project}:none`)).toBeNull();
      expect(await engine.image(body.image)).toMatchObject({ id: expect.stringMatching(/^sha256:/) });
    });

    it('a volume that nobody made is not mounted, not written and not created by the attempt', async () => {
      const mounts = [{ volume: names.volume.record, path: '/data', readOnly: true }];
      await expect(engine.ensureContainer(idle(names.proxy, { mounts }))).rejects.toMatchObject({
        code: 'ENGINE_FAILED',
      });
      const files = [{ path: 'a', content: 'a' }];
      await expect(engine.putFiles(project, names.volume.record, files)).rejects.toMatchObject({
        code: 'ENGINE_FAILED',
      });
      expect((await engine.readFiles(project, names.volume.record, '')).size).toBe(0);
      expect(await engine.volumes(project)).toEqual([]);
    });
  });

  describe('processes', () => {
    it('of a running container are told apart by their ids, and a container that does not run has none', async () => {
      expect(await engine.processes(project, names.proxy)).toEqual([]);
      await engine.ensureContainer(idle(names.proxy));
      const running = (await engine.processes(project, names.proxy)) ?? [];
      expect(running.map(({ command }) => command).join()).toContain('sleep');
      expect(new Set(running.map(({ pid }) => pid)).size).toBe(running.length);
      await endedBy(names.proxy, () => engine.signal(project, names.proxy, 'SIGTERM'));
      expect(await engine.processes(project, names.proxy)).toEqual([]);
    });
  });

  describe('signals', () => {
    it('a signal other than the stop signal leaves the restart policy "always" armed', async () => {
      await engine.ensureContainer(idle(names.proxy, { restart: 'always' }));
      // By then it asks for signals. A second one could start it twice.
      await body.pass(3_000);
      await engine.signal(project, names.proxy, 'SIGHUP');
      for (let tries = 0; tries < 100 && (await seen(names.proxy))?.restartCount === 0; tries += 1)
        await body.pass(100);
      expect((await until(names.proxy, 'running'))?.restartCount).toBe(1);
    });

    it('any signal disarms the restart policy "unless-stopped"', async () => {
      await engine.ensureContainer(idle(names.proxy, { restart: 'unless-stopped' }));
      const ended = await endedBy(names.proxy, () => engine.signal(project, names.proxy, 'SIGHUP'));
      expect(ended?.exitCode).toBe(129);
      await body.pass(500);
      expect((await seen(names.proxy))?.state).toBe('exited');
    });

    it('a replica that a drain has ended stays down whatever its restart policy', async () => {
      await engine.ensureNetwork(project);
      await engine.startFleet(fleet([1, 2], { restart: 'unless-stopped' }));
      const ended = await endedBy(names.game(7, 1), () =>
        engine.beginDrain({ project, release: 7, replicas: [1] }, 1_000),
      );
      expect(ended?.exitCode).toBe(143);
      await body.pass(500);
      expect((await seen(names.game(7, 1)))?.state).toBe('exited');
      expect((await seen(names.game(7, 2)))?.state).toBe('running');
    });
  });

  describe('fleets', () => {
    const address = (one: { address: string | null } | undefined) => one?.address ?? '';
    const isIn = (range: string, value: string) => {
      const { from, to } = rangeOf(range);
      return toNumber(value) >= from && toNumber(value) <= to;
    };

    it('every replica runs at an address of its own where the network has replicas, and knows its number', async () => {
      const { subnet, notReplicas } = await engine.ensureNetwork(project);
      await engine.startFleet(fleet([1, 2, 3]));
      const replicas = await engine.observe(project);
      expect(replicas.map(({ labels }) => [labels[label.release], labels[label.replica]])).toEqual([
        ['7', '1'],
        ['7', '2'],
        ['7', '3'],
      ]);
      expect(replicas.every((one) => isIn(subnet, address(one)))).toBe(true);
      expect(notReplicas.length).toBeGreaterThan(0);
      expect(replicas.some((one) => notReplicas.some((range) => isIn(range, address(one))))).toBe(false);
      expect(new Set(replicas.map(address)).size).toBe(3);
      const { stdout } = await engine.exec(project, names.game(7, 2), ['printenv', 'N']);
      expect(stdout.trim()).toBe('2');
    });

    it('a container that is no replica runs at an address where the network has no replicas, and loses it when it ends', async () => {
      const { notReplicas } = await engine.ensureNetwork(project);
      await engine.ensureContainer(idle(names.proxy, { network: { name: names.network } }));
      await engine.ensureContainer(idle(names.redis, { role: 'redis' }));
      const proxy = await seen(names.proxy);
      expect(notReplicas.some((range) => isIn(range, address(proxy)))).toBe(true);
      expect((await seen(names.redis))?.address).toBeNull();
      await endedBy(names.proxy, () => engine.signal(project, names.proxy, 'SIGTERM'));
      expect((await seen(names.proxy))?.address).toBeNull();
    });

    it('one release is observed without the others', async () => {
      await engine.ensureNetwork(project);
      await engine.startFleet(fleet([1, 2]));
      await engine.startFleet(fleet([1], {}, 8));
      expect((await engine.observe(project, 8)).map(({ name }) => name)).toEqual([names.game(8, 1)]);
      expect(await engine.observe(project, 9)).toEqual([]);
    });

    it('a replica that was started again is not taken for the stopped one it was', async () => {
      await engine.ensureNetwork(project);
      await engine.startFleet(fleet([1]));
      const states = async () => (await engine.observe(project)).map(({ state }) => state);
      for (let round = 0; round < 2; round += 1) {
        await engine.retireFleet({ project, release: 7, replicas: [1] }, 'stopped', 1000);
        expect(await states()).toEqual(['exited']);
        expect(await states()).toEqual(['exited']);
        await engine.startFleet(fleet([1]));
        expect(await states()).toEqual(['running']);
      }
    });

    it('starting the same fleet again changes nothing', async () => {
      await engine.ensureNetwork(project);
      await engine.startFleet(fleet([1, 2]));
      const before = await engine.observe(project);
      await engine.startFleet(fleet([1, 2]));
      expect(await engine.observe(project)).toEqual(before);
    });

    it('only the named replicas of another specification are made anew, at the address they had', async () => {
      await engine.ensureNetwork(project);
      await engine.startFleet(fleet([1, 2]));
      const before = await engine.observe(project);
      await engine.startFleet(fleet([2], { env: { N: 'changed' } }));
      const after = await engine.observe(project);
      expect(after[0]).toEqual(before[0]);
      expect(after[1]?.id).not.toBe(before[1]?.id);
      expect(after.map(address)).toEqual(before.map(address));
    });

    it('the address of a replica that is kept stopped is given to no other one', async () => {
      await engine.ensureNetwork(project);
      await engine.startFleet(fleet([1, 2]));
      await engine.retireFleet({ project, release: 7, replicas: [1, 2] }, 'stopped', 1000);
      const kept = await engine.observe(project);
      expect(kept.map(({ state }) => state)).toEqual(['exited', 'exited']);
      await engine.startFleet(fleet([1, 2], {}, 8));
      await engine.startFleet(fleet([1, 2]));
      const all = await engine.observe(project);
      expect(new Set(all.map(address)).size).toBe(4);
      expect(all.filter(({ state }) => state === 'running')).toHaveLength(4);
      expect((await seen(names.game(7, 1)))?.id).toBe(kept[0]?.id);
    });

    it('retiring without keeping removes exactly the named replicas', async () => {
      await engine.ensureNetwork(project);
      await engine.startFleet(fleet([1, 2]));
      await engine.retireFleet({ project, release: 7, replicas: [1] }, 'nothing', 0);
      expect((await engine.observe(project)).map(({ name }) => name)).toEqual([names.game(7, 2)]);
    });

    const settings = (content: string): FleetFiles => ({
      folder: '/run/gameops',
      entries: [{ path: 'settings.json', content, mode: 0o400 }],
    });
    const read = async (release: number) => {
      const file = (await engine.fleetFiles(project, release)).get('settings.json');
      return file && Buffer.from(file).toString();
    };

    it('the files of a fleet are where its replicas read them, from their first moment, and can be read back', async () => {
      await engine.ensureNetwork(project);
      const boot = { entrypoint: ['sh', '-c', 'cat /run/gameops/settings.json; sleep 1000'], command: [] };
      await engine.startFleet({ ...fleet([1, 2], boot), files: settings('{"of":7}') });
      await engine.startFleet({ ...fleet([1], {}, 8), files: settings('{"of":8}') });
      const show = ['cat', '/run/gameops/settings.json'];
      expect((await engine.exec(project, names.game(7, 2), show)).stdout).toBe('{"of":7}');
      expect((await engine.exec(project, names.game(8, 1), show)).stdout).toBe('{"of":8}');
      expect([await read(7), await read(8), await read(9)]).toEqual(['{"of":7}', '{"of":8}', undefined]);
    });

    it('the files of a fleet stay while it is kept stopped, and the next start brings its own', async () => {
      await engine.ensureNetwork(project);
      await engine.startFleet({ ...fleet([1]), files: settings('old') });
      const { id } = (await seen(names.game(7, 1))) ?? {};
      await engine.retireFleet({ project, release: 7, replicas: [1] }, 'stopped', 1000);
      expect(await read(7)).toBe('old');
      await engine.startFleet({ ...fleet([1]), files: settings('new') });
      expect(await read(7)).toBe('new');
      expect((await seen(names.game(7, 1)))?.id).toBe(id);
    });

    it('a forgotten fleet leaves neither replicas nor files, and others are left alone', async () => {
      await engine.ensureNetwork(project);
      await engine.startFleet({ ...fleet([1, 2]), files: settings('7') });
      await engine.startFleet({ ...fleet([1], {}, 8), files: settings('8') });
      const removed = await engine.forgetFleet(project, 7, 0);
      expect(removed).toEqual(expect.arrayContaining([names.game(7, 1), names.game(7, 2)]));
      expect((await engine.observe(project)).map(({ name }) => name)).toEqual([names.game(8, 1)]);
      expect([await read(7), await read(8)]).toEqual([undefined, '8']);
    });

    it('a fleet is made of the image with its id, whatever its digest is called', async () => {
      await engine.ensureNetwork(project);
      const { id } = (await engine.image(body.image)) ?? { id: '' };
      const digestRef = `registry.invalid/${project}@sha256:${'0'.repeat(64)}`;
      await engine.startFleet({ ...fleet([1]), image: { id, digestRef } });
      expect((await seen(names.game(7, 1)))?.image).toBe(id);
    });

    it('another drain deadline does not make replicas anew', async () => {
      await engine.ensureNetwork(project);
      await engine.startFleet(fleet([1]));
      const before = await engine.observe(project);
      await engine.startFleet({ ...fleet([1]), drainMs: 60_000 });
      expect(await engine.observe(project)).toEqual(before);
    });

    it('a fleet without a network is refused', async () => {
      await expect(engine.startFleet(fleet([1]))).rejects.toMatchObject({ code: 'ENGINE_FAILED' });
    });
  });

  describe('files', () => {
    const text = (files: Map<string, Uint8Array>) =>
      Object.fromEntries([...files].map(([path, bytes]) => [path, Buffer.from(bytes).toString()]).sort());

    it('what is put into a volume is read back, folder by folder, and overwritten by name', async () => {
      const volume = names.volume.record;
      await engine.ensureVolume(project, volume, 'record');
      await engine.putFiles(project, volume, [
        { path: 'a/1.json', content: 'one' },
        { path: 'a/b/2.json', content: Buffer.from('two') },
      ]);
      await engine.putFiles(project, volume, [{ path: 'a/1.json', content: 'uno' }]);
      expect(text(await engine.readFiles(project, volume, ''))).toEqual({
        'a/1.json': 'uno',
        'a/b/2.json': 'two',
      });
      expect(text(await body.other.readFiles(project, volume, 'a'))).toEqual({
        '1.json': 'uno',
        'b/2.json': 'two',
      });
      expect(text(await engine.readFiles(project, volume, 'none'))).toEqual({});
    });

    it('a volume that is made later is written and read like the first one', async () => {
      await engine.ensureVolume(project, names.volume.record, 'record');
      await engine.putFiles(project, names.volume.record, [{ path: 'a', content: 'record' }]);
      await engine.ensureVolume(project, names.volume.nginx, 'proxy');
      await body.other.putFiles(project, names.volume.nginx, [{ path: 'b', content: 'config' }]);
      await engine.putFiles(project, names.volume.record, [{ path: 'c', content: 'again' }]);
      expect(text(await engine.readFiles(project, names.volume.nginx, ''))).toEqual({ b: 'config' });
      expect(text(await engine.readFiles(project, names.volume.record, ''))).toEqual({
        a: 'record',
        c: 'again',
      });
    });

    it('simultaneous writes into several volumes all arrive', async () => {
      const { record, nginx, web, certificates } = names.volume;
      const volumes = [record, nginx, web, certificates, names.volume.settings(7)];
      await Promise.all(
        volumes.map(async (volume) => {
          await engine.ensureVolume(project, volume, 'data');
          await engine.putFiles(project, volume, [{ path: 'a', content: volume }]);
        }),
      );
      for (const volume of volumes) {
        expect(text(await engine.readFiles(project, volume, ''))).toEqual({ a: volume });
      }
    });

    it('a folder is read through a link to it', async () => {
      const volume = names.volume.certificates;
      await engine.ensureVolume(project, volume, 'data');
      await engine.putFiles(project, volume, [
        { path: 'versions/2/key.pem', content: 'key', mode: 0o400, uid: 101 },
        { path: 'current', content: '', linkTo: 'versions/2' },
      ]);
      expect(text(await engine.readFiles(project, volume, 'current'))).toEqual({ 'key.pem': 'key' });
    });

    it('a container sees the files of its volume', async () => {
      const volume = names.volume.settings(7);
      await engine.ensureVolume(project, volume, 'settings');
      await engine.putFiles(project, volume, [
        { path: 'settings.json', content: '{}', mode: 0o400, uid: 10001 },
      ]);
      const mounts = [{ volume, path: '/run/gameops', readOnly: true }];
      await engine.ensureContainer(idle(names.proxy, { mounts, user: '10001' }));
      const { stdout } = await engine.exec(project, names.proxy, ['cat', '/run/gameops/settings.json']);
      expect(stdout).toBe('{}');
    });

    it('a folder that is put into a volume is not read back as a file', async () => {
      const volume = names.volume.record;
      await engine.ensureVolume(project, volume, 'record');
      await engine.putFiles(project, volume, [
        { path: 'all', content: '', mode: 0o1777, isFolder: true },
        { path: 'all/a', content: 'a' },
      ]);
      expect(text(await engine.readFiles(project, volume, ''))).toEqual({ 'all/a': 'a' });
    });

    it('a volume is removed although files were put into it', async () => {
      for (const volume of [names.volume.record, names.volume.settings(7)]) {
        await engine.ensureVolume(project, volume, 'record');
        await engine.putFiles(project, volume, [{ path: 'a', content: 'a' }]);
        await engine.removeVolume(project, volume);
      }
      expect(await engine.volumes(project)).toEqual([]);
    });
  });

  describe('programs', () => {
    it('pipe passes bytes in and out unchanged, and returns the exit code', async () => {
      await engine.ensureContainer(idle(names.proxy));
      const sent = Buffer.alloc(300_000, 'every byte from here to there \u0000\u0001\r\n ');
      const got: Uint8Array[] = [];
      const cat = await engine.pipe(project, names.proxy, ['cat'], {
        input: (async function* () {
          for (let at = 0; at < sent.length; at += 70_001) yield sent.subarray(at, at + 70_001);
        })(),
        output: (bytes) => void got.push(bytes),
      });
      expect(cat).toEqual({ exitCode: 0, stderr: '' });
      expect(Buffer.concat(got).equals(sent)).toBe(true);
      expect(await engine.pipe(project, names.proxy, ['false'], {})).toEqual({ exitCode: 1, stderr: '' });
    });

    it('pipe throws the error with which its reader or writer failed', async () => {
      await engine.ensureContainer(idle(names.proxy));
      const full = async () => {
        throw new OpsError('DISK_TOO_FULL', { message: 'full', next: ['make room'] });
      };
      const echo = engine.pipe(project, names.proxy, ['echo', 'hi'], { output: full });
      await expect(echo).rejects.toMatchObject({ code: 'DISK_TOO_FULL' });
    });

    it('a held container exists until it is released', async () => {
      const held = await engine.hold(idle(`${project}-tools`, { role: 'tools' }));
      expect((await seen(`${project}-tools`))?.state).toBe('running');
      await held.release();
      expect(await seen(`${project}-tools`)).toBeUndefined();
    });

    it('exec returns output and exit code, also for a program that does not exist', async () => {
      await engine.ensureContainer(idle(names.proxy));
      expect(await engine.exec(project, names.proxy, ['echo', 'hi'])).toEqual({
        exitCode: 0,
        stdout: 'hi\n',
        stderr: '',
      });
      expect((await engine.exec(project, names.proxy, ['false'])).exitCode).toBe(1);
      expect([126, 127]).toContain((await engine.exec(project, names.proxy, ['no-such-program'])).exitCode);
      await expect(engine.exec(project, names.redis, ['echo'])).rejects.toMatchObject({
        code: 'ENGINE_FAILED',
      });
    });

    it('a one-off returns its output and leaves no container', async () => {
      const once = (entrypoint: string[]) =>
        idle(`${project}-once`, { role: 'one-off', entrypoint, command: [] });
      expect(await engine.runOnce(once(['echo', 'hi']), 10_000)).toEqual({
        exitCode: 0,
        stdout: 'hi\n',
        stderr: '',
      });
      expect(await engine.runOnce(once(['false']), 10_000)).toMatchObject({ exitCode: 1 });
      const hanging = engine.runOnce(once(['sleep', '1000']), 500);
      await expect(hanging).rejects.toMatchObject({ code: 'STEP_TIMED_OUT' });
      expect(await engine.observe(project)).toEqual([]);
    });

    it('the last lines of a log come oldest first', async () => {
      const talk = ['sh', '-c', 'echo one; echo two; echo three; sleep 1000'];
      await engine.ensureContainer(idle(names.proxy, { entrypoint: talk, command: [] }));
      for (let tries = 0; tries < 600 && (await engine.logTail(project, names.proxy, 3)).length < 3; ) {
        tries += 1;
        await body.pass(50);
      }
      expect(await engine.logTail(project, names.proxy, 2)).toEqual(['two', 'three']);
    });
  });

  describe('the lock', () => {
    it('is held by one process, names its holder to the next process, and is free after release', async () => {
      const lock = await engine.lock(project, body.image, someone);
      expect(await body.other.lockHolder(project)).toEqual(someone);
      const second = body.other.lock(project, body.image, { ...someone, holder: 'bob' });
      await expect(second).rejects.toMatchObject({
        code: 'LOCKED',
        facts: { holder: 'ada', verb: 'deploy' },
      });
      await lock.release();
      await lock.release();
      expect(lock.lost.aborted).toBe(false);
      expect(await engine.lockHolder(project)).toBeNull();
      const again = await body.other.lock(project, body.image, { ...someone, holder: 'bob' });
      expect(await engine.lockHolder(project)).toMatchObject({ holder: 'bob' });
      await again.release();
    });

    it('goes to exactly one of several processes that ask at once', async () => {
      const asked = [engine, body.other, engine, body.other].map((one) =>
        one.lock(project, body.image, someone),
      );
      const answers = await Promise.allSettled(asked);
      const got = answers.filter((one) => one.status === 'fulfilled');
      expect(got).toHaveLength(1);
      await got[0]?.value.release();
    });

    it('tells its holder when it is lost', async () => {
      const lock = await engine.lock(project, body.image, someone);
      await body.other.removeContainer(project, names.lock);
      for (let tries = 0; tries < 600 && !lock.lost.aborted; tries += 1) await body.pass(50);
      expect(lock.lost.reason).toMatchObject({ code: 'LOCK_LOST' });
    });
  });
}

export async function removeAll(engine: Engine, project: string): Promise<void> {
  for (const { name } of await engine.observe(project)) await engine.removeContainer(project, name);
  for (const volume of await engine.volumes(project)) await engine.removeVolume(project, volume);
  await engine.removeNetwork(project);
}
