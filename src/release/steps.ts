/** The steps themselves, each with its phase, its deadline and its cause in words. PURE. */

import type {
  Intent,
  Release,
  ReleaseId,
  ReleaseStep,
  Route,
  SchemaWish,
  SchemaWork,
  World,
} from './model.ts';
import { originOfRelease } from './origin.ts';
import { findRelease, type Position, replicaKey } from './position.ts';

/**
 * How long old Nginx workers may still use a keep-alive connection after a reload (`keepalive_min_timeout 5s` in
 * templates/nginx), and a little more. A replica must not stop before that.
 */
export const quiesceMs = 5_500;

/** Work on the schema has bounds of its own and may take hours on purpose: this deadline only ends a step that hangs. */
const aDayMs = 86_400_000;

const deadline = {
  bookkeepingMs: 20_000,
  startMs: 60_000,
  switchMs: 20_000,
  retireMs: 30_000,
  migrateMs: aDayMs,
  backupMs: aDayMs,
};

export interface Opening {
  candidate: Release;
  cause: string;
  /** Deploy even when the live release is the same. */
  again: boolean;
}

export function openStep(intent: Intent, { candidate, cause }: Opening): ReleaseStep {
  return {
    kind: 'open',
    phase: 'prepare',
    release: candidate.id,
    intent,
    candidate,
    cause,
    deadlineMs: deadline.bookkeepingMs,
  };
}

export interface Condemning {
  verdict: 'failed' | 'abandoned';
  reason: string;
  /** Its switch was tried: some Nginx worker may have sent players to it, whatever Nginx answers now. */
  metPlayers?: boolean;
  /** No replica was drained since the last switch, so a replica that lost its route then can have it back at once. */
  isUndrained?: boolean;
  /** Also after the commitment: the previous fleet is still complete and takes players, who are handed back to it. */
  handsBack?: boolean;
}

export function condemnStep(intent: Intent, condemning: Condemning): ReleaseStep {
  return {
    kind: 'condemn',
    phase: 'prepare',
    release: intent.release,
    verdict: condemning.verdict,
    reason: condemning.reason,
    cause: firstWords(condemning.reason),
    deadlineMs: deadline.bookkeepingMs,
  };
}

const countOf = (migrations: readonly string[]) =>
  `${migrations.length} migration${migrations.length === 1 ? '' : 's'}`;

export function backupStep(release: ReleaseId, pending: readonly string[]): ReleaseStep {
  const cause = `before ${countOf(pending)}`;
  return { kind: 'backup', phase: 'prepare', release, cause, deadlineMs: deadline.backupMs };
}

export function migrateStep(release: ReleaseId, { pending, contracts }: SchemaWork): ReleaseStep {
  const additive = pending.length - contracts.length;
  const cause = [
    ...(additive > 0 ? [`${additive} pending, additive`] : []),
    ...(contracts.length > 0 ? [`${contracts.length} contract: no kept release uses what is removed`] : []),
  ].join('; ');
  const deadlineMs = deadline.migrateMs;
  return { kind: 'migrate', phase: 'prepare', release, migrations: pending, cause, deadlineMs };
}

/** @param left the release whose migrations are reverted, or before which the backup was taken */
export function schemaBackStep(wish: SchemaWish, left: ReleaseId): ReleaseStep {
  const base = { phase: 'settle', release: left } as const;
  if (wish.kind === 'restore') {
    const cause = `requested; no player is on release ${left} any more`;
    return { ...base, kind: 'restore', backup: wish.backup, cause, deadlineMs: deadline.backupMs };
  }
  const { migrations, acceptLoss } = wish;
  const cause = `newest first${acceptLoss ? '; loss accepted' : ''}; no player is on release ${left} any more`;
  return { ...base, kind: 'take-back', migrations, acceptLoss, cause, deadlineMs: deadline.migrateMs };
}

/** The whole reason is on record; a plan is a table. */
function firstWords(reason: string): string {
  return reason.length > 70 ? `${reason.slice(0, 69)}…` : reason;
}

const namesOf = (releases: readonly ReleaseId[]) =>
  `release${releases.length === 1 ? '' : 's'} ${releases.join(', ')}`;

export function commitStep(release: ReleaseId, leaving: ReleaseId[]): ReleaseStep {
  const cause =
    leaving.length > 0 ? `point of no return; ${namesOf(leaving)} may be stopped` : 'it serves players';
  return { kind: 'commit', phase: 'settle', release, cause, deadlineMs: deadline.bookkeepingMs };
}

