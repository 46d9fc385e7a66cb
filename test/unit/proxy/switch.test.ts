/** The switch over the in-memory engine: what a death at any call leaves behind, and what failures put back. */
import { describe, expect, it } from 'vitest';
import { namesOf } from '../../../src/contract.ts';
import type { Engine } from '../../../src/engine/port.ts';
import { proxySpec } from '../../../src/proxy/container.ts';
import type { Door } from '../../../src/proxy/door.ts';
import { ensureFirstGeneration } from '../../../src/proxy/first.ts';
import { pointedGeneration } from '../../../src/proxy/generation.ts';
import { renewGeneration } from '../../../src/proxy/renew.ts';
import { switchTraffic } from '../../../src/proxy/switch.ts';
import { readTraffic } from '../../../src/proxy/traffic.ts';
import { type MemoryEngine, memoryEngine } from '../../support/memory/memory-engine.ts';
import {
  askMemoryNginx,
  type MemoryNginxOptions,
  memoryNginx,
  servedBy,
} from '../../support/memory/memory-nginx.ts';

const project = 'arena';
const names = namesOf(project);
const settings = {
  domain: null,
  passAll: true,
  doorToken: 'a-token-of-some-length',
  subnet: '10.9.0.0/22',
  notReplicas: ['10.9.0.1/32', '10.9.3.0/24'],
  templateDir: null,
};
const targetsOf = (release: number) =>
  [1, 2].map((replica) => ({ release, replica, address: `10.9.0.${release + replica}`, port: 3000 }));

async function serving(release: number, options: MemoryNginxOptions = {}): Promise<MemoryEngine> {
  const memory = memoryEngine({
    images: { nginx: {} },
    programs: ({ role }) => (role === 'proxy' ? memoryNginx(options) : {}),
  });
  await memory.engine.ensureNetwork(project);
  for (const volume of [
    names.volume.nginx,
    names.volume.web,
    names.volume.certificates,
    names.volume.logs,
    names.volume.unixSockets,
  ]) {
    await memory.engine.ensureVolume(project, volume, 'data');
  }
  await ensureFirstGeneration(memory.engine, project, settings);
  const http = { address: '127.0.0.1', port: 8080, tlsPort: 8443 };
  await memory.engine.ensureContainer(proxySpec({ project, image: 'nginx', http, unixSockets: true }));
  await switchTo(memory, memory.engine, release);
  return memory;
}

function outsideOf(memory: MemoryEngine, engine: Engine) {
  const door = {
    ask: async (path: string) => askMemoryNginx(memory.state, project, path),
  } as unknown as Door;
  const clock = { ...memory.clock, bounded: <T>(work: Promise<T>) => work };
  return { engine, door, clock };
}

const switchTo = (memory: MemoryEngine, engine: Engine, release: number) =>
  switchTraffic(outsideOf(memory, engine), {
    ...settings,
    project,
    targets: targetsOf(release),
    backups: [],
    pageRelease: null,
    deadlineMs: 2_000,
  });

const served = (memory: MemoryEngine) =>
  servedBy(memory.state, project)?.routes.map(({ release }) => release);

/** @returns how many effects the switch has, when `dieAt` lies behind the last one. */
async function dieAt(memory: MemoryEngine, n: number): Promise<{ died: boolean; effects: string[] }> {
  const effects: string[] = [];
  const { engine } = memory.process((effect) => {
    effects.push(effect);
    if (effects.length === n) throw new Error('killed');
  });
  const died = await switchTo(memory, engine, 41).then(
    () => false,
    () => true,
  );
  return { died, effects };
}

describe('a switch that dies', () => {
  it('at any call leaves players on one whole release, and the next switch ends settled', async () => {
    let cases = 0;
    for (let n = 1; ; n++) {
      const memory = await serving(40);
      const { died } = await dieAt(memory, n);
      if (!died) break;
      for (let m = 1; ; m++) {
        const again = await serving(40);
        await dieAt(again, n);
        const recovery = await dieAt(again, m);
        cases += 1;
        expect([[40], [41]]).toContainEqual(served(again));
        if (!recovery.died) break;
        await switchTo(again, again.engine, 41);
        expect(served(again)).toEqual([41]);
        expect(await readTraffic(outsideOf(again, again.engine), project)).toMatchObject({
          settled: true,
          routes: [{ release: 41, replicas: [1, 2] }],
        });
      }
    }
    expect(cases).toBeGreaterThan(10);
  });

  it('at any call leaves an Nginx that can start again', async () => {
    for (let n = 1; ; n++) {
      const memory = await serving(40);
      const { died } = await dieAt(memory, n);
      memory.crash(names.proxy);
      memory.advance(1_000);
      expect([[40], [41]]).toContainEqual(served(memory));
      if (!died) break;
    }
  });

  it('between the rename and the HUP is observed as not settled', async () => {
    const memory = await serving(40);
    const { effects } = await dieAt(memory, Number.POSITIVE_INFINITY);
    const again = await serving(40);
    await dieAt(again, effects.findIndex((effect) => effect.startsWith('signal')) + 1);
    expect(await readTraffic(outsideOf(again, again.engine), project)).toMatchObject({
      answering: true,
      settled: false,
      routes: [{ release: 40 }],
    });
  });
});

