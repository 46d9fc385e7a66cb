/**
 * The in-memory body of the Engine port, for the crash walk and fast tests. Held by the same contract suite as Docker.
 *
 * Every change of the world is one effect, announced to `onEffect` before it happens: throwing there is dying there.
 * A process that died frees its locks and does nothing more, so `finally` blocks of the dead cannot tidy up.
 */
import { label, namesOf, type Role } from '../../../src/contract.ts';
import { bytesOf, inside } from '../../../src/engine/docker/tar.ts';
import * as failures from '../../../src/engine/failures.ts';
import type {
  ContainerSpec,
  Engine,
  FileEntry,
  FleetFiles,
  FleetPart,
  FleetSpec,
  ImageInfo,
  LockHolder,
  NetworkInfo,
  ObservedContainer,
  PipeRequest,
} from '../../../src/engine/port.ts';
import {
  drainSignal,
  driftBetween,
  fileMounts,
  fleetLabel,
  identityLabels,
  isNameOf,
  isSameFleet,
  labelsOf,
  replicaSpec,
  specLabel,
} from '../../../src/engine/spec.ts';
import {
  divide,
  freeSubnets,
  leaseAddress,
  notReplicas,
  rangeOf,
  toAddress,
} from '../../../src/engine/subnet.ts';
import {
  emptyState,
  filesBelow,
  fixedAddress,
  isRunning,
  type MemoryContainer,
  type MemoryState,
  nextSerial,
  type Program,
  type Programs,
  worldOf,
} from './memory-world.ts';

export type { MemoryContainer, MemoryState, Program, Programs, Self } from './memory-world.ts';
export { fixedAddress } from './memory-world.ts';

export interface MemoryEngineOptions {
  programs?: Programs;
  /** Images on the engine, by reference. */
  images?: Record<string, Partial<ImageInfo>>;
  /** Images that a pull would find, by reference. */
  registry?: Record<string, Partial<ImageInfo>>;
  nowMs?: number;
}

/** One gameops process at work on the engine. */
export interface MemoryProcess {
  engine: Engine;
  /** SIGKILL: its locks are free, its verbs do nothing more. */
  kill(): void;
}

/** Thrown by every verb of a process that is dead. */
export class ProcessDied extends Error {}

export function memoryEngine(options: MemoryEngineOptions = {}) {
  let state = emptyState(options.nowMs ?? Date.UTC(2026, 0, 1));
  const world = worldOf(() => state, options.programs ?? (() => ({}) satisfies Program));
  let processes = 0;
  const lost = new Map<string, AbortController>();
  for (const [ref, fields] of Object.entries(options.images ?? {})) addImage(state.images, ref, fields);
  for (const [ref, fields] of Object.entries(options.registry ?? {})) addImage(state.registry, ref, fields);

  function openProcess(onEffect: (effect: string) => void = () => undefined): MemoryProcess {
    processes += 1;
    const number = processes;
    const life = { dead: false };
    const kill = () => {
      life.dead = true;
      for (const [project, holder] of state.locks) if (holder.process === number) freeLock(state, project);
    };
    /** Dies before the effect when the observer throws; else the effect happens. */
    const effect = (what: string) => {
      if (life.dead) throw new ProcessDied('this process is dead');
      try {
        onEffect(what);
      } catch (error) {
        kill();
        throw error;
      }
    };
    const context: Context = { state: () => state, world, effect, process: number, lost };
    const verbs = {
      ...readVerbs(context),
      ...containerVerbs(context),
      ...fleetVerbs(context),
      ...lockVerbs(context),
    };
    const engine = Object.fromEntries(
      Object.entries({ ...verbs, ...foundationVerbs(context), ...imageVerbs(context) }).map(([verb, act]) => [
        verb,
        async (...args: unknown[]) => {
          if (life.dead) throw new ProcessDied('this process is dead');
          if (!state.isReachable && verb !== 'close') throw failures.engineUnreachable('memory', 'unplugged');
          return (act as (...args: unknown[]) => unknown)(...args);
        },
      ]),
    ) as unknown as Engine;
    return { engine, kill };
  }

  return {
    /** A process that nobody kills. */
    engine: openProcess().engine,
    process: openProcess,
    get state() {
      return state;
    },
    snapshot: () => structuredClone(state),
    restore(snapshot: MemoryState) {
      state = structuredClone(snapshot);
    },
    advance: (ms: number) => world.advance(ms),
    /** A program ends by itself: a crash of the game server. */
    crash: (name: string, exitCode = 1) => {
      const container = state.containers.get(name);
      if (container) world.selfOf(container).exit(exitCode);
    },
    /** The runner's Clock: sleeping lets the world's time pass at once. Sleeps begun together end together. */
    clock: {
      now: () => state.nowMs,
      async sleep(ms: number, signal?: AbortSignal) {
        signal?.throwIfAborted();
        const untilMs = state.nowMs + ms;
        await Promise.resolve();
        world.advance(Math.max(0, untilMs - state.nowMs));
      },
    },
  };
}

