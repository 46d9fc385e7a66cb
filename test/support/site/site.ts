/**
 * A project that only one test file uses, operated with the real CLI: a folder with .env and gameops.yaml from `gameops init`,
 * a state folder, one process per command. Promises to leave nothing on the engine: `close` runs `gameops down`, then removes
 * whatever still carries the project's label, which it reports as a failure.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Docker from 'dockerode';
import { parse, stringify } from 'yaml';
import { label } from '../../../src/contract.ts';
import { packageRoot } from '../../../src/package-root.ts';
import type { Step } from '../../../src/release/model.ts';
import type { Event } from '../../../src/report/events.ts';
import { testProject } from '../leftovers.ts';
import { freePort, until } from '../players/game-server.ts';

/** Found by looking upwards, because the soak and the benches run this from a bundle. */
const bin = join(packageRoot(), 'bin', 'gameops.js');

/** The one JSON document on stdout. */
export interface Envelope {
  schema: string;
  command: string;
  ok: boolean;
  // biome-ignore lint/suspicious/noExplicitAny: each verb's own shape; tests read single fields.
  result?: any;
  error?: { code: string; message: string; next: string[]; facts: Record<string, unknown> };
}

export interface Ran {
  /** null: killed by a signal. */
  exitCode: number | null;
  signal: NodeJS.Signals | null;
  /** null: nothing was written, which only a killed process may do. */
  json: Envelope | null;
  events: Event[];
  stdout: string;
  stderr: string;
  ms: number;
}

export interface Running {
  process: ChildProcess;
  ended: Promise<Ran>;
}

/** Called for each event as it arrives, milliseconds after it happened. */
export type OnEvent = (event: Event, child: ChildProcess) => void;

export interface RunOptions {
  onEvent?: OnEvent;
  env?: Record<string, string>;
}

export interface Operator {
  run(args: readonly string[], options?: RunOptions): Promise<Ran>;
  start(args: readonly string[], options?: RunOptions): Running;
  /** This machine's journal so far. */
  journal(): Promise<string>;
}

export interface Site extends Operator {
  project: string;
  folder: string;
  docker: Docker;
  /** Another person at another machine: same files, other HOME and state folder. */
  operator(name: string): Promise<Operator>;
  /** Deep-merges into gameops.yaml. */
  configure(change: Record<string, unknown>): Promise<void>;
  /** Sets or, with null, removes keys of .env. */
  setEnv(change: Record<string, string | null>): Promise<void>;
  env(): Promise<Record<string, string>>;
  /** http://127.0.0.1:<port>/ once something was deployed. */
  url(): Promise<string>;
  containers(): Promise<Docker.ContainerInfo[]>;
  /** Waits until the engine has removed the lock of a process that was killed. */
  unlocked(): Promise<void>;
  /** @throws when the CLI left something behind */
  close(): Promise<void>;
}

export interface SiteRequest {
  replicas?: number;
  name?: string;
  config?: Record<string, unknown>;
}

export async function openSite({ replicas = 2, name = 'deploy', config = {} }: SiteRequest): Promise<Site> {
  const project = testProject(name);
  const folder = await mkdtemp(join(tmpdir(), `${project}-`));
  const docker = new Docker();
  const own = await operatorAt(folder, 'first');
  const configPath = join(folder, 'gameops.yaml');
  const envPath = join(folder, '.env');
  const configure = async (change: Record<string, unknown>) => {
    const before = parse(await readFile(configPath, 'utf8')) as Record<string, unknown>;
    await writeFile(configPath, stringify(merged(before, change)));
  };
  const init = await own.run(['init', '--project', project]);
  if (init.exitCode !== 0) throw new Error(`init ended with ${init.exitCode}: ${init.stdout}${init.stderr}`);
  await configure({
    // Not 0: the sites of other test files would take the port that gameops chose while this one's Nginx is away.
    http: { address: '127.0.0.1', port: await freePort(), tlsPort: await freePort() },
    server: { replicas, memory: '320m' },
    deploy: { drain: '10s' },
  });
  await configure(config);
  const containers = () => labelled(docker, project);
  return {
    ...own,
    project,
    folder,
    docker,
    configure,
    containers,
    operator: (who) => operatorAt(folder, who),
    async setEnv(change) {
      const lines = (await readFile(envPath, 'utf8')).split('\n');
      const kept = lines.filter((line) => !Object.keys(change).some((key) => line.startsWith(`${key}=`)));
      const added = Object.entries(change).flatMap(([key, value]) =>
        value === null ? [] : [`${key}=${value}`],
      );
      await writeFile(envPath, [...kept, ...added, ''].join('\n'));
    },
    async env() {
      const lines = (await readFile(envPath, 'utf8')).split('\n').filter((line) => /^[A-Z]/.test(line));
      return Object.fromEntries(lines.map((line) => [line.split('=')[0], line.slice(line.indexOf('=') + 1)]));
    },
    unlocked: () =>
      until(async () => !(await containers()).some(({ Labels }) => Labels[label.role] === 'lock')),
    async url() {
      const { json } = await own.run(['status']);
      if (typeof json?.result?.url !== 'string') throw new Error(`no url: ${JSON.stringify(json)}`);
      return json.result.url;
    },
    async close() {
      const down = await own.run(['down', '--volumes', '--yes']);
      const left = await removeLabelled(docker, project);
      await rm(folder, { recursive: true, force: true });
      if (down.exitCode !== 0 || left.length > 0) {
        const said = down.json?.error?.message ?? down.stderr;
        throw new Error(
          `down ended with ${down.exitCode} (${said}) and left: ${left.join(', ') || 'nothing'}`,
        );
      }
    },
  };
}

