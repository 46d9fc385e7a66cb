/**
 * The Engine port: all that the rest of gameops may ask of a container engine.
 *
 * Promises of every body (Docker, the in-memory one of the crash walk; later Swarm), held by one contract suite:
 * - `ensure…` and `start…` repeat safely: the same specification again changes nothing.
 * - Removing or stopping what is not there is success.
 * - Nothing here touches an object without our project label; a foreign object under our name is FOREIGN_CONTAINER.
 * - Only `dial` assumes that the engine is on this machine.
 * - An engine that does not answer is ENGINE_UNREACHABLE; an answer we did not expect is ENGINE_FAILED.
 */
import type { Role } from '../contract.ts';

export interface EngineInfo {
  version: string;
  apiVersion: string;
  /** "linux/amd64" */
  platform: string;
  memoryBytes: number;
  cpus: number;
  /** The time on the clock of its machine, ISO 8601. */
  time: string;
  /** True when the engine's loopback is ours (a local socket). */
  isLocal: boolean;
  /** Containers can't share a Unix socket in a volume, because of SELinux or a runtime with kernels of its own. */
  isIsolating: boolean;
}

export interface ImageInfo {
  /** sha256:… */
  id: string;
  labels: Record<string, string>;
  /** `USER` of the image, "" for root. */
  user: string;
  bytes: number;
  /** "ghcr.io/arena/server@sha256:…", one for each repository that it was pulled from or pushed to. */
  repoDigests: string[];
}

/** Which of the wanted texts were found, by their names; never the texts. */
export interface ImageSearch {
  /** `path` in the image; null: in its configuration (environment, labels, build history). */
  hits: { key: string; path: string | null }[];
  /** Files with a name like that of a .env. */
  envFiles: string[];
  /** False when a part could not be searched. */
  isWhole: boolean;
}

export type ContainerState = 'created' | 'running' | 'paused' | 'restarting' | 'exited' | 'dead' | 'removing';

/** A container with the project's label, as the engine has it. */
export interface ObservedContainer {
  id: string;
  name: string;
  role: Role;
  state: ContainerState;
  /** Image id, sha256:… */
  image: string;
  /** On the project's network, as the engine has it. A fixed one also while it does not run; null: it has none. */
  address: string | null;
  labels: Record<string, string>;
  /** null while it runs or was never started. */
  exitCode: number | null;
  /** The system ended it, or one of its processes, because it needed more memory than its limit. */
  isOutOfMemory: boolean;
  restartCount: number;
  health: 'none' | 'starting' | 'healthy' | 'unhealthy';
  /** Loopback or public publications: container port → host port. */
  published: Record<number, number>;
  createdAt: string;
}

export interface VolumeMount {
  volume: string;
  path: string;
  readOnly: boolean;
}

/**
 * One container. Every body always drops all capabilities but `capabilities`, and adds no-new-privileges, an init process, a
 * pid limit, the `local` log driver with a bounded size, and the project's labels.
 */
export interface ContainerSpec {
  project: string;
  name: string;
  role: Role;
  /** Image id or reference; must be on the engine. */
  image: string;
  entrypoint?: readonly string[];
  command?: readonly string[];
  user?: string;
  env?: Readonly<Record<string, string>>;
  labels?: Readonly<Record<string, string>>;
  /** `none`, or the project's network with an optional fixed address and aliases. */
  network: 'none' | { name: string; address?: string; aliases?: readonly string[] };
  mounts?: readonly VolumeMount[];
  /** Paths of small in-memory file systems, mode 1777. */
  tmpfs?: readonly string[];
  publish?: readonly { address: string; hostPort: number; containerPort: number }[];
  health?: {
    command: readonly string[];
    intervalMs: number;
    timeoutMs: number;
    retries: number;
    startMs: number;
  };
  memoryBytes: number;
  cpus?: number;
  /** Limit of open files; bounded by what the engine itself may have. */
  openFiles?: number;
  readOnlyRoot: boolean;
  capabilities?: readonly string[];
  /**
   * `always` for a container that gets signals and must come back: any signal, even a reload, disarms `unless-stopped`
   * (https://github.com/moby/moby/issues/41302). The stop signal disarms both.
   */
  restart: 'no' | 'always' | 'unless-stopped';
  /** Set it for a container that gets signals: without it Docker takes any signal for a stop and disarms the restart policy. */
  stopSignal?: string;
  stopGraceMs?: number;
}

