/**
 * The health gate and the watch: no replica serves players before it has answered like a server. Asks through Nginx (each replica
 * on the private side, and on the public side as a player would) and looks at the containers. Decides only pass or fail.
 */

import { until } from '../clock.ts';
import { endpoint, namesOf } from '../contract.ts';
import type { ObservedContainer } from '../engine/port.ts';
import { OpsError } from '../errors.ts';
import type { Reach } from '../proxy/generation.ts';
import type { Release, ReleaseStep, World } from '../release/model.ts';
import { originOfRelease } from '../release/origin.ts';
import { fleetBefore } from '../release/plan.ts';
import { findRelease } from '../release/position.ts';
import type { Emit } from '../report/events.ts';
import { gameContainers, hasUnixSockets, isRunning, reachOf, releaseOf, replicaOf } from './fleet.ts';
import type { Outside } from './outside.ts';

const probeTimeoutMs = 2_000;
const logLines = 12;
/** Asking the engine about a container costs it more than a probe costs the server. */
const lookEveryMs = 300;
/** Not longer, because players are on a release that fails its probes. */
const endHeardMs = 500;
/** Forty probes a second in all: more would only take CPU time from the replicas that start. */
const probeEveryMs = (replicas: number) => Math.max(100, replicas * 25);

/** What the probes of one act saw, through the public address. */
export interface ProbeCounts {
  http: { sent: number; failed: number };
  ws: { sent: number; failed: number };
}

export interface GateInput {
  project: string;
  outside: Outside;
  release: Release;
  signal: AbortSignal;
  emit: Emit;
}

/** @throws REPLICA_EXITED at once, FLEET_NOT_READY or JOIN_REFUSED at the deadline; each with the last log lines */
export async function awaitReady(
  input: GateInput,
  step: ReleaseStep & { kind: 'await-ready' },
): Promise<void> {
  const { outside, signal } = input;
  const lacks = new Map<number, Lack>();
  const open = new Set(step.replicas);
  const restartsBefore = new Map<number, number>();
  let containers: ObservedContainer[] = [];
  let unixSockets = false;
  let lookedAt = Number.NEGATIVE_INFINITY;
  const pace = { deadlineMs: step.deadlineMs, everyMs: probeEveryMs(step.replicas.length), signal };
  const ready = await until(outside.clock, pace, async () => {
    if (outside.clock.now() - lookedAt >= lookEveryMs) {
      const all = await outside.engine.observe(input.project);
      containers = ofRelease(input, all, step.replicas);
      unixSockets = hasUnixSockets(all);
      lookedAt = outside.clock.now();
      await failIfGone(input, containers, step.replicas, restartsBefore);
    }
    await Promise.all(
      containers
        .filter((container) => open.has(replicaOf(container)))
        .map(async (container) => {
          const n = replicaOf(container);
          const lack = await whyNotReady(input, reachOf(container, input.release.shape.port, unixSockets));
          if (lack === null) open.delete(n);
          else lacks.set(n, afterwards(lacks.get(n), lack));
        }),
    );
    input.emit({
      type: 'progress',
      label: 'ready',
      done: step.replicas.length - open.size,
      total: step.replicas.length,
      unit: 'replicas',
    });
    return open.size === 0 ? true : null;
  });
  if (ready === null) await throwNotReady(input, step, [...open], lacks);
}

/**
 * Whether the fleet that served before a committed act would take its players back. Each replica is asked, because one that was
 * told to end takes no players any more and yet runs until the last one has left.
 */
export async function canHandBack(act: Omit<GateInput, 'release'>, world: World): Promise<boolean> {
  const before = fleetBefore(world);
  const release = findRelease(world, before?.release ?? null);
  if (!before || !release) return false;
  const { project, outside, signal, emit } = act;
  const input = { project, outside, signal, emit, release };
  const all = await outside.engine.observe(project);
  const containers = ofRelease(input, all, before.replicas);
  const unixSockets = hasUnixSockets(all);
  const lacks = await Promise.all(
    containers.map((one) => whyNotReady(input, reachOf(one, release.shape.port, unixSockets))),
  );
  return containers.length === before.replicas.length && lacks.every((lack) => lack === null);
}

interface Lack {
  about: 'http' | 'join';
  reason: string;
  isSilence?: true;
}

const fellSilent = '; after that it did not answer any more';