describe('the proof of a switch', () => {
  const accepting = async ({ engine }: MemoryEngine) =>
    ((await engine.processes(project, names.proxy)) ?? []).filter(({ command }) =>
      command.includes('worker'),
    );

  it('waits until no worker of the former configuration accepts connections', async () => {
    const memory = await serving(40, { acceptsForMs: () => 1_900 });
    const before = await accepting(memory);
    await switchTo(memory, memory.engine, 41);
    const after = await accepting(memory);
    expect({ before: before.length, after: after.length }).toEqual({ before: 1, after: 1 });
    expect(after).not.toEqual(before);
  });

  it('fails when a former worker accepts connections for longer than the deadline, and says so', async () => {
    const acceptsForMs = (config: string) => (config.includes(' # 41/1') ? 60_000 : 100);
    const memory = await serving(40, { acceptsForMs });
    const before = await readTraffic(outsideOf(memory, memory.engine), project);
    await expect(switchTo(memory, memory.engine, 41)).rejects.toMatchObject({
      code: 'SWITCH_NOT_PROVEN',
      message: expect.stringContaining('A worker of Nginx still accepted connections'),
      facts: { previousServed: true },
    });
    expect(await readTraffic(outsideOf(memory, memory.engine), project)).toEqual(before);
  });

  it('takes a second of nothing but new answers where the engine does not list processes', async () => {
    const memory = await serving(40, { isListed: false });
    const began = memory.clock.now();
    await switchTo(memory, memory.engine, 41);
    expect(memory.clock.now() - began).toBeGreaterThanOrEqual(1_000);
  });
});

describe('a switch that fails', () => {
  it('in the test of Nginx itself changes neither pointer nor traffic', async () => {
    const memory = await serving(40, { rejects: (config) => config.includes(' # 41/1') });
    const before = await readTraffic(outsideOf(memory, memory.engine), project);
    await expect(switchTo(memory, memory.engine, 41)).rejects.toMatchObject({
      code: 'PROXY_CONFIG_REJECTED',
    });
    expect(await readTraffic(outsideOf(memory, memory.engine), project)).toEqual(before);
  });

  it('in its proof puts the pointer back, so that a restart of Nginx does not load the failed generation', async () => {
    const memory = await serving(40, { ignoresHup: (config) => config.includes(' # 41/1') });
    await expect(switchTo(memory, memory.engine, 41)).rejects.toMatchObject({
      code: 'SWITCH_NOT_PROVEN',
      facts: { previousServed: true },
    });
    expect(await readTraffic(outsideOf(memory, memory.engine), project)).toMatchObject({ settled: true });
    memory.crash(names.proxy);
    memory.advance(1_000);
    expect(served(memory)).toEqual([40]);
  });
});

describe('a renewal', () => {
  const renew = (memory: MemoryEngine, engine = memory.engine) =>
    renewGeneration(
      outsideOf(memory, engine),
      { ...settings, project, deadlineMs: 2_000, domain: 'today.example' },
      { workers: 7 },
    );
  const config = async ({ engine }: MemoryEngine) => {
    const files = await engine.readFiles(project, names.volume.nginx, '');
    return Buffer.from(files.get('nginx.conf') ?? []).toString();
  };

  it('serves the same routes with other contents, and leaves alone what the release was deployed with', async () => {
    const memory = await serving(40);
    const before = await readTraffic(outsideOf(memory, memory.engine), project);
    const { generation } = await renew(memory);
    expect(generation).toBeGreaterThan(before.generation ?? 0);
    expect(await readTraffic(outsideOf(memory, memory.engine), project)).toEqual({ ...before, generation });
    expect(await config(memory)).toContain('worker_processes 7;');
    expect(await config(memory)).not.toContain('today.example');
    // Renewed again, it keeps what the renewal before has changed.
    await renewGeneration(outsideOf(memory, memory.engine), { ...settings, project, deadlineMs: 2_000 }, {});
    expect(await config(memory)).toContain('worker_processes 7;');
  });

  it('renders what is served, not what a switch that died has left as the pointer', async () => {
    const whole = await serving(40);
    const { effects } = await dieAt(whole, Number.POSITIVE_INFINITY);
    const memory = await serving(40);
    await dieAt(memory, effects.findIndex((effect) => effect.startsWith('signal')) + 1);
    await renew(memory);
    expect(served(memory)).toEqual([40]);
    expect(await readTraffic(outsideOf(memory, memory.engine), project)).toMatchObject({ settled: true });
  });

  it('that dies before any change leaves players where they were', async () => {
    for (let n = 1; ; n++) {
      const memory = await serving(40);
      let count = 0;
      const { engine } = memory.process(() => {
        count += 1;
        if (count === n) throw new Error('killed');
      });
      const died = await renew(memory, engine).then(
        () => false,
        () => true,
      );
      expect(served(memory)).toEqual([40]);
      if (!died) break;
      await renew(memory);
      expect(served(memory)).toEqual([40]);
    }
  });

  it('of a generation that was made for another network is refused', async () => {
    const memory = await serving(40);
    const input = { ...settings, project, deadlineMs: 2_000, subnet: '10.10.0.0/22' };
    const refused = renewGeneration(outsideOf(memory, memory.engine), input, {});
    await expect(refused).rejects.toMatchObject({ code: 'PROXY_NOT_READY' });
  });
});

describe('an Nginx that is made anew', () => {
  it('loads the generation that served before', async () => {
    const memory = await serving(1);
    expect(await ensureFirstGeneration(memory.engine, project, settings)).toBe(false);
  });

  it.each([
    ['network, whose addresses nobody has now', { subnet: '10.10.0.0/22' }],
    ['record, whose token is lost', { doorToken: 'another-token-of-some-length' }],
  ])('never loads a generation that was made for another %s', async (_, change) => {
    const memory = await serving(1);
    expect(await ensureFirstGeneration(memory.engine, project, { ...settings, ...change })).toBe(true);
    const files = await memory.engine.readFiles(project, names.volume.nginx, '');
    expect(pointedGeneration(files)).toMatchObject({ generation: 3, targets: [] });
  });
});
