/**
 * One step → the port calls that do it. Every step repeats safely, so a resumed plan may do again what a dead process
 * had half done. Nothing here decides what comes next.
 */
import type { ObservedContainer } from '../engine/port.ts';
import { OpsError } from '../errors.ts';
import type { Target } from '../proxy/generation.ts';
import { isPublished, publishPage } from '../proxy/page.ts';
import { switchTraffic } from '../proxy/switch.ts';
import { keepTemplates } from '../proxy/templates.ts';
import { readTraffic } from '../proxy/traffic.ts';
import { type HistoryEntry, type ProjectRecord, writeRecord } from '../record/record.ts';
import type { Release, ReleaseStep, Route } from '../release/model.ts';
import { originOfRelease } from '../release/origin.ts';
import { committed, condemned } from '../release/position.ts';
import { type RunningAct, settingsFor, takeBackup, takeSchemaBack, untilLockLost } from './act.ts';
import { drain, endHandover } from './drain.ts';
import {
  fleetSpec,
  gameContainers,
  hasUnixSockets,
  isRunning,
  reachOf,
  releaseOf,
  replicaOf,
  stopGraceMs,
} from './fleet.ts';
import { awaitReady, type GateInput, watchRelease } from './gate.ts';

/** @returns a short detail for the report, or nothing. */
// biome-ignore lint/suspicious/noConfusingVoidType: most steps have nothing to add.
export async function perform(act: RunningAct, step: ReleaseStep): Promise<string | void> {
  const { engine, clock, database } = act.outside;
  const { project } = act;
  switch (step.kind) {
    case 'open':
      return openAct(act, step);
    case 'condemn':
      return condemn(act, step);
    case 'commit':
      return save(act, {
        releases: committed(act.record.releases, step.release, act.record.intent),
        intent: intentWith(act, { stage: 'committed' }),
      });
    case 'close':
      return save(act, { intent: null, history: [...act.record.history, historyEntry(act)] });
    case 'backup':
      return takeBackup(act, step);
    case 'migrate':
      await database.migrate(step.migrations, step.release, untilLockLost(act));
      act.schema.applied.push(...step.migrations);
      return;
    case 'take-back':
    case 'restore':
      return takeSchemaBack(act, step);
    case 'start-fleet':
      return startFleet(act, step);
    case 'await-ready':
      return awaitReady(gateInput(act, step.release), step);
    case 'switch-traffic':
      return moveTraffic(act, step);
    case 'watch':
      return watch(act, step);
    case 'quiesce':
      return clock.sleep(step.forMs, act.signal);
    case 'drain':
      return drain(act, step);
    case 'retire':
      return engine.retireFleet({ ...step, project }, 'stopped', stopGraceMs);
    case 'forget':
      return forget(act, step.release);
    default:
      return step satisfies never;
  }
}

async function save(act: RunningAct, change: Parameters<typeof writeRecord>[2]): Promise<undefined> {
  act.record = await writeRecord(act.outside.engine, act.record, change);
}

async function openAct(act: RunningAct, step: ReleaseStep & { kind: 'open' }): Promise<undefined> {
  const others = act.record.releases.filter((release) => release.id !== step.candidate.id);
  await save(act, { releases: [...others, step.candidate], intent: step.intent });
}

async function condemn(act: RunningAct, step: ReleaseStep & { kind: 'condemn' }): Promise<undefined> {
  const { intent, releases } = act.record;
  const before = releases.find(({ id }) => id === intent?.previous);
  // Told first: servers that still send their players away would send them to and fro.
  if (intent?.stage === 'committed' && before && originOfRelease(before) === 'bundled')
    await endHandover(act, before.id);
  await save(act, {
    releases: condemned(releases, step, intent),
    intent: intentWith(act, { stage: 'condemned', verdict: step.verdict, reason: step.reason }),
  });
}

async function startFleet(act: RunningAct, step: ReleaseStep & { kind: 'start-fleet' }): Promise<undefined> {
  const { engine, players } = act.outside;
  const release = releaseNamed(act, step.release);
  const [settings, there] = await Promise.all([
    settingsFor(act, release),
    engine.observe(act.project),
    // An order to send players away, from its last time, would still be there for it.
    players.order(release.id, null, 0),
  ]);
  // Both to their end, also when one fails: a remedy beside containers that are still being made would miss them.
  const ended = await Promise.allSettled([
    engine.startFleet(
      fleetSpec(act.project, release, step.replicas, settings, { unixSockets: hasUnixSockets(there) }),
    ),
    release.page === null ? null : ensurePage(act, release),
    release.proxy && keepTemplates(engine, act.project, release.proxy, act.proxy.templateDir),
  ]);
  for (const part of ended) if (part.status === 'rejected') throw part.reason;
}

