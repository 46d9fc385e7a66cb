/** The switch on real parts: a Docker Engine, Nginx of the test image, and a game server of thirty lines. */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, type IncomingMessage, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { realClock } from '../../../src/clock.ts';
import { doorHeader, namesOf, port } from '../../../src/contract.ts';
import { dockerEngine } from '../../../src/engine/docker/engine.ts';
import type { Engine, NetworkInfo } from '../../../src/engine/port.ts';
import { proxySpec } from '../../../src/proxy/container.ts';
import type { Door } from '../../../src/proxy/door.ts';
import { openDoor } from '../../../src/proxy/door.ts';
import { ensureFirstGeneration } from '../../../src/proxy/first.ts';
import { publishPage } from '../../../src/proxy/page.ts';
import { renewGeneration } from '../../../src/proxy/renew.ts';
import { type SwitchInput, switchTraffic } from '../../../src/proxy/switch.ts';
import { loadTemplates } from '../../../src/proxy/templates.ts';
import { askGeneration, readTraffic } from '../../../src/proxy/traffic.ts';
import { testProject } from '../../support/leftovers.ts';
import { engineImage } from '../../support/site/engine-image.ts';
import { tinyGame } from '../../support/site/tiny-game.ts';

const [nginxImage, gameImage] = await Promise.all([engineImage('nginx'), engineImage('node')]);
const project = testProject('proxy');
const names = namesOf(project);
const token = randomBytes(24).toString('base64url');

let engine: Engine;
let door: Door;
let network: NetworkInfo;
let urls: { public: string; private: string };
const addresses = new Map<string, string>();

beforeAll(async () => {
  engine = await dockerEngine();
  network = await engine.ensureNetwork(project);
  for (const volume of [names.volume.nginx, names.volume.web, names.volume.certificates, names.volume.logs]) {
    await engine.ensureVolume(project, volume, 'data');
  }
  await ensureFirstGeneration(engine, project, settings());
  await engine.ensureContainer(
    proxySpec({
      project,
      image: nginxImage,
      http: { address: '127.0.0.1', port: 0, tlsPort: 0 },
      unixSockets: false,
    }),
  );
  const at = async (inside: number) => {
    const { host, port: outside } = await engine.dial(project, names.proxy, inside);
    return `http://${host}:${outside}`;
  };
  urls = { public: await at(port.nginxHttp), private: await at(port.nginxPrivate) };
  door = openDoor({ privateUrl: urls.private, publicUrl: urls.public, token });
  // One after the other: addresses are leased by the act that holds the lock.
  await startFleet(1);
  await startFleet(2);
});

afterAll(async () => {
  if (!engine) return;
  for (const container of await engine.observe(project))
    await engine.removeContainer(project, container.name);
  for (const volume of await engine.volumes(project)) await engine.removeVolume(project, volume);
  await engine.removeNetwork(project);
  await engine.close();
});

async function startFleet(release: number): Promise<void> {
  await engine.startFleet({
    project,
    release,
    network: names.network,
    replicas: [1, 2],
    image: { id: gameImage, digestRef: null },
    drainMs: 10_000,
    container: {
      entrypoint: ['node'],
      command: ['-e', tinyGame],
      user: '10001',
      env: { GAMEOPS_RELEASE: String(release), GAMEOPS_REPLICA: '{replica}' },
      memoryBytes: 128 * 1024 ** 2,
      readOnlyRoot: true,
      restart: 'no',
    },
  });
  for (const container of await engine.observe(project)) {
    if (container.role !== 'game') continue;
    addresses.set(
      `${container.labels['gameops.release']}/${container.labels['gameops.replica']}`,
      container.address ?? '',
    );
  }
  for (const replica of [1, 2]) {
    const address = addresses.get(`${release}/${replica}`) ?? '';
    await until(async () => {
      const probe = await door.askReplica({ address, port: 3000 }, '/readyz', 500);
      return probe.ok && probe.answer.status === 200;
    });
  }
}

async function until(isSo: () => Promise<boolean>): Promise<void> {
  while (!(await isSo())) await sleep(50);
}

