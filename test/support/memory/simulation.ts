/**
 * A project in memory: the real planners, runner, record and switch over the in-memory engine, with an Nginx and game
 * servers that behave as far as these talk to them. The crash walk lets processes die in it.
 */
import { identityEnv, label, namesOf } from '../../../src/contract.ts';
import type { Engine } from '../../../src/engine/port.ts';
import { proxySpec } from '../../../src/proxy/container.ts';
import type { Answer, Door, JoinAnswer } from '../../../src/proxy/door.ts';
import { ensureFirstGeneration } from '../../../src/proxy/first.ts';
import type { Reach, Target } from '../../../src/proxy/generation.ts';
import { newRecord, readRecord, writeRecord } from '../../../src/record/record.ts';
import type { Intent, Plan, ReleaseStep, SchemaWish, SchemaWork } from '../../../src/release/model.ts';
import type { RunningAct } from '../../../src/runner/act.ts';
import { observe } from '../../../src/runner/observe.ts';
import type { Outside } from '../../../src/runner/outside.ts';
import { runPlan } from '../../../src/runner/run.ts';
import {
  fixedAddress,
  type MemoryContainer,
  type MemoryEngine,
  type MemoryState,
  memoryEngine,
  type Program,
} from './memory-engine.ts';
import { askMemoryNginx, memoryNginx, servedBy } from './memory-nginx.ts';

export const project = 'arena';
const names = namesOf(project);
/** A schema in a volume of the memory: what processes die before is every change of it. */
const schemaVolume = `${project}-schema`;
const readyAfterMs = 300;
const drainTakesMs = 400;

/** What an image does, by the part of its reference behind the colon. */
export type Behaviour = 'good' | 'exits' | 'never-ready' | 'no-join' | 'crashes-later';

const proxyBase = { domain: null, doorToken: 'a-token-of-some-length', templateDir: null };

function gameServer(behaviour: Behaviour): Program {
  return {
    onStart(self) {
      if (behaviour === 'exits') {
        self.log('cannot read the settings');
        self.exit(1);
      } else if (behaviour !== 'never-ready') self.after(readyAfterMs, 'ready');
    },
    onTimer(self, name) {
      if (name === 'ready') {
        self.container.memory.ready = true;
        if (behaviour === 'crashes-later') self.after(1_500, 'crash');
      }
      if (name === 'crash') self.exit(139);
      if (name === 'gone') self.exit(0);
    },
    onSignal(self) {
      self.container.memory.draining = true;
      self.after(drainTakesMs, 'gone');
    },
  };
}

/** What an image states that listens on a Unix socket. */
const stated = { labels: { [label.unixSocket]: '1' } };

export async function simulation(behaviours: Record<string, Behaviour> = {}): Promise<MemoryEngine> {
  const memory = memoryEngine({
    images: { nginx: {}, ...Object.fromEntries(Object.keys(behaviours).map((ref) => [ref, stated])) },
    programs: ({ role, image }) => {
      if (role === 'proxy') return memoryNginx();
      return role === 'game' ? gameServer(behaviours[image] ?? 'good') : {};
    },
  });
  const { engine } = memory;
  const { volume } = names;
  const volumes = [
    volume.record,
    volume.nginx,
    volume.web,
    volume.certificates,
    volume.logs,
    volume.unixSockets,
    schemaVolume,
  ];
  for (const name of volumes) {
    await engine.ensureVolume(project, name, 'data');
  }
  const network = await engine.ensureNetwork(project);
  await ensureFirstGeneration(engine, project, { ...proxyBase, ...network, passAll: true });
  await startNginx(memory, { unixSockets: true });
  await writeRecord(engine, { ...newRecord(project), doorToken: proxyBase.doorToken }, {});
  return memory;
}

export async function startNginx(
  { engine }: MemoryEngine,
  { unixSockets }: { unixSockets: boolean },
): Promise<void> {
  const http = { address: '127.0.0.1', port: 8080, tlsPort: 8443 };
  await engine.ensureContainer(proxySpec({ project, image: 'nginx', http, unixSockets }));
}