export function forgetStep(release: ReleaseId, keep: number): ReleaseStep {
  const cause = `older than the ${keep} releases kept for rollback`;
  return { kind: 'forget', phase: 'settle', release, cause, deadlineMs: deadline.retireMs };
}

export function closeStep(intent: Intent): ReleaseStep {
  return {
    kind: 'close',
    phase: 'settle',
    release: intent.release,
    cause: intent.stage === 'condemned' ? `${intent.verdict}; on record` : 'on record',
    deadlineMs: deadline.bookkeepingMs,
  };
}

export function watchStep(position: Position, goal: ReleaseId | null, intent: Intent): ReleaseStep | null {
  if (position.watched || intent.watchMs === 0 || intent.stage !== 'open' || goal === null) return null;
  return {
    kind: 'watch',
    phase: 'switch',
    release: goal,
    forMs: intent.watchMs,
    cause: 'probes through the public address before commitment',
    deadlineMs: intent.watchMs + 30_000,
  };
}

export function quiesceStep(position: Position, intent: Intent): ReleaseStep | null {
  const forMs = quiesceMs - position.quietMs;
  if (forMs <= 0) return null;
  const phase = intent.stage === 'open' ? 'switch' : 'settle';
  const cause = 'last requests of old Nginx workers end';
  return { kind: 'quiesce', phase, forMs, cause, deadlineMs: forMs + 10_000 };
}

export function startStep(world: World, release: Release, replicas: number[]): ReleaseStep {
  const known = world.fleets.find((fleet) => fleet.release === release.id)?.replicas ?? [];
  const wasThere = known.some((one) => one.current && replicas.includes(one.n));
  const cause = wasThere
    ? 'its stopped containers were kept'
    : known.length > 0
      ? 'next batch'
      : `no fleet for ${release.id}`;
  return {
    kind: 'start-fleet',
    phase: 'prepare',
    release: release.id,
    replicas,
    cause,
    deadlineMs: deadline.startMs,
  };
}

export function readyStep(release: Release, replicas: number[], intent: Intent): ReleaseStep {
  const gate =
    originOfRelease(release) === 'bundled'
      ? 'HTTP ready, a WebSocket player can join'
      : `${release.shape.probe} answers 200`;
  return {
    kind: 'await-ready',
    phase: 'prepare',
    release: release.id,
    replicas,
    cause: gate,
    deadlineMs: intent.readyMs,
  };
}

export function switchStep(world: World, routes: Route[], cause: string): ReleaseStep {
  return {
    kind: 'switch-traffic',
    phase: 'switch',
    routes,
    from: world.traffic.routes,
    cause,
    deadlineMs: deadline.switchMs,
  };
}

export function drainStep(
  position: Position,
  release: ReleaseId,
  replicas: number[],
  intent: Intent,
  players: number | null,
  goal: ReleaseId | null,
): ReleaseStep | null {
  if (replicas.every((n) => position.drained.has(replicaKey(release, n)))) return null;
  const canHandOver = [release, goal].every((id) => {
    const one = findRelease(position.world, id);
    return one !== undefined && originOfRelease(one) === 'bundled';
  });
  const to = canHandOver ? goal : null;
  const drainSeconds = Math.round(intent.drainMs / 1000);
  // A server learns its drain time when it starts. Players who are connected when it is stopped earlier lose their socket.
  const pacedMs = to === null ? (findRelease(position.world, release)?.drainMs ?? 0) : 0;
  const mayCut =
    pacedMs > intent.drainMs
      ? `; its servers were started with a ${pacedMs / 1000} s drain, so players still connected after ${drainSeconds} s are disconnected`
      : '';
  return {
    kind: 'drain',
    phase: 'settle',
    release,
    replicas,
    to,
    cause: `${drainWords(players, to)}, at most ${drainSeconds} s${mayCut}`,
    deadlineMs: intent.drainMs,
  };
}

/** The servers' own pace when nothing strains them. */
const handedOverPerSecond = 500;

function drainWords(players: number | null, to: ReleaseId | null): string {
  if (players === null) return 'players unknown';
  const who = `${players} player${players === 1 ? '' : 's'}`;
  if (to === null || players === 0) return `${who} disconnected`;
  return `${who} handed over, about ${Math.ceil(players / handedOverPerSecond)} s`;
}

export function retireStep(release: ReleaseId, replicas: number[], cause: string): ReleaseStep {
  return { kind: 'retire', phase: 'settle', release, replicas, cause, deadlineMs: deadline.retireMs };
}