/** A former answer says more than the silence now. */
function afterwards(before: Lack | undefined, now: Lack): Lack {
  if (!now.isSilence || before?.about !== now.about || before.isSilence) return now;
  return before.reason.endsWith(fellSilent) ? before : { ...before, reason: `${before.reason}${fellSilent}` };
}

async function whyNotReady(input: GateInput, at: Reach): Promise<Lack | null> {
  const { outside, release } = input;
  const { probe } = release.shape;
  const http = await outside.door.askReplica(at, probe, probeTimeoutMs);
  // A configuration of an older gameops, or a template of the operator's, has no route to sockets. The watch tests those.
  const isNginxOwn404 = http.ok && http.answer.status === 404 && http.answer.servedBy === '';
  if (at.unixSocket && isNginxOwn404) return whyNotReady(input, { ...at, unixSocket: null });
  if (!http.ok) return { about: 'http', ...http, reason: `${probe}: ${http.reason}` };
  if (http.answer.status !== 200)
    return {
      about: 'http',
      reason: `${probe} answered ${http.answer.status} ${firstLine(http.answer.body)}`.trim(),
    };
  if (originOfRelease(release) === 'own') return null;
  const join = await outside.door.joinReplica(at, outside.inputs.probeToken(), probeTimeoutMs);
  return join.ok
    ? null
    : { about: 'join', ...join, reason: `a WebSocket player could not join: ${join.reason}` };
}

const firstLine = (text: string) => text.split('\n')[0]?.slice(0, 120) ?? '';

async function throwNotReady(
  input: GateInput,
  step: ReleaseStep & { kind: 'await-ready' },
  open: number[],
  lacks: Map<number, Lack>,
): Promise<never> {
  const first = open[0] ?? 1;
  const lack = lacks.get(first);
  const reason = lack?.reason ?? 'no container';
  const name = namesOf(input.project).game(input.release.id, first);
  const total = step.replicas.length;
  throw new OpsError(lack?.about === 'join' ? 'JOIN_REFUSED' : 'FLEET_NOT_READY', {
    message: `Release ${input.release.id} had ${total - open.length} of ${total} replicas ready after ${step.deadlineMs / 1000} s; replica ${first}: ${reason}.`,
    next: [`docker logs ${name}`, 'fix the release, then gameops deploy'],
    facts: { release: input.release.id, replica: name, reason, log: await tailOf(input, first) },
  });
}

/**
 * Watches through the public address for `forMs`: HTTP every 100 ms, a joining player every second, container exits.
 * @throws WATCH_FAILED, REPLICA_EXITED
 */
export async function watchRelease(
  input: GateInput,
  step: ReleaseStep & { kind: 'watch' },
  replicas: readonly number[],
): Promise<ProbeCounts> {
  const { clock } = input.outside;
  const counts: ProbeCounts = { http: { sent: 0, failed: 0 }, ws: { sent: 0, failed: 0 } };
  const restartsBefore = new Map<number, number>();
  const began = clock.now();
  let next = { http: began, ws: began, look: began };
  const reasons: string[] = [];
  const look = async () => failIfGone(input, await replicasOf(input, replicas), replicas, restartsBefore);
  while (clock.now() - began < step.forMs) {
    input.signal.throwIfAborted();
    const now = clock.now();
    if (now >= next.look) {
      next = { ...next, look: now + 500 };
      await look();
      input.emit({ type: 'progress', label: 'watched', done: now - began, total: step.forMs, unit: 'ms' });
    }
    if (now >= next.http) {
      next = { ...next, http: now + 100 };
      count(counts.http, await publicFailure(input), reasons);
    }
    if (now >= next.ws && originOfRelease(input.release) === 'bundled') {
      next = { ...next, ws: now + 1_000 };
      const join = await input.outside.door.joinPublic(
        input.outside.inputs.probeToken(),
        probeTimeoutMs,
        input.release.proxy?.domain,
      );
      count(counts.ws, join.ok ? null : join.reason, reasons);
    }
    if (areTooManyFailed(counts)) {
      // If a replica has ended, that is why they failed, and the better message. The engine notices an end later than the
      // probes do. An engine that can't be asked changes nothing.
      await until(clock, { everyMs: 100, deadlineMs: endHeardMs, signal: input.signal }, async () => {
        await look().catch((error: unknown) => {
          if (error instanceof OpsError && error.code === 'REPLICA_EXITED') throw error;
        });
        return null;
      });
      throw watchFailed(input, counts, reasons);
    }
    await clock.sleep(Math.max(1, Math.min(next.http, next.ws, next.look) - clock.now()), input.signal);
  }
  await look();
  return counts;
}

