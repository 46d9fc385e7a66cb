/**
 * Drains a fleet. Servers that speak our protocol are first asked to hand their players over to another release, each with a
 * second socket before the first one closes. Then all of them, and servers of any other image at once, are told to drain: they
 * close their sockets at a pace and end. Promises that this second part always happens, whatever became of the first.
 */

import { until } from '../clock.ts';
import type { HandoverOrder } from '../contract.ts';
import { OpsError } from '../errors.ts';
import type { Closed } from '../observe/players.ts';
import type { ReleaseId, ReleaseStep } from '../release/model.ts';
import type { RunningAct } from './act.ts';
import { gameContainers, isRunning, replicaOf } from './fleet.ts';

type DrainStep = ReleaseStep & { kind: 'drain' };

/** How long a player may take from the hint to the second socket before the first one is closed. */
const patienceMs = 10_000;
/** Servers look for orders twice a second; a server that has not reported by then never will. */
const silenceMs = 4_000;
const unansweredMost = 4;
/** A Redis that is restarted meanwhile is back by then, and servers continue to hand over. */
const redisAwayMs = 10_000;
/** Waits while disconnected players keep coming back; those who are missing then count as not back yet. */
const comeBackMs = { between: 3_000, inAll: 30_000 };

/** @returns what happened to the players, in words */
export async function drain(act: RunningAct, step: DrainStep): Promise<string> {
  const { engine, clock, players } = act.outside;
  const fleet = new Map([[step.release, step.replicas]]);
  const countPlayers = async () => (await players.online(fleet)).get(step.release) ?? null;
  const end = clock.now() + step.deadlineMs;
  const before = await countPlayers();
  const earlier = (await players.closed(step.release)) ?? { sockets: 0, missing: 0 };
  const moved = before === 0 ? 0 : await handOver(act, step, before);

  const leftMs = Math.max(1_000, end - clock.now());
  await engine.beginDrain({ project: act.project, release: step.release, replicas: step.replicas }, leftMs);
  const wait = { everyMs: 200, signal: act.signal };
  const gone = await until(clock, { ...wait, deadlineMs: leftMs }, async () => {
    const rest = (await runningOf(act, step.release)).filter((n) => step.replicas.includes(n));
    if (before) tell(act, 'disconnected', before - ((await countPlayers()) ?? 0), before);
    return rest.length === 0 ? true : null;
  });
  const closed = await whoIsNotBack(act, step.release, earlier);
  addPlayers(act, {
    online: before,
    moved,
    closed: closed?.sockets ?? null,
    lost: closed?.missing ?? null,
  });
  if (!gone) return 'the deadline has passed; players still connected are disconnected by the stop';
  const movedWords = moved ? `${moved} players handed over, ` : '';
  return closed
    ? `${movedWords}${closed.sockets} sockets closed, ${closed.missing} players not back yet`
    : 'all replicas have ended';
}

/** @param earlier those of the batches before, which are counted already @returns null when nobody could be asked */
async function whoIsNotBack(
  { outside, signal }: RunningAct,
  release: ReleaseId,
  earlier: Closed,
): Promise<Closed | null> {
  const { clock, players } = outside;
  let least = { missing: Number.POSITIVE_INFINITY, since: clock.now() };
  let seen: Closed | null = null;
  await until(clock, { everyMs: 200, deadlineMs: comeBackMs.inAll, signal }, async () => {
    seen = await players.closed(release);
    if (seen === null || seen.missing <= earlier.missing) return true;
    if (seen.missing < least.missing) least = { missing: seen.missing, since: clock.now() };
    return clock.now() - least.since >= comeBackMs.between ? true : null;
  });
  const all = seen as Closed | null;
  if (all === null) return null;
  const missing = Math.max(0, all.missing - earlier.missing);
  return { sockets: all.sockets - earlier.sockets, missing };
}

/** @returns how many players changed over; null when nobody could be asked to hand them over */
async function handOver(act: RunningAct, step: DrainStep, before: number | null): Promise<number | null> {
  const { clock, players } = act.outside;
  if (step.to === null) return null;
  const order = { v: 1, order: 'hand-over', replicas: step.replicas, to: step.to, patienceMs } as const;
  const { signal } = act;
  if (!(await tellServers(act, step.release, order, step.deadlineMs))) return null;
  let heardAt = clock.now();
  // Counted in questions, too, because a machine that stood still asked nobody.
  let unanswered = 0;
  // A quarter of the time is left for the second part.
  const deadlineMs = step.deadlineMs * 0.75;
  let hasMoved: number | null = null;
  await until(clock, { everyMs: 250, deadlineMs, signal }, async () => {
    const seen = await players.handedOver(step.release, step.replicas);
    if (seen === null) {
      unanswered += 1;
      const longMs = hasMoved === null ? silenceMs : redisAwayMs;
      return unanswered >= unansweredMost && clock.now() - heardAt > longMs ? true : null;
    }
    heardAt = clock.now();
    unanswered = 0;
    hasMoved = seen.moved;
    const total = Math.max(before ?? 0, seen.moved + seen.closed + seen.gone + seen.left);
    const { moved, closed, left } = seen;
    tell(act, 'handed over', moved + closed + seen.gone, total, { moved, closed, left });
    return seen.left === 0 && seen.replicas === step.replicas.length ? true : null;
  });
  return hasMoved;
}

/** Withdraws the order of a drain. Players who were not told yet stay. @throws REDIS_UNREACHABLE */
export async function endHandover(act: RunningAct, release: ReleaseId): Promise<void> {
  if (await tellServers(act, release, null, 0)) return;
  throw new OpsError('REDIS_UNREACHABLE', {
    message: `The servers of release ${release} can't be told to keep their players: Redis does not answer. Players are where they were.`,
    next: ['gameops doctor', 'gameops abort', 'or gameops resume, to go forward'],
    facts: { release },
  });
}

/** Tries for a while: one unanswered request must not disconnect everybody. @returns false when Redis could not be told */
async function tellServers(
  { outside, signal }: RunningAct,
  release: ReleaseId,
  order: HandoverOrder | null,
  forMs: number,
): Promise<boolean> {
  const pace = { everyMs: 250, deadlineMs: silenceMs, signal };
  const ask = async () => ((await outside.players.order(release, order, forMs)) ? true : null);
  return (await until(outside.clock, pace, ask)) === true;
}

function tell(
  act: RunningAct,
  label: string,
  done: number,
  total: number,
  parts?: Record<string, number>,
): void {
  act.emit({ type: 'progress', label, done, total, unit: 'players', ...(parts ? { parts } : {}) });
}

/** Sums over batches; a number that nobody could tell stays unknown. */
function addPlayers(act: RunningAct, seen: RunningAct['players']): void {
  const plus = (a: number | null, b: number | null) => (b === null ? a : (a ?? 0) + b);
  const { online, moved, closed, lost } = act.players;
  act.players = {
    online: plus(online, seen.online),
    moved: plus(moved, seen.moved),
    closed: plus(closed, seen.closed),
    lost: plus(lost, seen.lost),
  };
}

async function runningOf(act: RunningAct, release: number): Promise<number[]> {
  const containers = await act.outside.engine.observe(act.project, release);
  return gameContainers(containers).filter(isRunning).map(replicaOf);
}