export const gameContainers = (state: MemoryState) =>
  [...state.containers.values()].filter((container) => container.spec.role === 'game');

export function containerAt(state: MemoryState, address: string): MemoryContainer | undefined {
  return gameContainers(state).find((container) => fixedAddress(container) === address);
}

/** Whom Nginx meets there: at a socket only who listens on it, in a volume that Nginx has, too. */
export function reachedAt(state: MemoryState, { address, unixSocket }: Reach): MemoryContainer | undefined {
  if (!unixSocket) return containerAt(state, address);
  const mounts = ({ spec }: MemoryContainer) =>
    spec.mounts?.some(({ volume }) => volume === names.volume.unixSockets);
  const proxy = state.containers.get(names.proxy);
  return gameContainers(state).find(
    (one) =>
      one.spec.env?.[identityEnv.unixSocket] === unixSocket &&
      mounts(one) &&
      proxy !== undefined &&
      mounts(proxy),
  );
}

/** Would a player's request be answered by this replica? */
export function answers(container: MemoryContainer | undefined): boolean {
  return container?.state === 'running' && container.memory.ready === true;
}

export const servedTargets = (state: MemoryState): Target[] => servedBy(state, project)?.targets ?? [];

function doorOf(
  memory: MemoryEngine,
  behaviours: Record<string, Behaviour>,
  domainToday: string | null,
): Door {
  const ok: Answer = { ok: true, answer: { status: 200, body: '{}', servedBy: '' } };
  const bad: Answer = { ok: true, answer: { status: 503, body: '', servedBy: '' } };
  const refused = { ok: false as const, reason: 'ECONNREFUSED' };
  // As the bundled server: it answers to its last request, and is not ready for more.
  const isReady = (container: MemoryContainer | undefined) =>
    answers(container) && container?.memory.draining !== true;
  const joins = (container: MemoryContainer | undefined): JoinAnswer =>
    isReady(container) && behaviours[container?.spec.image ?? ''] !== 'no-join'
      ? { ok: true, servedBy: '' }
      : refused;
  const misdirected: Answer = { ok: true, answer: { status: 421, body: '', servedBy: '' } };
  const isNamed = (domain: string | null) => {
    const served = servedBy(memory.state, project)?.contents?.domain ?? null;
    return served === null || served === domain;
  };
  const publicReplicas = () => servedTargets(memory.state).map((target) => reachedAt(memory.state, target));
  return {
    ask: async (path) => askMemoryNginx(memory.state, project, path),
    askReplica: async (at) => {
      const container = reachedAt(memory.state, at);
      return container?.state === 'running' ? (isReady(container) ? ok : bad) : refused;
    },
    joinReplica: async (at) => joins(reachedAt(memory.state, at)),
    async askPublic(_path, _timeoutMs, domain = domainToday) {
      if (!isNamed(domain)) return misdirected;
      return publicReplicas().length > 0 && publicReplicas().every(answers) ? ok : bad;
    },
    async joinPublic(_token, _timeoutMs, domain = domainToday) {
      const lacking = publicReplicas()
        .map(joins)
        .find((one) => !one.ok);
      if (!isNamed(domain)) return { ok: false, reason: 'HTTP 421' };
      return lacking ?? { ok: true, servedBy: '' };
    },
  };
}

export interface Verb {
  /** What gameops.yaml says to Nginx when it is run. */
  proxy?: Partial<RunningAct['proxy']>;
  /** What the folder beside the image holds. */
  migrations?: string[];
  /** What a fresh process plans from what it observes. */
  plan(
    act: RunningAct,
    world: Awaited<ReturnType<typeof observe>>['world'],
  ): Plan<ReleaseStep> | Promise<Plan<ReleaseStep>>;
}

interface MemorySchema {
  applied: string[];
  backups: number;
  /** Acts that restored, by when they began. */
  restores: string[];
}