function count(counter: { sent: number; failed: number }, reason: string | null, reasons: string[]): void {
  counter.sent += 1;
  if (reason === null) return;
  counter.failed += 1;
  reasons.push(reason);
}

async function publicFailure({ outside, release }: GateInput): Promise<string | null> {
  const path = originOfRelease(release) === 'own' ? '/' : endpoint.version;
  // Nginx answers to the name that the release was deployed with, whatever gameops.yaml says by now.
  const probe = await outside.door.askPublic(path, probeTimeoutMs, release.proxy?.domain);
  if (!probe.ok) return `GET ${path}: ${probe.reason}`;
  // An image that is not ours has its own paths: any answer below 500 is a sign of life, an error of the gateway is not.
  const isFine = originOfRelease(release) === 'own' ? probe.answer.status < 500 : probe.answer.status === 200;
  return isFine ? null : `GET ${path} answered ${probe.answer.status}`;
}

/** A single lost probe may come from the probing machine. A third failed HTTP probe or a second failed join does not. */
const tolerated = { http: 2, ws: 1 };

function areTooManyFailed({ http, ws }: ProbeCounts): boolean {
  return http.failed > tolerated.http || ws.failed > tolerated.ws;
}

function watchFailed(
  { project, release }: GateInput,
  { http, ws }: ProbeCounts,
  reasons: string[],
): OpsError {
  return new OpsError('WATCH_FAILED', {
    message: `Release ${release.id} failed its watch: ${http.failed} of ${http.sent} HTTP probes and ${ws.failed} of ${ws.sent} joins failed; the last one: ${reasons.at(-1)}.`,
    next: [`docker logs ${namesOf(project).game(release.id, 1)}`, 'fix the release, then gameops deploy'],
    facts: {
      release: release.id,
      httpSent: http.sent,
      httpFailed: http.failed,
      wsSent: ws.sent,
      wsFailed: ws.failed,
    },
  });
}

async function replicasOf(input: GateInput, replicas: readonly number[]): Promise<ObservedContainer[]> {
  return ofRelease(input, await input.outside.engine.observe(input.project, input.release.id), replicas);
}

function ofRelease(
  { release }: GateInput,
  containers: readonly ObservedContainer[],
  replicas: readonly number[],
) {
  return gameContainers(containers).filter(
    (container) => releaseOf(container) === release.id && replicas.includes(replicaOf(container)),
  );
}

async function failIfGone(
  input: GateInput,
  containers: readonly ObservedContainer[],
  replicas: readonly number[],
  restartsBefore: Map<number, number>,
): Promise<void> {
  for (const n of replicas) {
    const container = containers.find((one) => replicaOf(one) === n);
    const before =
      restartsBefore.get(n) ?? (container?.state === 'restarting' ? -1 : (container?.restartCount ?? 0));
    restartsBefore.set(n, before);
    if (
      container &&
      isRunning(container) &&
      container.state !== 'restarting' &&
      container.restartCount <= before
    )
      continue;
    const name = namesOf(input.project).game(input.release.id, n);
    const isOutOfMemory = container?.isOutOfMemory === true;
    throw new OpsError('REPLICA_EXITED', {
      message: `Replica ${n} of release ${input.release.id} ${howItEnded(container)}.`,
      next: isOutOfMemory
        ? ['raise server.memory in gameops.yaml, then gameops deploy', `docker logs ${name}`]
        : [`docker logs ${name}`, 'fix the release, then gameops deploy'],
      facts: {
        release: input.release.id,
        replica: name,
        exitCode: container?.exitCode ?? null,
        log: await tailOf(input, n),
      },
    });
  }
}

function howItEnded(container: ObservedContainer | undefined): string {
  if (container === undefined) return 'is gone';
  if (container.isOutOfMemory)
    return 'was ended by the system, because it needed more memory than server.memory allows';
  return `exited${container.exitCode === null ? '' : ` with ${container.exitCode}`}`;
}

async function tailOf(input: GateInput, n: number): Promise<string[]> {
  const name = namesOf(input.project).game(input.release.id, n);
  return input.outside.engine.logTail(input.project, name, logLines).catch(() => []);
}