function settings() {
  return {
    domain: null,
    passAll: false,
    doorToken: token,
    subnet: network.subnet,
    notReplicas: network.notReplicas,
    templateDir: null,
  };
}

function targetsOf(release: number) {
  return [1, 2].map((replica) => ({
    release,
    replica,
    address: addresses.get(`${release}/${replica}`) ?? '',
    port: 3000,
  }));
}

function switchTo(release: number, change: Partial<SwitchInput> = {}) {
  const input = {
    ...settings(),
    project,
    targets: targetsOf(release),
    backups: targetsOf(release === 1 ? 2 : 1),
    pageRelease: null,
    deadlineMs: 600_000,
    ...change,
  };
  return switchTraffic({ engine, door, clock: realClock }, input);
}

const outside = () => ({ engine, door });

function connect(url: string): Promise<WebSocket> {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`${url.replace('http', 'ws')}/ws`, 'gameops.v1');
    socket.once('open', () => resolve(socket)).once('error', reject);
  });
}

const echo = (socket: WebSocket, text: string) =>
  new Promise<string>((resolve, reject) => {
    socket.once('message', (data) => resolve(String(data))).once('close', () => reject(new Error('closed')));
    socket.send(text);
  });

describe('before any release', () => {
  it('answers that it will be back, and says that it serves nothing', async () => {
    const page = await door.askPublic('/', 60_000);
    expect(page).toMatchObject({ ok: true, answer: { status: 503 } });
    expect(await readTraffic(outside(), project)).toEqual({
      answering: true,
      generation: 1,
      routes: [],
      settled: true,
      targets: [],
    });
  });

  it('never writes a first generation over one that is there', async () => {
    expect(await ensureFirstGeneration(engine, project, settings())).toBe(false);
  });
});