export type MemoryEngine = ReturnType<typeof memoryEngine>;

interface Context {
  state: () => MemoryState;
  world: ReturnType<typeof worldOf>;
  effect: (what: string) => void;
  process: number;
  /** Who to tell when a project's lock is lost. */
  lost: Map<string, AbortController>;
}

function addImage(images: Map<string, ImageInfo>, ref: string, fields: Partial<ImageInfo>): ImageInfo {
  const id = `sha256:${Buffer.from(ref).toString('hex').padEnd(64, '0').slice(0, 64)}`;
  const image = { id, labels: {}, user: '', bytes: 1000, repoDigests: [], ...fields };
  images.set(ref, image);
  images.set(image.id, image);
  return image;
}

/** @throws FOREIGN_CONTAINER */
function own<T extends { project: string }>(
  kind: string,
  found: T | undefined,
  name: string,
  project: string,
): T | null {
  if (found === undefined) return null;
  if (found.project !== project) throw failures.foreign(kind, name, project);
  return found;
}

function ownContainer(state: MemoryState, project: string, name: string): MemoryContainer | null {
  const container = state.containers.get(name);
  if (container) own('container', container.spec, name, project);
  return container ?? null;
}

function ownVolume(state: MemoryState, project: string, name: string) {
  return own('volume', state.volumes.get(name), name, project);
}

function observed(state: MemoryState, container: MemoryContainer): ObservedContainer {
  const { id, spec, labels, exitCode, restartCount, health, published } = container;
  // By hand: asked some hundred thousand times by the crash walk.
  return {
    id,
    name: spec.name,
    role: spec.role,
    state: container.state,
    image: state.images.get(spec.image)?.id ?? spec.image,
    address: fixedAddress(container) ?? (isRunning(container) ? container.dynamicAddress : null),
    labels: { ...labels },
    exitCode,
    isOutOfMemory: false,
    restartCount,
    health,
    published: { ...published },
    createdAt: new Date(container.createdAtMs).toISOString(),
  };
}

const networkInfo = (name: string, subnet: string): NetworkInfo => ({
  name,
  subnet,
  notReplicas: notReplicas(divide(subnet)),
});

