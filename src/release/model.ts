/**
 * The words of the release room: what is there (World), what is asked (Intent), what will be done (Plan).
 * PURE: no package, no clock, no I/O. Everything here is plain data that prints, compares and travels as JSON.
 */

/** Rising number, unique in a project. */
export type ReleaseId = number;

export type Strategy = 'blue-green' | 'rolling';

/**
 * candidate: being deployed · live: takes the traffic · superseded: was live, replaced by a deploy ·
 * rolled-back: was live, left by a rollback · failed: its deploy failed · abandoned: its deploy was given up.
 */
export type Verdict = 'candidate' | 'live' | 'superseded' | 'rolled-back' | 'failed' | 'abandoned';

/** What one replica is made of, beside the image. A change here is a new release. */
export interface Shape {
  port: number;
  memoryBytes: number;
  cpus: number;
  probe: string;
  settingsAs: 'file' | 'env';
  user: string | null;
  readOnlyRoot: boolean;
  capabilities: string[];
}

export interface Release {
  id: ReleaseId;
  /** Image id on the engine, sha256:… */
  image: string;
  /** What the operator asked for, such as ghcr.io/arena/server:1.4 */
  imageRef: string;
  /** The same by registry digest, so that it can be had again; null for an image that never was in a registry. */
  digestRef: string | null;
  /** Wire protocol of a server that is ours; null for any other image (gated by /readyz alone). */
  protocol: string | null;
  /** Its server also listens on a Unix socket. */
  unixSocket: boolean;
  /** Hash of the static files that Nginx serves beside it; null: every path goes to the server. */
  page: string | null;
  /** What Nginx is rendered from when it serves this release; null: by a gameops that took what was there at each switch. */
  proxy: ProxyInputs | null;
  replicas: number;
  shape: Shape;
  /** Settings that are no secrets, as the container gets them. */
  plain: Record<string, string>;
  /** Keyed fingerprint of every setting, secrets included: tells which keys changed, never the values. */
  fingerprints: Record<string, string>;
  /** Hash over image, shape and fingerprints; replicas apart. */
  fingerprint: string;
  /** Which schemas its image can run on; null when nobody said. */
  migrations: ImageNeeds | null;
  /** Id of the backup that was taken before its migrations ran; null when none were pending, or nothing was there yet. */
  backup: string | null;
  /** How long its servers may take to let players go. A property of how it is run, so no part of the fingerprint. */
  drainMs: number;
  createdAt: string;
  createdBy: string;
  verdict: Verdict;
  /** Why it failed, was left or given up. */
  reason: string | null;
}

export interface ProxyInputs {
  /** null answers on any name. */
  domain: string | null;
  /** Name of the set of templates, as kept in Nginx's volume. */
  templates: string;
}

/** Names of migrations; null when there are none. */
export interface ImageNeeds {
  /** Newest expand migration: must be applied. Contract ones come later by design, so no image needs them. */
  needs: string | null;
  /** Newest migration of either phase: an image that does not know a contract migration still uses what it removed. */
  knows: string | null;
}

/** The one act under way, kept in the record on the engine until it is closed. `resume` reloads it; never a plan. */
export interface Intent {
  verb: 'deploy' | 'rollback';
  strategy: Strategy;
  release: ReleaseId;
  /** Live when the act began. */
  previous: ReleaseId | null;
  readyMs: number;
  watchMs: number;
  drainMs: number;
  /** Releases kept stopped for rollback, besides the live one. */
  keep: number;
  /** open → committed (point of no return passed) or condemned (backing out). */
  stage: 'open' | 'committed' | 'condemned';
  /** The target as it was, when the act goes back to a release that served: a failed rollback does not make it bad. */
  formerly: Release | null;
  /** A deploy that leaves pending migrations alone. */
  skipMigrations: boolean;
  /** What a rollback does to the schema once the release that is left is gone. */
  schema: SchemaWish | null;
  /** Verdict that a condemned release gets. */
  verdict: 'failed' | 'abandoned';
  reason: string | null;
  startedAt: string;
  by: string;
}

