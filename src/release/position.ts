/**
 * Where an act stands: the world plus what this plan has already proven. `apply` is the pure effect of one step, so a
 * plan is the trace of "next step, apply" and a resumed plan is simply the rest of that trace.
 */
import type { Fleet, Intent, Release, ReleaseId, ReleaseStep, Route, World } from './model.ts';

export interface Position {
  world: World;
  /** Replicas started in this plan, and those of them (and others) proven ready in it. */
  started: ReadonlySet<string>;
  ready: ReadonlySet<string>;
  /** No replica was drained since the last switch before this plan. */
  isUndrained: boolean;
  /** Replicas drained in this plan. */
  drained: ReadonlySet<string>;
  /** The present routes were watched in this plan. */
  watched: boolean;
  /** Quiet time that has passed since traffic last moved, ms; Infinity when it has not moved lately. */
  quietMs: number;
  /** Releases that may still have players or requests although no route leads to them any more. */
  dropped: ReadonlySet<ReleaseId>;
}

export const replicaKey = (release: ReleaseId, n: number) => `${release}/${n}`;

/** @param known what this process knows beside the world, see Condemning; without it the worse case is assumed */
export function startPosition(
  world: World,
  known: { metPlayers?: boolean; isUndrained?: boolean } = {},
): Position {
  const { metPlayers = world.intent?.stage === 'condemned', isUndrained = false } = known;
  const { intent } = world;
  const mayHaveMoved = intent !== null && intent.stage !== 'committed';
  // A back-out that was interrupted may have moved traffic off the candidate a moment ago: assume that it did.
  const dropped = new Set(intent && metPlayers ? [intent.release] : []);
  const none: ReadonlySet<string> = new Set();
  return {
    world,
    started: none,
    ready: none,
    drained: none,
    isUndrained,
    watched: false,
    quietMs: mayHaveMoved ? 0 : Infinity,
    dropped,
  };
}

export function servedReplicas(world: World, release: ReleaseId | null): number[] {
  return world.traffic.routes.find((route) => route.release === release)?.replicas ?? [];
}

export function findRelease(world: World, id: ReleaseId | null): Release | undefined {
  return world.releases.find((release) => release.id === id);
}

export function liveRelease(world: World): Release | undefined {
  return world.releases.find((release) => release.verdict === 'live');
}

export function runningReplicas(world: World, release: ReleaseId | null): number[] {
  const fleet = world.fleets.find((one) => one.release === release);
  return fleet?.replicas.filter((replica) => replica.running).map((replica) => replica.n) ?? [];
}

export function apply(position: Position, step: ReleaseStep): Position {
  const { world } = position;
  switch (step.kind) {
    case 'open':
      return withWorld(position, {
        releases: [...world.releases.filter((one) => one.id !== step.candidate.id), step.candidate],
        // A candidate made from changed settings makes the containers it may have outdated.
        fleets: world.fleets.map((fleet) =>
          outdatedBy(fleet, step.candidate, findRelease(world, step.release)),
        ),
        intent: step.intent,
        schema: { ...world.schema, wish: step.intent.schema },
      });
    case 'condemn':
      return withWorld(position, {
        releases: condemned(world.releases, step, world.intent),
        intent: world.intent && {
          ...world.intent,
          stage: 'condemned',
          verdict: step.verdict,
          reason: step.reason,
        },
      });
    case 'backup':
      return withWorld(position, { releases: backedUp(world.releases, step.release, 'taken by this plan') });
    case 'migrate':
      return withWorld(position, { schema: { ...world.schema, pending: [], contracts: [] } });
    case 'take-back':
    case 'restore':
      return withWorld(position, { schema: { ...world.schema, wish: null } });
    case 'start-fleet':
      return {
        ...withWorld(position, { fleets: withReplicas(world.fleets, step.release, step.replicas, true) }),
        started: added(position.started, step),
      };
    case 'await-ready':
      return { ...position, ready: added(position.ready, step) };
    case 'switch-traffic':
      return {
        ...withWorld(position, { traffic: { routes: step.routes, settled: true } }),
        watched: false,
        quietMs: 0,
        dropped: new Set([...position.dropped, ...world.traffic.routes.map((route) => route.release)]),
      };
    case 'watch':
      return { ...position, watched: true, quietMs: position.quietMs + step.forMs };
    case 'quiesce':
      return { ...position, quietMs: position.quietMs + step.forMs };
    case 'commit':
      return withWorld(position, {
        releases: committed(world.releases, step.release, world.intent),
        intent: world.intent && { ...world.intent, stage: 'committed' },
      });
    case 'drain':
      return { ...position, drained: added(position.drained, step) };
    case 'retire':
      return withWorld(position, { fleets: withReplicas(world.fleets, step.release, step.replicas, false) });
    case 'forget':
      return withWorld(position, { fleets: world.fleets.filter((fleet) => fleet.release !== step.release) });
    case 'close':
      return withWorld(position, { intent: null });
    default:
      return step satisfies never;
  }
}

