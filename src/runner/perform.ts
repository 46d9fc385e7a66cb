/**
 * One step → the port calls that do it. Every step repeats safely, so a resumed plan may do again what a dead process
 * had half done. Nothing here decides what comes next.
 */
import { namesOf } from '../contract.ts';
import type { ObservedContainer } from '../engine/port.ts';
import { OpsError } from '../errors.ts';
import type { Target } from '../proxy/generation.ts';
import { isPublished, publishPage } from '../proxy/page.ts';
import { switchTraffic } from '../proxy/switch.ts';
import { readTraffic } from '../proxy/traffic.ts';
import type { HistoryEntry, ProjectRecord } from '../record/record.ts';
import { writeRecord } from '../record/record.ts';
import type { Release, ReleaseStep, Route } from '../release/model.ts';
import { committed, condemned } from '../release/position.ts';
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
import { takeBackup, takeSchemaBack, untilLockLost } from './schema.ts';
import type { Session } from './session.ts';
import { ensureSettings } from './settings.ts';

/** @returns a short detail for the report, or nothing. */
// biome-ignore lint/suspicious/noConfusingVoidType: most steps have nothing to add.
export async function perform(session: Session, step: ReleaseStep): Promise<string | void> {
  const { engine, clock, schema } = session.ports;
  const { project } = session;
  switch (step.kind) {
    case 'open':
      return openAct(session, step);
    case 'condemn':
      return condemn(session, step);
    case 'commit':
      return save(session, {
        releases: committed(session.record.releases, step.release, session.record.intent),
        intent: intentWith(session, { stage: 'committed' }),
      });
    case 'close':
      return save(session, { intent: null, history: [...session.record.history, historyEntry(session)] });
    case 'backup':
      return takeBackup(session, step);
    case 'migrate':
      await schema.migrate(step.migrations, step.release, untilLockLost(session));
      session.schema.applied.push(...step.migrations);
      return;
    case 'take-back':
    case 'restore':
      return takeSchemaBack(session, step);
    case 'start-fleet':
      return startFleet(session, step);
    case 'await-ready':
      return awaitReady(gateInput(session, step.release), step);
    case 'switch-traffic':
      return moveTraffic(session, step);
    case 'watch':
      return watch(session, step);
    case 'quiesce':
      return clock.sleep(step.forMs, session.signal);
    case 'drain':
      return drain(session, step);
    case 'retire':
      return engine.retireFleet(project, step.release, step.replicas, 'stopped', stopGraceMs);
    case 'forget':
      return forget(session, step.release);
    default:
      return step satisfies never;
  }
}

async function save(session: Session, change: Parameters<typeof writeRecord>[2]): Promise<undefined> {
  session.record = await writeRecord(session.ports.engine, session.record, change);
}

async function openAct(session: Session, step: ReleaseStep & { kind: 'open' }): Promise<undefined> {
  const others = session.record.releases.filter((release) => release.id !== step.candidate.id);
  await save(session, { releases: [...others, step.candidate], intent: step.intent });
}

async function condemn(session: Session, step: ReleaseStep & { kind: 'condemn' }): Promise<undefined> {
  const { intent, releases } = session.record;
  const before = releases.find(({ id }) => id === intent?.previous);
  // Told first: servers that still send their players away would send them to and fro.
  if (intent?.stage === 'committed' && before?.protocol) await endHandover(session, before.id);
  await save(session, {
    releases: condemned(releases, step, intent),
    intent: intentWith(session, { stage: 'condemned', verdict: step.verdict, reason: step.reason }),
  });
}

async function startFleet(session: Session, step: ReleaseStep & { kind: 'start-fleet' }): Promise<undefined> {
  const { engine, players } = session.ports;
  const release = releaseNamed(session, step.release);
  const volume = namesOf(session.project).volume.settings(release.id);
  await engine.ensureVolume(session.project, volume, 'settings', { 'gameops.release': String(release.id) });
  const [settings, there] = await Promise.all([
    ensureSettings(session, release, volume),
    engine.observe(session.project),
    // An order to send players away, from its last time, would still be there for it.
    players.order(release.id, null, 0),
  ]);
  // Both to their end, also when one fails: a remedy beside containers that are still being made would miss them.
  const ended = await Promise.allSettled([
    engine.startFleet(
      fleetSpec(session.project, release, step.replicas, settings, { unixSockets: hasUnixSockets(there) }),
    ),
    release.page === null ? null : ensurePage(session, release),
  ]);
  for (const part of ended) if (part.status === 'rejected') throw part.reason;
}