async function moveTraffic(act: RunningAct, step: ReleaseStep & { kind: 'switch-traffic' }): Promise<string> {
  const arriving = step.routes.find((route) => !step.from.some((old) => old.release === route.release));
  const newest = arriving ?? step.routes[0];
  const release = newest ? releaseNamed(act, newest.release) : null;
  if (release?.page) await ensurePage(act, release);
  const containers = await act.outside.engine.observe(act.project);
  const { generation, lost } = await switchTraffic(act.outside, {
    ...act.proxy,
    project: act.project,
    targets: targetsOf(act, containers, step.routes),
    backups: targetsOf(act, containers, runningRoutes(gameContainers(containers), lostRoutes(step))),
    passAll: release !== null && release.page === null,
    foreignPage: release !== null && originOfRelease(release) === 'own',
    pageRelease: release?.page ? release.id : null,
    opened: release?.proxy ?? null,
    knownTemplates: act.record.releases.flatMap(({ proxy }) => proxy?.templates ?? []),
    deadlineMs: step.deadlineMs,
  });
  for (const message of lost) act.emit({ type: 'note', level: 'warning', message });
  return `generation ${generation} proven`;
}

/** Published once: a page is part of its release, whatever gameops brings today. */
async function ensurePage(act: RunningAct, release: Release): Promise<void> {
  const { engine, inputs } = act.outside;
  if (act.pages.has(release.id)) return;
  act.pages.add(release.id);
  if (await isPublished(engine, act.project, release)) return;
  const files = inputs.page(release);
  if (files)
    await publishPage(engine, act.project, release, files, { foreign: originOfRelease(release) === 'own' });
}

/** Only what runs can back anybody up. */
function runningRoutes(containers: readonly ObservedContainer[], routes: readonly Route[]): Route[] {
  const runs = (release: number, n: number) =>
    containers.some((one) => releaseOf(one) === release && replicaOf(one) === n && isRunning(one));
  return routes.map(({ release, replicas }) => ({
    release,
    replicas: replicas.filter((n) => runs(release, n)),
  }));
}

function goneBefore(release: number, n: number): OpsError {
  return new OpsError('REPLICA_EXITED', {
    message: `Replica ${n} of release ${release} is gone: somebody removed it after it was proven ready.`,
    next: ['gameops status', 'gameops deploy'],
    facts: { release, replica: n },
  });
}

/** Replicas that this step takes out of the traffic. */
function lostRoutes(step: ReleaseStep & { kind: 'switch-traffic' }): Route[] {
  return step.from.map((route) => {
    const stays = step.routes.find((one) => one.release === route.release)?.replicas ?? [];
    return { release: route.release, replicas: route.replicas.filter((n) => !stays.includes(n)) };
  });
}

function targetsOf(
  act: RunningAct,
  containers: readonly ObservedContainer[],
  routes: readonly Route[],
): Target[] {
  const unixSockets = hasUnixSockets(containers);
  return routes.flatMap((route) =>
    route.replicas.flatMap((n) => {
      const container = gameContainers(containers).find(
        (one) => releaseOf(one) === route.release && replicaOf(one) === n,
      );
      if (!container) throw goneBefore(route.release, n);
      const { port } = releaseNamed(act, route.release).shape;
      return [{ release: route.release, replica: n, ...reachOf(container, port, unixSockets) }];
    }),
  );
}

async function watch(act: RunningAct, step: ReleaseStep & { kind: 'watch' }): Promise<string> {
  // All that get traffic: one that died between its gate and this moment must be missed, not overlooked.
  const { routes } = await readTraffic(act.outside, act.project);
  const replicas = routes.find((route) => route.release === step.release)?.replicas ?? [];
  const seen = await watchRelease(gateInput(act, step.release), step, replicas);
  act.probes.http.sent += seen.http.sent;
  act.probes.http.failed += seen.http.failed;
  act.probes.ws.sent += seen.ws.sent;
  act.probes.ws.failed += seen.ws.failed;
  return `${seen.http.sent} HTTP and ${seen.ws.sent} WebSocket probes, ${seen.http.failed + seen.ws.failed} failed`;
}

async function forget(act: RunningAct, release: number): Promise<undefined> {
  await act.outside.engine.forgetFleet(act.project, release, stopGraceMs);
}

function gateInput(act: RunningAct, release: number): GateInput {
  const { project, outside, signal, emit } = act;
  return { project, outside, signal, emit, release: releaseNamed(act, release) };
}

function releaseNamed(act: { record: ProjectRecord }, id: number): Release {
  const release = act.record.releases.find((one) => one.id === id);
  if (release) return release;
  throw new OpsError('RELEASE_UNKNOWN', {
    message: `Release ${id} is not on record.`,
    next: ['gameops releases'],
    facts: { release: id },
  });
}

function intentWith(act: RunningAct, change: Partial<NonNullable<ProjectRecord['intent']>>) {
  return act.record.intent && { ...act.record.intent, ...change };
}

function historyEntry(act: RunningAct): HistoryEntry {
  const intent = act.record.intent;
  const isCondemned = intent?.stage === 'condemned';
  return {
    at: new Date(act.outside.clock.now()).toISOString(),
    by: act.by,
    verb: intent?.verb ?? 'resume',
    strategy: intent?.strategy ?? 'blue-green',
    release: intent?.release ?? 0,
    previous: intent?.previous ?? null,
    outcome: !isCondemned ? 'done' : intent.verdict === 'failed' ? 'rolled back' : 'given up',
    reason: intent?.reason ?? null,
    ms: intent ? act.outside.clock.now() - Date.parse(intent.startedAt) : 0,
  };
}