describe('a switch', () => {
  it('is over when every fresh connection meets the new release', async () => {
    const { lost } = await switchTo(1);
    expect(lost).toEqual([]);
    const seen = new Set<string>();
    for (let n = 0; n < 20; n++) {
      const answer = await door.askPublic('/api/x', 60_000);
      if (answer.ok) seen.add(answer.answer.servedBy || `nobody, status ${answer.answer.status}`);
    }
    expect([...seen].sort()).toEqual(['1/1', '1/2']);
    const traffic = await readTraffic(outside(), project);
    expect(traffic).toMatchObject({
      answering: true,
      settled: true,
      routes: [{ release: 1, replicas: [1, 2] }],
    });
    expect(traffic.targets).toEqual(targetsOf(1));
  });

  it('is not over while a worker of the former configuration has not heard of it', async () => {
    await switchTo(2);
    // Run as Nginx's own user: the container has no right to signal anybody else's processes.
    const signalWorker = (signal: string) =>
      engine.exec(project, names.proxy, ['sh', '-c', `kill -${signal} ${worker}`]);
    const list = 'grep -lz "^nginx: worker process$" /proc/[0-9]*/cmdline';
    const { stdout } = await engine.exec(project, names.proxy, ['sh', '-c', list]);
    const worker = Number(/\d+/.exec(stdout)?.[0]);
    expect((await signalWorker('STOP')).exitCode).toBe(0);
    let isOver = false;
    const switched = switchTo(1).then(() => (isOver = true));
    await until(async () => (await askGeneration(door, 500))?.routes[0]?.release === 1);
    await sleep(1_000);
    expect(isOver).toBe(false);
    await signalWorker('CONT');
    await switched;
  });

  it('that Nginx rejects never touches traffic', async () => {
    const before = await readTraffic(outside(), project);
    const folder = mkdtempSync(join(tmpdir(), 'gameops-templates-'));
    writeFileSync(join(folder, 'upstream.eta'), 'upstream gameops_game { nonsense on; }\n');
    await expect(switchTo(2, { templateDir: folder })).rejects.toMatchObject({
      code: 'PROXY_CONFIG_REJECTED',
      message: expect.stringContaining('nonsense'),
    });
    rmSync(folder, { recursive: true });
    expect(await readTraffic(outside(), project)).toEqual(before);
  });

  it('that cannot be proven is reverted, with its pointer', async () => {
    const before = await readTraffic(outside(), project);
    const folder = mkdtempSync(join(tmpdir(), 'gameops-templates-'));
    // Passes `nginx -t` and loads, but never says the number that is waited for.
    const shipped = loadTemplates().get('private') ?? '';
    writeFileSync(
      join(folder, 'private.eta'),
      shipped.replace('<%= it.answer %>', '{"generation":999,"routes":[]}'),
    );
    await expect(switchTo(2, { templateDir: folder, deadlineMs: 1_000 })).rejects.toMatchObject({
      code: 'SWITCH_NOT_PROVEN',
      facts: { previousServed: true },
    });
    rmSync(folder, { recursive: true });
    expect(await readTraffic(outside(), project)).toEqual(before);
  });

  it('under saturating kept-alive clients loses nothing', async () => {
    const load = saturate(urls.public, 32);
    await sleep(500);
    const rounds = Number(process.env.GAMEOPS_TEST_SWITCHES ?? 8);
    const took: number[] = [];
    for (let n = 0; n < rounds; n++) {
      const began = performance.now();
      await switchTo(n % 2 === 0 ? 2 : 1);
      took.push(performance.now() - began);
      await sleep(300);
    }
    const seen = await load.stop();
    took.sort((a, b) => a - b);
    console.log(
      `${rounds} switches: ${seen.sent} requests, ${seen.failures.length} failed, longest time without an answer ${Math.round(seen.longestGapMs)} ms, p99 ${Math.round(seen.p99Ms)} ms, switch median ${Math.round(took[rounds >> 1] ?? 0)} ms, worst ${Math.round(took.at(-1) ?? 0)} ms`,
    );
    expect(seen.failures).toEqual([]);
  });

  it('leaves a player of an old generation on their socket', async () => {
    await switchTo(1);
    const socket = await connect(urls.public);
    await switchTo(2);
    await switchTo(1);
    expect(await echo(socket, '{"t":"still here"}')).toBe('{"t":"still here"}');
    socket.close();
  });

  it('keeps players and routes when its generation is rendered again with other contents', async () => {
    await switchTo(1);
    const socket = await connect(urls.public);
    const before = await readTraffic(outside(), project);
    const input = { ...settings(), project, deadlineMs: 10_000 };
    const { generation } = await renewGeneration({ ...outside(), clock: realClock }, input, { workers: 3 });
    expect(await readTraffic(outside(), project)).toEqual({ ...before, generation });
    const files = await engine.readFiles(project, names.volume.nginx, '');
    expect(Buffer.from(files.get('nginx.conf') ?? []).toString()).toContain('worker_processes 3;');
    expect(await echo(socket, '{"t":"still here"}')).toBe('{"t":"still here"}');
    socket.close();
  });

  it('keeps the last generations and removes the older ones', async () => {
    for (let n = 0; n < 12; n++) await switchTo(1);
    const { generation } = await readTraffic(outside(), project);
    const files = await engine.readFiles(project, names.volume.nginx, '');
    const tops = [...new Set([...files.keys()].map((path) => path.split('/')[0] ?? ''))];
    const kept = tops.filter((name) => name.startsWith('g-')).map((name) => Number(name.slice(2)));
    expect(Math.max(...kept)).toBe(generation);
    expect(kept.length).toBeGreaterThanOrEqual(5);
    expect(kept.length).toBeLessThanOrEqual(10);
    expect(tops.filter((name) => name.startsWith('next-'))).toEqual([]);
  });

  it('to a fleet of which one replica is killed later still answers every request that may be repeated', async () => {
    await switchTo(1);
    const load = saturate(urls.public, 32, ['GET']);
    await sleep(500);
    await engine.retireFleet({ project, release: 1, replicas: [2] }, 'stopped', 0);
    await sleep(3_000);
    const without = await load.stop();
    await startFleet(1);
    console.log(
      `a killed replica: ${without.sent} requests, ${without.failures.length} failed, longest time without an answer ${Math.round(without.longestGapMs)} ms, p99 ${Math.round(without.p99Ms)} ms`,
    );
    expect(without.failures).toEqual([]);
  });

  it('sends players to the former fleet when the new one is dead at once', async () => {
    await switchTo(1, { targets: [{ ...targetsOf(1)[0], port: 3999 } as never], backups: targetsOf(2) });
    const answer = await door.askPublic('/api/x', 60_000);
    expect(answer).toMatchObject({ ok: true, answer: { status: 200 } });
    expect(await door.joinPublic('any', 60_000)).toMatchObject({ ok: true });
    await switchTo(1);
  });
});

