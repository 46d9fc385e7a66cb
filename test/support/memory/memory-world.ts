/**
 * The world behind the in-memory engine: plain data, a virtual clock and the programs that run in containers.
 * Synchronous and deterministic: nothing happens but by a verb or by advancing the clock. Clones with structuredClone.
 */
import type { Role } from '../../../src/contract.ts';
import type {
  ContainerProcess,
  ContainerSpec,
  ContainerState,
  ExecResult,
  ImageInfo,
  LockHolder,
} from '../../../src/engine/port.ts';

export interface MemoryFile {
  content: Uint8Array;
  mode: number;
  uid: number;
  gid: number;
  linkTo: string | null;
}

export interface MemoryVolume {
  project: string;
  role: Role;
  labels: Record<string, string>;
  /** By path relative to the root of the volume. */
  files: Map<string, MemoryFile>;
}

export interface MemoryContainer {
  id: string;
  spec: ContainerSpec;
  labels: Record<string, string>;
  state: ContainerState;
  exitCode: number | null;
  restartCount: number;
  health: 'none' | 'starting' | 'healthy' | 'unhealthy';
  published: Record<number, number>;
  /** While it runs, for one without a fixed address. */
  dynamicAddress: string | null;
  createdAtMs: number;
  /** A stop disarms the restart policy; so does the stop signal, and with `unless-stopped` any signal. */
  stoppedByHand: boolean;
  /** Rises at every start: timers of an earlier run are void. */
  run: number;
  log: string[];
  /** The program's own memory; empty at every start. Plain data. */
  memory: Record<string, unknown>;
}

export interface MemoryState {
  nowMs: number;
  serial: number;
  images: Map<string, ImageInfo>;
  /** What a pull would find. */
  registry: Map<string, ImageInfo>;
  containers: Map<string, MemoryContainer>;
  volumes: Map<string, MemoryVolume>;
  networks: Map<string, { project: string; subnet: string }>;
  /** By project; `process` is the number of the process that holds it. */
  locks: Map<string, LockHolder & { process: number }>;
  timers: { atMs: number; serial: number; container: string; run: number; name: string }[];
  /** Ports of the host that something outside holds. */
  foreignPorts: Set<number>;
  isReachable: boolean;
}

/** What a program in a container may do. */
export interface Self {
  container: MemoryContainer;
  state: MemoryState;
  nowMs: number;
  exit(code: number): void;
  /** Calls `onTimer(name)` of this run, `ms` later. */
  after(ms: number, name: string): void;
  log(line: string): void;
  /** Through the container's mounts and links; null when there is no such file. */
  read(path: string): Uint8Array | null;
  /** Paths of the regular files below a folder of a mount, relative to it. */
  list(folder: string): string[];
}

/** Everything is optional. The default is `sleep`: runs until a signal ends it. */
export interface Program {
  onStart?(self: Self): void;
  onTimer?(self: Self, name: string): void;
  /** Without it any signal ends the program, as it does a process that handles none. */
  onSignal?(self: Self, signal: string): void;
  /** @param input what was piped in */
  onExec?(self: Self, command: readonly string[], input?: Uint8Array): ExecResult;
  /** Default: one, with the command of its container. null: the engine can't list them. */
  processes?(self: Self): ContainerProcess[] | null;
  /** The whole life of a one-off; 'hangs' meets the deadline. */
  onRun?(self: Self): ExecResult | 'hangs';
}

export type Programs = (spec: ContainerSpec) => Program;

export const restartDelayMs = 100;
const restartTimer = '@restart';
const signalNumbers: Record<string, number> = { SIGHUP: 1, SIGKILL: 9, SIGUSR1: 10, SIGTERM: 15 };

export function emptyState(nowMs: number): MemoryState {
  return {
    nowMs,
    serial: 0,
    images: new Map(),
    registry: new Map(),
    containers: new Map(),
    volumes: new Map(),
    networks: new Map(),
    locks: new Map(),
    timers: [],
    foreignPorts: new Set(),
    isReachable: true,
  };
}

/** The one that was leased to it; null for a container that gets any. */
export const fixedAddress = ({ spec: { network } }: MemoryContainer): string | null =>
  network === 'none' ? null : (network.address ?? null);

export const isRunning = ({ state }: MemoryContainer) => state === 'running';
export const nextSerial = (state: MemoryState) => (state.serial += 1);