function readVerbs({ state, world }: Context) {
  const projectsIn = () => [
    ...[...state().containers.values()].map(({ spec }) => spec.project),
    ...[...state().volumes.values(), ...state().networks.values()].map(({ project }) => project),
  ];
  return {
    info: () => ({
      version: 'memory',
      apiVersion: '0',
      platform: 'linux/amd64',
      memoryBytes: 8 * 2 ** 30,
      time: new Date().toISOString(),
      cpus: 2,
      isLocal: true,
      isIsolating: false,
    }),
    observe: (project: string, release?: number) =>
      [...state().containers.values()]
        .filter(({ spec }) => spec.project === project)
        .filter(({ spec }) => release === undefined || spec.labels?.[label.release] === String(release))
        .map((container) => observed(state(), container))
        .sort((a, b) => (a.name < b.name ? -1 : 1)),
    volumes: (project: string) =>
      [...state().volumes]
        .filter(([, volume]) => volume.project === project)
        .map(([name]) => name)
        .sort(),
    network: (project: string) => {
      const name = namesOf(project).network;
      const network = own('network', state().networks.get(name), name, project);
      return network && networkInfo(name, network.subnet);
    },
    mustOwnNames(project: string) {
      const { containers, volumes, networks } = state();
      const kinds = {
        container: [...containers].map(([n, one]) => [n, one.spec] as const),
        volume: volumes,
        network: networks,
      };
      for (const [kind, named] of Object.entries(kinds))
        for (const [name, one] of named) if (isNameOf(project, name)) own(kind, one, name, project);
    },
    projects: () => [...new Set(projectsIn())].filter(Boolean).sort(),
    readFiles(project: string, volume: string, folder: string) {
      return filesBelow(ownVolume(state(), project, volume)?.files ?? new Map(), folder);
    },
    processes(project: string, name: string) {
      const container = ownContainer(state(), project, name);
      if (!container || !isRunning(container)) return [];
      const { entrypoint = [], command = [] } = container.spec;
      const { processes } = world.programs(container.spec);
      if (processes) return processes(world.selfOf(container));
      return [{ pid: 1, command: [...entrypoint, ...command].join(' ') }];
    },
    logTail: (project: string, name: string, lines: number) =>
      (ownContainer(state(), project, name)?.log ?? []).slice(-lines),
    dial(project: string, name: string, containerPort: number) {
      const container = ownContainer(state(), project, name);
      const port = container?.published[containerPort];
      if (!container || !isRunning(container) || port === undefined)
        throw failures.notPublished(name, containerPort);
      return { host: '127.0.0.1', port };
    },
    freeDiskBytes: () => 100 * 2 ** 30,
    close: () => undefined,
  };
}

function imageVerbs({ state, effect }: Context) {
  return {
    image: (ref: string) => structuredClone(state().images.get(ref) ?? null),
    searchImage: (ref: string) =>
      state().images.has(ref) ? { hits: [], envFiles: [], isWhole: true } : null,
    pullImage(ref: string) {
      const found = state().registry.get(ref);
      if (!found) throw failures.imageMissing(ref, 'manifest unknown');
      effect(`pull ${ref}`);
      return structuredClone(addImage(state().images, ref, found));
    },
    buildImage(build: { tag: string; labels: Record<string, string> }) {
      effect(`build ${build.tag}`);
      return structuredClone(
        addImage(state().images, build.tag, { labels: { ...build.labels, [label.role]: 'image' } }),
      );
    },
    importImage(source: { tag: string }) {
      effect(`import ${source.tag}`);
      return structuredClone(addImage(state().images, source.tag, {}));
    },
    removeImage(ref: string) {
      const found = state().images.get(ref);
      if (!found) return true;
      effect(`remove image ${ref}`);
      for (const [key, image] of state().images) if (image.id === found.id) state().images.delete(key);
      return true;
    },
  };
}

function foundationVerbs({ state, effect }: Context) {
  return {
    ensureNetwork(project: string) {
      const name = namesOf(project).network;
      const existing = own('network', state().networks.get(name), name, project);
      if (existing) return networkInfo(name, existing.subnet);
      const [subnet] = freeSubnets(
        project,
        [...state().networks.values()].map((one) => rangeOf(one.subnet)),
      );
      if (subnet === undefined) throw failures.noSubnet(project);
      effect(`create network ${name}`);
      state().networks.set(name, { project, subnet });
      return networkInfo(name, subnet);
    },
    removeNetwork(project: string) {
      const name = namesOf(project).network;
      if (!own('network', state().networks.get(name), name, project)) return;
      const user = [...state().containers.values()].find(
        ({ spec, ...container }) =>
          spec.network !== 'none' && spec.network.name === name && container.state === 'running',
      );
      if (user) throw failures.engineFailed(`network ${name} has active endpoints`);
      effect(`remove network ${name}`);
      state().networks.delete(name);
    },
    ensureVolume(project: string, name: string, role: Role, labels: Record<string, string> = {}) {
      if (ownVolume(state(), project, name)) return;
      effect(`create volume ${name}`);
      state().volumes.set(name, { project, role, labels: labelsOf(project, role, labels), files: new Map() });
    },
    removeVolume(project: string, name: string) {
      if (!ownVolume(state(), project, name)) return;
      const user = [...state().containers.values()].find(({ spec }) =>
        spec.mounts?.some(({ volume }) => volume === name),
      );
      if (user) throw failures.engineFailed(`volume ${name} is in use by ${user.spec.name}`);
      effect(`remove volume ${name}`);
      state().volumes.delete(name);
    },
    putFiles(project: string, volume: string, files: readonly FileEntry[]) {
      const found = ownVolume(state(), project, volume);
      if (!found) throw failures.volumeMissing(volume);
      for (const { path, content, mode = 0o644, uid = 0, gid = 0, linkTo = null, isFolder } of files) {
        if (isFolder) continue;
        effect(`write ${volume}/${path}`);
        const bytes = linkTo === null ? new Uint8Array(bytesOf(content)) : new Uint8Array();
        found.files.set(inside(path), { content: bytes, mode, uid, gid, linkTo });
      }
    },
  };
}