async function operatorAt(folder: string, who: string): Promise<Operator> {
  const home = join(folder, `home-${who}`);
  await mkdir(home, { recursive: true });
  const start = (args: readonly string[], options: RunOptions = {}) => startCli(folder, home, args, options);
  return {
    start,
    run: (args, options) => start(args, options).ended,
    async journal() {
      const { readdir } = await import('node:fs/promises');
      const files = (await readdir(home, { recursive: true })).filter((file) =>
        file.includes('journal.jsonl'),
      );
      return (await Promise.all(files.map((file) => readFile(join(home, file), 'utf8')))).join('');
    },
  };
}

function startCli(folder: string, home: string, args: readonly string[], options: RunOptions): Running {
  const began = performance.now();
  const { PATH = '', DOCKER_HOST } = process.env;
  const env = {
    PATH,
    HOME: home,
    XDG_STATE_HOME: join(home, 'state'),
    ...(DOCKER_HOST ? { DOCKER_HOST } : {}),
    ...options.env,
  };
  // Without the `--`, Node 20 takes --env-file for itself.
  const child = spawn(process.execPath, ['--', bin, ...args, '--json'], {
    cwd: folder,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const events: Event[] = [];
  let stdout = '';
  let stderr = '';
  let partial = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    const lines = (partial + text).split('\n');
    partial = lines.pop() ?? '';
    for (const line of lines) {
      const event = eventIn(line);
      if (event === null) continue;
      events.push(event);
      options.onEvent?.(event, child);
    }
  });
  const ended = new Promise<Ran>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (exitCode, signal) => {
      const ms = Math.round(performance.now() - began);
      resolve({ exitCode, signal, json: documentIn(stdout), events, stdout, stderr, ms });
    });
  });
  return { process: child, ended };
}

function eventIn(line: string): Event | null {
  try {
    return JSON.parse(line) as Event;
  } catch {
    // Not a line of ours, such as a warning of Node's; tests that care read stderr whole.
    return null;
  }
}

function documentIn(text: string): Envelope | null {
  if (text === '') return null;
  const lines = text.trimEnd().split('\n');
  if (lines.length !== 1) throw new Error(`stdout holds ${lines.length} lines, not one document: ${text}`);
  return JSON.parse(text) as Envelope;
}

function merged(before: Record<string, unknown>, change: Record<string, unknown>): Record<string, unknown> {
  const isGroup = (value: unknown): value is Record<string, unknown> =>
    typeof value === 'object' && value !== null && !Array.isArray(value);
  const entries = Object.entries(change).map(([key, value]) => {
    const old = before[key];
    return [key, isGroup(old) && isGroup(value) ? merged(old, value) : value] as const;
  });
  return { ...before, ...Object.fromEntries(entries) };
}

function labelled(docker: Docker, project: string): Promise<Docker.ContainerInfo[]> {
  return docker.listContainers({ all: true, filters: { label: [`${label.project}=${project}`] } });
}

/** @returns names of what was still there */
export async function removeLabelled(docker: Docker, project: string): Promise<string[]> {
  const filters = { label: [`${label.project}=${project}`] };
  const left: string[] = [];
  for (const { Id, Names } of await labelled(docker, project)) {
    left.push(Names[0] ?? Id);
    await docker
      .getContainer(Id)
      .remove({ force: true, v: true })
      .catch(() => undefined);
  }
  for (const { Id, Name } of await docker.listNetworks({ filters })) {
    left.push(Name);
    await docker
      .getNetwork(Id)
      .remove()
      .catch(() => undefined);
  }
  for (const { Name } of (await docker.listVolumes({ filters: JSON.stringify(filters) as never })).Volumes ??
    []) {
    left.push(Name);
    await docker
      .getVolume(Name)
      .remove()
      .catch(() => undefined);
  }
  return left;
}

/** The steps of a run, as they began. */
export function stepsOf({ events }: Pick<Ran, 'events'>): Step[] {
  return events.flatMap((event) => (event.type === 'step-started' ? [event.step] : []));
}