describe('the public side', () => {
  it('refuses hosts other than the domain', async () => {
    await switchTo(1, { domain: 'play.example.com' });
    const named = openDoor({
      privateUrl: urls.private,
      publicUrl: urls.public,
      token,
      host: 'play.example.com',
    });
    expect(await door.askPublic('/api/x', 60_000)).toMatchObject({ answer: { status: 421 } });
    expect(await named.askPublic('/api/x', 60_000)).toMatchObject({
      answer: { status: 200, servedBy: '1/1' },
    });
    expect(await named.joinPublic('any', 60_000)).toMatchObject({ ok: true });
    await switchTo(1);
  });

  it('serves the page of the release, and old assets to pages that are still open', async () => {
    const file = (path: string, text: string) => ({ path, content: Buffer.from(text) });
    await publishPage(engine, project, { id: 1, page: 'one' }, [
      file('index.html', 'one'),
      file('assets/a-1111.js', 'let one = 1;'),
    ]);
    await publishPage(engine, project, { id: 2, page: 'two' }, [
      file('index.html', 'two'),
      file('assets/a-2222.js', 'let two = 2;'),
    ]);
    await switchTo(2, { pageRelease: 2 });
    // A connection that was kept from before the switch is answered by its old worker for up to five seconds.
    await until(async () => (await (await fetch(`${urls.public}/`)).text()) === 'two');
    const page = await fetch(`${urls.public}/`);
    expect(await page.text()).toBe('two');
    expect(page.headers.get('cache-control')).toBe('no-cache');
    expect(page.headers.get('content-security-policy')).toContain("frame-ancestors 'none'");
    expect(page.headers.get('x-content-type-options')).toBe('nosniff');
    const old = await fetch(`${urls.public}/assets/a-1111.js`);
    expect(await old.text()).toBe('let one = 1;');
    expect(old.headers.get('cache-control')).toContain('immutable');
    expect(old.headers.get('content-type')).toContain('javascript');
    expect((await fetch(`${urls.public}/assets/none.js`)).status).toBe(404);
    const api = await (
      await fetch(`${urls.public}/api/x?y=1`, { headers: { 'x-forwarded-for': '6.6.6.6' } })
    ).json();
    expect(api).toMatchObject({ url: '/api/x?y=1' });
    expect(JSON.stringify(api)).not.toContain('6.6.6.6');
    await switchTo(1);
  });
});