/** Makes a container that does not run yet. @throws IMAGE_NOT_FOUND, FOREIGN_CONTAINER, ENGINE_FAILED */
function create(
  { state, effect }: Context,
  spec: ContainerSpec,
  labels = identityLabels(spec),
): MemoryContainer {
  for (const { volume } of spec.mounts ?? []) {
    if (!ownVolume(state(), spec.project, volume)) throw failures.volumeMissing(volume);
  }
  const image = state().images.get(spec.image);
  if (image === undefined) throw failures.imageMissing(spec.image);
  if (state().containers.has(spec.name)) throw failures.foreign('container', spec.name, spec.project);
  effect(`create ${spec.name}`);
  const container: MemoryContainer = {
    id: String(nextSerial(state())).padStart(64, '0'),
    spec: structuredClone(spec),
    // As Docker does: a container has the labels of its image, too.
    labels: { ...image.labels, ...labels },
    state: 'created',
    exitCode: null,
    restartCount: 0,
    health: 'none',
    published: {},
    dynamicAddress: null,
    createdAtMs: state().nowMs,
    stoppedByHand: false,
    run: 0,
    log: [],
    memory: {},
  };
  state().containers.set(spec.name, container);
  return container;
}

function start({ state, world, effect }: Context, container: MemoryContainer): void {
  if (isRunning(container) || container.state === 'restarting') return;
  const taken = new Set(state().foreignPorts);
  for (const other of state().containers.values()) {
    if (isRunning(other)) for (const port of Object.values(other.published)) taken.add(port);
  }
  const published: Record<number, number> = {};
  for (const { hostPort, containerPort } of container.spec.publish ?? []) {
    let port = hostPort;
    if (port === 0) for (port = 40_000 + nextSerial(state()); taken.has(port); ) port += 1;
    if (taken.has(port)) throw failures.portTaken(port);
    published[containerPort] = port;
  }
  effect(`start ${container.spec.name}`);
  container.published = published;
  container.dynamicAddress = pickAddress(state(), container);
  world.start(container);
}

/** Out of the engine's own share of the network, as Docker does. */
function pickAddress(state: MemoryState, { spec: { network } }: MemoryContainer): string | null {
  const made = network === 'none' || network.address ? undefined : state.networks.get(network.name);
  if (!made) return null;
  const { from, to } = rangeOf(divide(made.subnet).dynamic);
  const taken = new Set([...state.containers.values()].filter(isRunning).map((one) => one.dynamicAddress));
  for (let value = from; value <= to; value += 1) if (!taken.has(toAddress(value))) return toAddress(value);
  throw failures.noAddress(made.subnet);
}

function createAndStart(context: Context, spec: ContainerSpec, labels?: Record<string, string>): void {
  const made = create(context, spec, labels);
  try {
    start(context, made);
  } catch (error) {
    if (failuresOfStart(error)) context.state().containers.delete(spec.name);
    throw error;
  }
}