/** All replicas of one release. One template, so a Swarm body can make it one service. */
export interface FleetSpec extends FleetPart {
  image: FleetImage;
  /**
   * Template; the body fills in what is left out, and the labels of each replica. `{replica}` in env values is replaced.
   */
  container: Omit<
    ContainerSpec,
    'project' | 'name' | 'role' | 'image' | 'network' | 'stopSignal' | 'stopGraceMs'
  >;
  network: string;
  /** What every replica can read and no inspection of the engine shows: the body chooses how it gets in. */
  files?: FleetFiles;
  /**
   * How long a replica may take to let its players go. An engine that stops it for reasons of its own (a shutdown, an
   * operator) gives it that long, too.
   */
  drainMs: number;
}

/** Replicas of one release, from 1; `startFleet` wants them running, the other verbs mean them alone. */
export interface FleetPart {
  project: string;
  release: number;
  replicas: readonly number[];
}

export interface FleetImage {
  /** sha256:…, on the engine. */
  id: string;
  /** "ghcr.io/arena/server@sha256:…", by which other machines can have the same; null: it is in no registry. */
  digestRef: string | null;
}

export interface FleetFiles {
  /** In the container, read-only. */
  folder: string;
  /** Paths below it. */
  entries: readonly FileEntry[];
}

export interface FileEntry {
  /** Relative to the target folder; folders are made as needed. */
  path: string;
  content: Uint8Array | string;
  mode?: number;
  uid?: number;
  gid?: number;
  /** When set, a symbolic link to this target and `content` is ignored. */
  linkTo?: string;
  /** A folder of that mode and owner; `content` is ignored. */
  isFolder?: boolean;
}

export interface ExecResult {
  exitCode: number;
  stdout: string;
  stderr: string;
}

export interface ContainerProcess {
  /** As the engine's machine counts: it says which is which, and means nothing inside the container. */
  pid: number;
  /** The command with its arguments, or the title that the program gave itself. */
  command: string;
}

export interface PipeRequest {
  user?: string;
  /** No inspection of the engine shows these, so a password may be among them. */
  env?: Readonly<Record<string, string>>;
  /** What the program reads. Without it the program reads nothing, and gets SIGTERM when this process or its connection ends. */
  input?: AsyncIterable<Uint8Array>;
  /** Awaited, so a slow disk slows the program down. An error that it throws ends the program and is thrown again. */
  output?: (bytes: Uint8Array) => void | Promise<void>;
  signal?: AbortSignal;
}

export interface Piped {
  exitCode: number;
  /** The end of what the program wrote there. */
  stderr: string;
}

export interface Held {
  release(): Promise<void>;
}

export interface NetworkInfo {
  name: string;
  /** CIDR, such as 10.212.4.0/22 */
  subnet: string;
  /** CIDRs inside the subnet where no replica ever is: the host's own address, and everything the engine gives to others. */
  notReplicas: readonly string[];
}

export interface Lock {
  /** Aborts when the lock is lost: the runner stops before its next step. */
  readonly lost: AbortSignal;
  release(): Promise<void>;
}

export interface LockHolder {
  holder: string;
  host: string;
  verb: string;
  /** ISO time */
  since: string;
}

export type Progress = (line: {
  message: string;
  done?: number;
  total?: number;
  /** The work continues, but people should know. */
  isTrouble?: true;
}) => void;

export interface Engine {
  info(): Promise<EngineInfo>;

  // What is there ---------------------------------------------------------------------------------------------
  /** Every container with the project's label, in any state, or those of one release. Chooses nothing. */
  observe(project: string, release?: number): Promise<ObservedContainer[]>;
  /** Names of the project's volumes. */
  volumes(project: string): Promise<string[]>;
  network(project: string): Promise<NetworkInfo | null>;
  /** Looks at every name that the project may come to use. @throws FOREIGN_CONTAINER when somebody else has one */
  mustOwnNames(project: string): Promise<void>;
  /** Names of all projects on this engine. */
  projects(): Promise<string[]>;

  // Images ----------------------------------------------------------------------------------------------------
  image(ref: string): Promise<ImageInfo | null>;
  /**
   * @param signal ends it at once with an AbortError
   * @throws REGISTRY_UNREACHABLE (no answer), REGISTRY_DENIED (access refused), IMAGE_NOT_FOUND (no such image)
   */
  pullImage(ref: string, progress?: Progress, signal?: AbortSignal): Promise<ImageInfo>;
  /** Classic build from an in-memory context. @throws IMAGE_BUILD_FAILED */
  buildImage(
    build: { tag: string; context: readonly FileEntry[]; labels: Record<string, string> },
    progress?: Progress,
  ): Promise<ImageInfo>;
  /** Makes an image from a root file system tar on this machine. `changes` are Dockerfile lines. */
  importImage(
    source: { tag: string; tarPath: string; changes: readonly string[] },
    progress?: Progress,
  ): Promise<ImageInfo>;
  /** @returns false when it stays, because another image is built on it or a container uses it */
  removeImage(ref: string): Promise<boolean>;
  /**
   * Searches the configuration and every layer, also files that a later layer has removed. Null when there is no such image.
   * `signal` ends it with what was found so far.
   * @param needles name → the forms in which its text may appear
   */
  searchImage(
    ref: string,
    needles: ReadonlyMap<string, readonly string[]>,
    signal: AbortSignal,
  ): Promise<ImageSearch | null>;