async function moveTraffic(
  session: Session,
  step: ReleaseStep & { kind: 'switch-traffic' },
): Promise<string> {
  const arriving = step.routes.find((route) => !step.from.some((old) => old.release === route.release));
  const newest = arriving ?? step.routes[0];
  const release = newest ? releaseNamed(session, newest.release) : null;
  if (release?.page) await ensurePage(session, release);
  const containers = await session.ports.engine.observe(session.project);
  const { generation, lost } = await switchTraffic(session.ports, {
    ...session.proxy,
    project: session.project,
    targets: targetsOf(session, containers, step.routes),
    backups: targetsOf(session, containers, runningRoutes(gameContainers(containers), lostRoutes(step))),
    passAll: release !== null && release.page === null,
    foreignPage: release !== null && release.protocol === null,
    pageRelease: release?.page ? release.id : null,
    deadlineMs: step.deadlineMs,
  });
  for (const message of lost) session.emit({ type: 'note', level: 'warning', message });
  return `generation ${generation} proven`;
}

/** Published once: a page is part of its release, whatever gameops brings today. */
async function ensurePage(session: Session, release: Release): Promise<void> {
  const { engine, supplies } = session.ports;
  if (session.pages.has(release.id)) return;
  session.pages.add(release.id);
  if (await isPublished(engine, session.project, release)) return;
  const files = supplies.page(release);
  if (files)
    await publishPage(engine, session.project, release, files, { foreign: release.protocol === null });
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
  session: Session,
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
      const { port } = releaseNamed(session, route.release).shape;
      return [{ release: route.release, replica: n, ...reachOf(container, port, unixSockets) }];
    }),
  );
}

async function watch(session: Session, step: ReleaseStep & { kind: 'watch' }): Promise<string> {
  // All that get traffic: one that died between its gate and this moment must be missed, not overlooked.
  const { routes } = await readTraffic(session.ports, session.project);
  const replicas = routes.find((route) => route.release === step.release)?.replicas ?? [];
  const seen = await watchRelease(gateInput(session, step.release), step, replicas);
  session.probes.http.sent += seen.http.sent;
  session.probes.http.failed += seen.http.failed;
  session.probes.ws.sent += seen.ws.sent;
  session.probes.ws.failed += seen.ws.failed;
  return `${seen.http.sent} HTTP and ${seen.ws.sent} WebSocket probes, ${seen.http.failed + seen.ws.failed} failed`;
}

async function forget(session: Session, release: number): Promise<undefined> {
  const { engine } = session.ports;
  const replicas = gameContainers(await engine.observe(session.project, release)).map(replicaOf);
  await engine.retireFleet(session.project, release, replicas, 'nothing', stopGraceMs);
  await engine.removeVolume(session.project, namesOf(session.project).volume.settings(release));
}

function gateInput(session: Session, release: number): GateInput {
  const { project, ports, signal, emit } = session;
  return { project, ports, signal, emit, release: releaseNamed(session, release) };
}

function releaseNamed(session: { record: ProjectRecord }, id: number): Release {
  const release = session.record.releases.find((one) => one.id === id);
  if (release) return release;
  throw new OpsError('RELEASE_UNKNOWN', {
    message: `Release ${id} is not on record.`,
    next: ['gameops releases'],
    facts: { release: id },
  });
}

function intentWith(session: Session, change: Partial<NonNullable<ProjectRecord['intent']>>) {
  return session.record.intent && { ...session.record.intent, ...change };
}

function historyEntry(session: Session): HistoryEntry {
  const intent = session.record.intent;
  const isCondemned = intent?.stage === 'condemned';
  return {
    at: new Date(session.ports.clock.now()).toISOString(),
    by: session.by,
    verb: intent?.verb ?? 'resume',
    strategy: intent?.strategy ?? 'blue-green',
    release: intent?.release ?? 0,
    previous: intent?.previous ?? null,
    outcome: !isCondemned ? 'done' : intent.verdict === 'failed' ? 'rolled back' : 'given up',
    reason: intent?.reason ?? null,
    ms: intent ? session.ports.clock.now() - Date.parse(intent.startedAt) : 0,
  };
}