export type SchemaWish =
  /** Newest first. */
  { kind: 'take-back'; migrations: string[]; acceptLoss: boolean } | { kind: 'restore'; backup: string };

export interface Replica {
  n: number;
  running: boolean;
  /** Made from the release's present fingerprint; false → it is made anew before it may run. */
  current: boolean;
}

/** All replicas of one release that exist on the engine, running or kept stopped. */
export interface Fleet {
  release: ReleaseId;
  replicas: Replica[];
  /** Players connected to it; null when nobody could be asked. */
  players: number | null;
}

export interface Route {
  release: ReleaseId;
  replicas: number[];
}

export interface Traffic {
  /** Where Nginx sends players now, read back from it; [] when nothing is served. */
  routes: Route[];
  /** False when what Nginx would load next differs from what it serves (a crash between the two). */
  settled: boolean;
}

/** What is really there, joined from labels, the record and Nginx's own answer. Chooses nothing. */
export interface World {
  releases: Release[];
  fleets: Fleet[];
  traffic: Traffic;
  intent: Intent | null;
  schema: SchemaWork;
}

/** The work on the schema. None without a database of the project, or when the database was not asked. */
export interface SchemaWork {
  /** Names that are not applied and may be now, in order: expand ones, and contract ones that nobody misses. */
  pending: string[];
  /** Those of them that are contract ones. */
  contracts: string[];
  /** The database holds something that a backup could bring back. */
  isFilled: boolean;
  /** Whether the intent's wish for the schema is still to be done; for a way back, what of it. */
  wish: SchemaWish | null;
}

/** prepare: fails → the candidate is retired · switch: fails → traffic goes back · settle: fails → go forward. */
export type Phase = 'prepare' | 'switch' | 'settle';

interface StepBase {
  phase: Phase;
  /** Why this step is in the plan, for people. */
  cause: string;
  deadlineMs: number;
}

export type ReleaseStep = StepBase &
  (
    | { kind: 'open'; release: ReleaseId; intent: Intent; candidate: Release }
    | { kind: 'condemn'; release: ReleaseId; verdict: 'failed' | 'abandoned'; reason: string }
    /** Before migrations; its id goes on record with the release. */
    | { kind: 'backup'; release: ReleaseId }
    | { kind: 'migrate'; release: ReleaseId; migrations: string[] }
    | { kind: 'start-fleet'; release: ReleaseId; replicas: number[] }
    | { kind: 'await-ready'; release: ReleaseId; replicas: number[] }
    | { kind: 'switch-traffic'; routes: Route[]; from: Route[] }
    | { kind: 'watch'; release: ReleaseId; forMs: number }
    /** Old Nginx workers may send their last requests to replicas that new ones no longer know: let them end. */
    | { kind: 'quiesce'; forMs: number }
    | { kind: 'commit'; release: ReleaseId }
    /** `to`: the release that players are handed to; null when there is none, or when one of the two can't. */
    | { kind: 'drain'; release: ReleaseId; replicas: number[]; to: ReleaseId | null }
    | { kind: 'retire'; release: ReleaseId; replicas: number[] }
    /** The schema goes back after the traffic. `release`: the one that was left. */
    | { kind: 'take-back'; release: ReleaseId; migrations: string[]; acceptLoss: boolean }
    | { kind: 'restore'; release: ReleaseId; backup: string }
    | { kind: 'forget'; release: ReleaseId }
    | { kind: 'close'; release: ReleaseId }
  );

/** What must be there before any release can be: planned and run first, because schema and traffic are seen after it. */
export type FoundationStep = StepBase &
  (
    | { kind: 'prepare-images'; images: string[] }
    | { kind: 'build-image'; image: string }
    | { kind: 'make-network' }
    | { kind: 'start-accessories'; accessories: string[] }
    | { kind: 'start-proxy' }
  );

export type Step = FoundationStep | ReleaseStep;

export interface Plan<S extends Step = Step> {
  verb: string;
  /** The release that the plan makes live; null when nothing will be. */
  release: ReleaseId | null;
  previous: ReleaseId | null;
  steps: readonly S[];
}