  // Foundation ------------------------------------------------------------------------------------------------
  /** Picks a free subnet. Replicas get fixed addresses in it, outside of `notReplicas`. @throws NO_FREE_SUBNET */
  ensureNetwork(project: string): Promise<NetworkInfo>;
  ensureVolume(project: string, name: string, role: Role, labels?: Record<string, string>): Promise<void>;
  /** Creates and starts it, or starts a stopped one. `drift` names the fields in which the present one differs; none is applied. */
  ensureContainer(spec: ContainerSpec): Promise<{ created: boolean; drift: string[] }>;
  removeContainer(project: string, name: string): Promise<void>;
  removeVolume(project: string, name: string): Promise<void>;
  removeNetwork(project: string): Promise<void>;

  // Fleets ----------------------------------------------------------------------------------------------------
  /**
   * Ensures that the named replicas run, each at a fixed address of its own, started in parallel. A stopped replica
   * of the same specification is started; one of another specification is made anew; other replicas are left alone.
   */
  startFleet(spec: FleetSpec): Promise<void>;
  /** The files that the fleet was last started with, by path, also while none of it runs. Empty when there are none. */
  fleetFiles(project: string, release: number): Promise<Map<string, Uint8Array>>;
  /**
   * Asks the replicas to let their players go and then to end; returns at once. One that has ended is not started again.
   * @param deadlineMs how long they are waited for: a body that can only stop as a whole gives them that long
   */
  beginDrain(fleet: FleetPart, deadlineMs: number): Promise<void>;
  /** Stops (`graceMs`, then kill) and keeps, or removes. */
  retireFleet(fleet: FleetPart, keep: 'stopped' | 'nothing', graceMs: number): Promise<void>;
  /** Stops and removes every replica, and its files. @returns the names of what was removed, for people */
  forgetFleet(project: string, release: number, graceMs: number): Promise<string[]>;

  // Small verbs -----------------------------------------------------------------------------------------------
  /** Writes into a volume through a carrier: a container that is created, never started. Not atomic, not fsynced. */
  putFiles(project: string, volume: string, files: readonly FileEntry[]): Promise<void>;
  /** Regular files under `folder` ('' for the root of the volume), by relative path. Empty when there is none. */
  readFiles(project: string, volume: string, folder: string): Promise<Map<string, Uint8Array>>;
  /** Runs a program in a running container; no shell. */
  exec(
    project: string,
    name: string,
    command: readonly string[],
    options?: { user?: string },
  ): Promise<ExecResult>;
  /** The same with streams of unchanged bytes, of any length. The container needs `sh` and `cat`. */
  pipe(project: string, name: string, command: readonly string[], request: PipeRequest): Promise<Piped>;
  /**
   * A container to run programs in. It is removed with them when it is released or this process ends, in whatever way.
   * `image` needs `cat`; entrypoint, command, restart and health are ignored.
   */
  hold(spec: ContainerSpec): Promise<Held>;
  /** Runs a program in a container of its own, which is removed afterwards. */
  runOnce(spec: ContainerSpec, deadlineMs: number): Promise<ExecResult>;
  signal(project: string, name: string, signal: 'SIGHUP' | 'SIGTERM' | 'SIGUSR1'): Promise<void>;
  /** Those of a running container; none when it does not run; null when the engine can't list them. */
  processes(project: string, name: string): Promise<ContainerProcess[] | null>;
  /** Last lines of stdout and stderr, oldest first. */
  logTail(project: string, name: string, lines: number): Promise<string[]>;
  /** Where this process reaches a published port. @throws ENGINE_REMOTE when the engine's loopback is not ours */
  dial(project: string, name: string, containerPort: number): Promise<{ host: string; port: number }>;
  /** `image` needs `cat`. @throws LOCKED with the holder's facts */
  lock(project: string, image: string, holder: LockHolder): Promise<Lock>;
  lockHolder(project: string): Promise<LockHolder | null>;
  /** Free bytes where the engine keeps its data, measured from inside a container of `image`. */
  freeDiskBytes(project: string, image: string): Promise<number>;
  close(): Promise<void>;
}