function added(
  known: ReadonlySet<string>,
  step: { release: ReleaseId; replicas: number[] },
): ReadonlySet<string> {
  return new Set([...known, ...step.replicas.map((n) => replicaKey(step.release, n))]);
}

function withWorld(position: Position, change: Partial<World>): Position {
  return { ...position, world: { ...position.world, ...change } };
}

/**
 * A release that served earlier keeps its verdict; its failure is in the history. When the act was committed already, the
 * previous release is live again. The runner writes the same into the record.
 */
export function condemned(
  releases: readonly Release[],
  { release: id, verdict, reason }: { release: ReleaseId; verdict: Release['verdict']; reason: string },
  intent: Intent | null,
): Release[] {
  const wasLive = intent?.stage === 'committed' ? intent.previous : null;
  return releases.map((release) => {
    if (release.id === wasLive) return { ...release, verdict: 'live', reason: null };
    if (release.id !== id) return release;
    return intent?.formerly ?? { ...release, verdict, reason };
  });
}

/** The verdicts after the point of no return; the runner writes the same ones into the record. */
export function committed(releases: readonly Release[], live: ReleaseId, intent: Intent | null): Release[] {
  const left = intent?.verb === 'rollback' ? 'rolled-back' : 'superseded';
  return releases.map((release) => {
    if (release.id === live) return { ...release, verdict: 'live', reason: null };
    return release.verdict === 'live' ? { ...release, verdict: left } : release;
  });
}

export const backedUp = (releases: readonly Release[], id: ReleaseId, backup: string): Release[] =>
  releases.map((release) => (release.id === id ? { ...release, backup } : release));

function outdatedBy(fleet: Fleet, candidate: Release, before: Release | undefined): Fleet {
  if (fleet.release !== candidate.id || before?.fingerprint === candidate.fingerprint) return fleet;
  return { ...fleet, replicas: fleet.replicas.map((replica) => ({ ...replica, current: false })) };
}

function withReplicas(
  fleets: readonly Fleet[],
  release: ReleaseId,
  ns: readonly number[],
  running: boolean,
): Fleet[] {
  const known = fleets.find((fleet) => fleet.release === release) ?? { release, replicas: [], players: 0 };
  const others = known.replicas.filter((replica) => !ns.includes(replica.n));
  const changed = ns.map((n) => ({ n, running, current: true }));
  const replicas = [...others, ...changed].sort((a, b) => a.n - b.n);
  return [...fleets.filter((fleet) => fleet.release !== release), { ...known, replicas }];
}

export function sameRoutes(a: readonly Route[], b: readonly Route[]): boolean {
  const text = (routes: readonly Route[]) =>
    routes
      .filter((route) => route.replicas.length > 0)
      .map((route) => `${route.release}:${[...route.replicas].sort((x, y) => x - y).join(',')}`)
      .sort()
      .join(' ');
  return text(a) === text(b);
}