/** A process that dies between create and start leaves the container; a start that was refused does not. */
const failuresOfStart = (error: unknown) => (error as { code?: string }).code === 'PORT_TAKEN';

function remove({ state, effect, lost }: Context, container: MemoryContainer): void {
  const { name, project } = container.spec;
  effect(`remove ${name}`);
  state().containers.delete(name);
  if (name !== namesOf(project).lock) return;
  state().locks.delete(project);
  lost.get(project)?.abort(failures.lockLost());
}

function containerVerbs(context: Context) {
  const { state, world, effect } = context;
  return {
    ensureContainer(spec: ContainerSpec) {
      const existing = ownContainer(state(), spec.project, spec.name);
      if (existing === null) {
        createAndStart(context, spec);
        return { created: true, drift: [] };
      }
      start(context, existing);
      return { created: false, drift: driftBetween(existing.labels[label.spec] ?? '', specLabel(spec)) };
    },
    removeContainer(project: string, name: string) {
      const container = ownContainer(state(), project, name);
      if (container) remove(context, container);
    },
    exec(project: string, name: string, command: readonly string[]) {
      const container = ownContainer(state(), project, name);
      if (!container) throw failures.engineFailed(`container ${name} does not exist`, { container: name });
      if (!isRunning(container))
        throw failures.engineFailed(`container ${name} is not running`, { container: name });
      effect(`exec ${name}: ${command.join(' ')}`);
      const answer = world.programs(container.spec).onExec?.(world.selfOf(container), command);
      return answer ?? { exitCode: 127, stdout: '', stderr: `${command[0]}: not found` };
    },
    async pipe(project: string, name: string, command: readonly string[], request: PipeRequest) {
      const container = ownContainer(state(), project, name);
      if (!container) throw failures.engineFailed(`container ${name} does not exist`, { container: name });
      request.signal?.throwIfAborted();
      const read: Uint8Array[] = [];
      for await (const bytes of request.input ?? []) read.push(bytes);
      effect(`pipe ${name}: ${command.join(' ')}`);
      const program = world.programs(container.spec).onExec;
      const { stdout, ...answer } = program?.(world.selfOf(container), command, Buffer.concat(read)) ?? {
        exitCode: 127,
        stdout: '',
        stderr: `${command[0]}: not found`,
      };
      if (stdout !== '') await request.output?.(Buffer.from(stdout));
      return answer;
    },
    hold(spec: ContainerSpec) {
      createAndStart(context, spec);
      const release = async () => {
        const held = ownContainer(state(), spec.project, spec.name);
        if (held) remove(context, held);
      };
      return { release };
    },
    runOnce(spec: ContainerSpec, deadlineMs: number) {
      const left = ownContainer(state(), spec.project, spec.name);
      if (left) remove(context, left);
      const made = create(context, spec);
      effect(`start ${spec.name}`);
      made.state = 'running';
      const answer = world.programs(spec).onRun?.(world.selfOf(made)) ?? {
        exitCode: 0,
        stdout: '',
        stderr: '',
      };
      if (answer === 'hangs') world.advance(deadlineMs);
      remove(context, made);
      if (answer === 'hangs') throw failures.timedOut(spec.name, deadlineMs, '');
      return answer;
    },
    signal(project: string, name: string, signal: string) {
      const container = ownContainer(state(), project, name);
      if (!container || !isRunning(container)) return;
      effect(`signal ${name} ${signal}`);
      world.signal(container, signal);
    },
  };
}

function putFleetFiles(context: Context, { project, release }: FleetSpec, { entries }: FleetFiles): void {
  const { ensureVolume, putFiles } = foundationVerbs(context);
  const volume = namesOf(project).volume.settings(release);
  ensureVolume(project, volume, 'settings', { [label.release]: String(release) });
  putFiles(project, volume, entries);
}