/** The verbs of time and of processes over whatever state `current()` is. */
export function worldOf(current: () => MemoryState, programs: Programs) {
  function selfOf(container: MemoryContainer): Self {
    const state = current();
    return {
      container,
      state,
      nowMs: state.nowMs,
      exit: (code) => ended(container, code),
      after: (ms, timer) => addTimer(container, ms, timer),
      log: (line) => container.log.push(line),
      read: (path) => readMounted(state, container.spec, path),
      list: (folder) => listMounted(state, container.spec, folder),
    };
  }

  function addTimer(container: MemoryContainer, ms: number, name: string): void {
    const state = current();
    const { run } = container;
    state.timers.push({
      atMs: state.nowMs + ms,
      serial: nextSerial(state),
      container: container.spec.name,
      run,
      name,
    });
  }

  function start(container: MemoryContainer): void {
    if (isRunning(container)) return;
    Object.assign(container, { state: 'running', exitCode: null, stoppedByHand: false, memory: {} });
    container.run += 1;
    container.health = container.spec.health ? 'healthy' : 'none';
    programs(container.spec).onStart?.(selfOf(container));
  }

  function ended(container: MemoryContainer, code: number): void {
    if (!isRunning(container)) return;
    Object.assign(container, { state: 'exited', exitCode: code, health: 'none' });
    if (container.spec.restart === 'no' || container.stoppedByHand) return;
    container.state = 'restarting';
    addTimer(container, restartDelayMs, restartTimer);
  }

  function signal(container: MemoryContainer, name: string): void {
    if (container.state === 'restarting' && name === 'SIGKILL') Object.assign(container, { state: 'exited' });
    if (!isRunning(container)) return;
    const { stopSignal = 'SIGTERM', restart } = container.spec;
    const disarms = name === stopSignal || name === 'SIGKILL' || restart === 'unless-stopped';
    if (disarms) container.stoppedByHand = true;
    const { onSignal } = programs(container.spec);
    if (onSignal && name !== 'SIGKILL') onSignal(selfOf(container), name);
    else ended(container, 128 + (signalNumbers[name] ?? 15));
  }

  function fire(timer: MemoryState['timers'][number]): void {
    const container = current().containers.get(timer.container);
    if (!container || container.run !== timer.run) return;
    if (timer.name === restartTimer) {
      if (container.state !== 'restarting') return;
      container.restartCount += 1;
      start(container);
    } else if (isRunning(container)) programs(container.spec).onTimer?.(selfOf(container), timer.name);
  }

  /** Lets time pass up to `ms`, or until `enough`. */
  function advance(ms: number, enough: () => boolean = () => false): void {
    const untilMs = current().nowMs + ms;
    while (!enough()) {
      const state = current();
      const due = state.timers
        .filter(({ atMs }) => atMs <= untilMs)
        .sort((a, b) => a.atMs - b.atMs || a.serial - b.serial)[0];
      if (due === undefined) {
        state.nowMs = untilMs;
        return;
      }
      state.timers.splice(state.timers.indexOf(due), 1);
      state.nowMs = Math.max(state.nowMs, due.atMs);
      fire(due);
    }
  }

  function stop(container: MemoryContainer, graceMs: number): void {
    container.stoppedByHand = true;
    if (container.state === 'restarting') container.state = 'exited';
    signal(container, container.spec.stopSignal ?? 'SIGTERM');
    advance(isRunning(container) ? graceMs : 0, () => !isRunning(container));
    if (isRunning(container)) signal(container, 'SIGKILL');
  }

  return { selfOf, start, signal, stop, advance, programs };
}

/** The volume and the path in it that a path of the container means. */
function mountedAt(spec: ContainerSpec, path: string): { volume: string; inside: string } | null {
  const mount = (spec.mounts ?? [])
    .filter((one) => path === one.path || path.startsWith(`${one.path}/`))
    .sort((a, b) => b.path.length - a.path.length)[0];
  return mount ? { volume: mount.volume, inside: path.slice(mount.path.length + 1) } : null;
}

function readMounted(state: MemoryState, spec: ContainerSpec, path: string): Uint8Array | null {
  const at = mountedAt(spec, path);
  const files = at && state.volumes.get(at.volume)?.files;
  return files ? (files.get(followLinks(files, at.inside))?.content ?? null) : null;
}

function listMounted(state: MemoryState, spec: ContainerSpec, folder: string): string[] {
  const at = mountedAt(spec, folder.replace(/\/$/, ''));
  const files = at && state.volumes.get(at.volume)?.files;
  return files ? [...filesBelow(files, at.inside).keys()] : [];
}

/** Regular files below a folder, which may be a link, by relative path. */
export function filesBelow(files: ReadonlyMap<string, MemoryFile>, folder: string): Map<string, Uint8Array> {
  const trimmed = folder.replace(/^\/+|\/+$/g, '');
  const prefix = trimmed === '' ? '' : `${followLinks(files, trimmed)}/`;
  const found = [...files].filter(([path, file]) => path.startsWith(prefix) && file.linkTo === null);
  return new Map(found.map(([path, file]) => [path.slice(prefix.length), file.content]));
}

/** Resolves relative links of any part of the path, inside one volume. */
function followLinks(files: ReadonlyMap<string, MemoryFile>, path: string, depth = 0): string {
  let at = '';
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  for (const [index, part] of parts.entries()) {
    const link = files.get(at === '' ? part : `${at}/${part}`)?.linkTo;
    if (link && depth < 16) {
      const target = [at, link, ...parts.slice(index + 1)].filter(Boolean).join('/');
      return followLinks(files, target.replace(/[^/]+\/\.\.\//g, ''), depth + 1);
    }
    at = at === '' ? part : `${at}/${part}`;
  }
  return at;
}