export function schemaIn(state: MemoryState): MemorySchema {
  const file = state.volumes.get(schemaVolume)?.files.get('schema.json');
  return file
    ? JSON.parse(Buffer.from(file.content).toString('utf8'))
    : { applied: [], backups: 0, restores: [] };
}

function memorySchema(memory: MemoryEngine, engine: Engine): Outside['database'] {
  const change = async (to: (now: MemorySchema) => object) => {
    const now = schemaIn(memory.state);
    const content = JSON.stringify({ ...now, ...to(now) });
    await engine.putFiles(project, schemaVolume, [{ path: 'schema.json', content, mode: 0o600 }]);
  };
  return {
    async backup({ before }) {
      await change(({ backups }) => ({ backups: backups + 1 }));
      return `backup-${before}`;
    },
    // One by one, as the real one does: each is whole or not at all.
    async migrate(names) {
      for (const name of names)
        await change(({ applied }) => ({ applied: [...new Set([...applied, name])].sort() }));
    },
    async takeBack(names) {
      for (const name of names)
        await change(({ applied }) => ({ applied: applied.filter((one) => one !== name) }));
      return [];
    },
    // To what was before any of the migrations.
    async restore(_backup, begun) {
      await change(({ restores }) => ({ applied: [], restores: [...restores, begun] }));
      return 'arena_before';
    },
  };
}

function workOf({ state }: MemoryEngine, { record }: RunningAct, folder: string[]): SchemaWork {
  const pending = folder.filter((name) => !schemaIn(state).applied.includes(name));
  return { pending, contracts: [], isFilled: true, wish: wishLeft(schemaIn(state), record.intent) };
}

function wishLeft({ applied, restores }: MemorySchema, intent: Intent | null): SchemaWish | null {
  const wish = intent?.schema ?? null;
  if (wish?.kind === 'restore') return restores.includes(intent?.startedAt ?? '') ? null : wish;
  const migrations = wish?.migrations.filter((name) => applied.includes(name)) ?? [];
  return wish === null || migrations.length === 0 ? null : { ...wish, migrations };
}

/** One gameops process: reads, plans, runs. Throws what the verb throws; dies where the engine says so. */
export async function runVerb(
  memory: MemoryEngine,
  engine: Engine,
  behaviours: Record<string, Behaviour>,
  verb: Verb,
): Promise<RunningAct> {
  const outside: Outside = {
    engine,
    door: doorOf(memory, behaviours, verb.proxy?.domain ?? null),
    clock: { ...memory.clock, bounded: (work) => work },
    players: {
      online: async (fleets) => new Map([...fleets.keys()].map((release) => [release, 0])),
      closed: async () => ({ sockets: 0, missing: 0 }),
      order: async () => true,
      handedOver: async () => null,
      close: () => undefined,
    },
    database: memorySchema(memory, engine),
    inputs: { settings: () => ({}), probeToken: () => 'token', page: () => null },
  };
  const lock = await engine.lock(project, 'nginx', { holder: 'ada', host: 'lab', verb: 'walk', since: '' });
  const record = await readRecord(engine, project);
  if (!record) throw new Error('the record is gone');
  const network = await engine.ensureNetwork(project);
  const act: RunningAct = {
    project,
    outside,
    record,
    proxy: { ...proxyBase, ...network, ...verb.proxy },
    emit: () => undefined,
    journal: { write: () => undefined, close: () => undefined },
    signal: new AbortController().signal,
    lockLost: lock.lost,
    interruptedBy: () => null,
    by: 'ada@lab',
    steps: [],
    pages: new Set(),
    schema: { backup: null, applied: [], reverted: [], rescued: [], undo: null },
    probes: { http: { sent: 0, failed: 0 }, ws: { sent: 0, failed: 0 } },
    players: { online: null, moved: null, closed: null, lost: null },
  };
  try {
    const { world } = await observe(outside, record, workOf(memory, act, verb.migrations ?? []));
    await runPlan(act, await verb.plan(act, world));
    return act;
  } finally {
    await lock.release().catch(() => undefined);
  }
}