describe('the private side', () => {
  it('answers nobody without the header', async () => {
    for (const path of ['/generation', '/status', `/replica/${addresses.get('1/1')}/3000/readyz`]) {
      expect((await fetch(urls.private + path)).status).toBe(404);
      const wrongCase = token.toUpperCase() === token ? token.toLowerCase() : token.toUpperCase();
      expect((await fetch(urls.private + path, { headers: { [doorHeader]: wrongCase } })).status).toBe(404);
    }
    expect(await door.ask('/status', 2_000)).toMatchObject({ answer: { status: 200 } });
  });

  it('reaches a replica over HTTP and WebSocket, and nothing else in or outside the network', async () => {
    const address = addresses.get('2/2') ?? '';
    expect(await door.askReplica({ address, port: 3000 }, '/readyz', 60_000)).toMatchObject({
      answer: { status: 200, body: 'ready', servedBy: '2/2' },
    });
    expect(await door.joinReplica({ address, port: 3000 }, 'any', 60_000)).toEqual({
      ok: true,
      servedBy: '2/2',
    });
    const gateway = network.subnet.replace(/\d+\/\d+$/, '1');
    // Where the engine puts Postgres, Redis and Nginx itself.
    const nginx = (await engine.exec(project, namesOf(project).proxy, ['hostname', '-i'])).stdout.trim();
    expect(nginx).toMatch(/^10\./);
    for (const foreign of ['127.0.0.1', '10.0.0.1', '8.8.8.8', gateway, nginx, '0.0.0.0', '1', '999.1.1.1']) {
      expect(await door.askReplica({ address: foreign, port: 8081 }, '/status', 2_000)).toMatchObject({
        answer: { status: 404 },
      });
      expect(await door.joinReplica({ address: foreign, port: 8081 }, 'any', 2_000)).toMatchObject({
        ok: false,
      });
    }
  });

  it('reports an Nginx that does not listen as an answer, not as an error', async () => {
    const shut = openDoor({ privateUrl: 'http://127.0.0.1:9', publicUrl: 'http://127.0.0.1:9', token });
    expect(await shut.ask('/generation', 1_000)).toEqual({ ok: false, reason: 'ECONNREFUSED' });
    expect(await shut.joinPublic('any', 1_000)).toEqual({ ok: false, reason: 'ECONNREFUSED' });
    const traffic = await readTraffic({ engine, door: shut }, project);
    expect(traffic).toMatchObject({
      answering: false,
      settled: false,
      routes: [{ release: 1, replicas: [1, 2] }],
    });
  });
});

describe('the access log', () => {
  it('is one valid JSON object a line, with retries, sockets, static files and hostile clients', async () => {
    await fetch(`${urls.public}/api/x?q=%22%5C%0a`, { headers: { 'user-agent': '"\\\t quote' } });
    await fetch(`${urls.public}/api/die`);
    await fetch(`${urls.public}/${'x'.repeat(4_000)}`, { headers: { 'user-agent': '"'.repeat(3_000) } });
    await door.joinPublic('any', 60_000);
    const load = saturate(urls.public, 16);
    await sleep(1_000);
    await load.stop();
    await sleep(1_500);
    const lines = (await engine.logTail(project, names.proxy, 50_000)).filter(
      (line) => !/^\d{4}\//.test(line),
    );
    const entries = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(entries.length).toBeGreaterThan(500);
    expect(entries.some((entry) => entry.websocket === true && entry.status === 101)).toBe(true);
    expect(entries.some((entry) => String(entry.upstreamStatus).includes(', '))).toBe(true);
    expect(lines.every((line) => line.length < 4_096)).toBe(true);
    expect(JSON.stringify(entries)).not.toContain(token);
  });
});

/** Clients that ask again the moment they are answered, each on a kept-alive connection of its own. */
function saturate(url: string, clients: number, methods = ['GET', 'POST']) {
  const failures: string[] = [];
  const times: number[] = [];
  let running = true;
  let last = performance.now();
  let longestGapMs = 0;
  const work = Array.from({ length: clients }, async (_, n) => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    while (running) {
      const began = performance.now();
      const failure = await ask(`${url}/api/${n}`, methods[n % methods.length] ?? 'GET', agent);
      const now = performance.now();
      if (failure) failures.push(failure);
      else {
        longestGapMs = Math.max(longestGapMs, now - last);
        last = now;
      }
      times.push(now - began);
    }
    agent.destroy();
  });
  return {
    async stop() {
      running = false;
      await Promise.all(work);
      times.sort((a, b) => a - b);
      return {
        sent: times.length,
        failures,
        longestGapMs,
        p99Ms: times[Math.floor(times.length * 0.99)] ?? 0,
      };
    },
  };
}

function ask(url: string, method: string, agent: Agent): Promise<string | null> {
  return new Promise((resolve) => {
    const sent = request(url, { method, agent }, (response: IncomingMessage) => {
      response.on('error', (error) => resolve(error.message));
      response
        .resume()
        .on('end', () => resolve(response.statusCode === 200 ? null : `${method} ${response.statusCode}`));
    });
    sent.on('error', (error: NodeJS.ErrnoException) => resolve(`${method} ${error.code}`));
    sent.end(method === 'POST' ? '{"n":1}' : undefined);
  });
}