function fleetVerbs(context: Context) {
  const { state, world, effect } = context;
  const replicasOf = ({ project, release, replicas }: FleetPart) =>
    replicas
      .map((replica) => ownContainer(state(), project, namesOf(project).game(release, replica)))
      .filter((container) => container !== null);
  const retire = (container: MemoryContainer, keep: 'stopped' | 'nothing', graceMs: number) => {
    if (container.state !== 'created' && container.state !== 'exited') effect(`stop ${container.spec.name}`);
    world.stop(container, graceMs);
    if (keep === 'nothing') remove(context, container);
  };
  return {
    startFleet(fleet: FleetSpec) {
      const network = state().networks.get(namesOf(fleet.project).network);
      if (!network) throw failures.engineFailed(`network ${fleet.network} does not exist`);
      if (fleet.files) putFleetFiles(context, fleet, fleet.files);
      const mounts = fileMounts(fleet);
      const hash = fleetLabel(fleet, mounts);
      const taken = new Set(
        [...state().containers.values()]
          .map(({ labels }) => labels[label.address] ?? '')
          .filter((one) => one !== ''),
      );
      taken.add(divide(network.subnet).gateway);
      for (const replica of fleet.replicas) {
        const existing = ownContainer(
          state(),
          fleet.project,
          namesOf(fleet.project).game(fleet.release, replica),
        );
        if (existing && isSameFleet(existing.labels[label.spec] ?? '', hash)) {
          start(context, existing);
          continue;
        }
        const address = existing?.labels[label.address] ?? leaseAddress(network.subnet, taken);
        if (address === null) throw failures.noAddress(network.subnet);
        taken.add(address);
        if (existing) remove(context, existing);
        const spec = replicaSpec(fleet, replica, address, mounts);
        createAndStart(context, spec, identityLabels(spec, hash));
      }
    },
    fleetFiles: (project: string, release: number) =>
      filesBelow(
        ownVolume(state(), project, namesOf(project).volume.settings(release))?.files ?? new Map(),
        '',
      ),
    beginDrain(fleet: FleetPart) {
      for (const container of replicasOf(fleet).filter(isRunning)) {
        effect(`signal ${container.spec.name} ${drainSignal}`);
        world.signal(container, drainSignal);
      }
    },
    retireFleet(fleet: FleetPart, keep: 'stopped' | 'nothing', graceMs: number) {
      for (const container of replicasOf(fleet)) retire(container, keep, graceMs);
    },
    forgetFleet(project: string, release: number, graceMs: number) {
      const fleet = [...state().containers.values()].filter(
        ({ spec }) => spec.role === 'game' && spec.labels?.[label.release] === String(release),
      );
      const own = fleet.filter(({ spec }) => spec.project === project);
      for (const container of own) retire(container, 'nothing', graceMs);
      const volume = namesOf(project).volume.settings(release);
      foundationVerbs(context).removeVolume(project, volume);
      return [...own.map(({ spec }) => spec.name), volume];
    },
  };
}

function freeLock(state: MemoryState, project: string): void {
  state.locks.delete(project);
  state.containers.delete(namesOf(project).lock);
}

function lockVerbs(context: Context) {
  const { state, effect, process } = context;
  return {
    lock(project: string, image: string, holder: LockHolder) {
      const held = state().locks.get(project);
      if (held) throw failures.locked(project, holderOf(held));
      own('container', state().containers.get(namesOf(project).lock)?.spec, namesOf(project).lock, project);
      effect(`lock ${project}`);
      const spec: ContainerSpec = {
        project,
        name: namesOf(project).lock,
        role: 'lock',
        image,
        network: 'none',
        memoryBytes: 0,
        readOnlyRoot: true,
        restart: 'no',
      };
      create({ ...context, effect: () => undefined }, spec).state = 'running';
      state().locks.set(project, { ...holder, process });
      const lost = new AbortController();
      context.lost.set(project, lost);
      return {
        lost: lost.signal,
        async release() {
          if (state().locks.get(project)?.process !== process || context.lost.get(project) !== lost) return;
          effect(`unlock ${project}`);
          freeLock(state(), project);
        },
      };
    },
    lockHolder(project: string) {
      const held = state().locks.get(project);
      return held ? holderOf(held) : null;
    },
  };
}

function holderOf({ holder, host, verb, since }: LockHolder): LockHolder {
  return { holder, host, verb, since };
}
