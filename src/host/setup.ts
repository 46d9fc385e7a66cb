/**
 * Makes sure that a Docker Engine answers on this machine: uses an engine that answers, starts one that is installed,
 * or installs one on Debian and Ubuntu as root. Promises that running it again changes nothing. Never replaces,
 * upgrades or restarts an engine, never adds a foreign package source, never touches a remote host.
 */
import { realClock, until } from '../clock.ts';
import { dockerEngine } from '../engine/docker/engine.ts';
import type { EngineInfo } from '../engine/port.ts';
import { isOpsError, OpsError } from '../errors.ts';
import type { Emit } from '../report/events.ts';
import { daemonLog, lastLines, startDaemon, startUnit } from './daemon.ts';
import { oneAtATime } from './lock.ts';
import { installPackages } from './packages.ts';
import { type HostFacts, observeHost, planHost, refusal } from './plan.ts';

const startDeadlineMs = 60_000;

export interface HostSetup {
  engine: EngineInfo;
  installed: boolean;
  started: boolean;
}

/**
 * @throws ENGINE_NOT_INSTALLABLE where gameops may not or cannot install one
 * @throws ENGINE_UNREACHABLE when DOCKER_HOST names an engine that does not answer, or the local one does not come up
 */
export async function hostSetup({ emit }: { emit: Emit }): Promise<HostSetup> {
  const engine = await askEngine();
  if (engine) return { engine, installed: false, started: false };
  const act = planHost(await observeHost());
  if (act.kind === 'refuse') throw refusal(act);
  return oneAtATime(
    'host',
    () => bringUp(emit),
    () => note(emit, 'another gameops process is setting up this machine; waiting for it'),
  );
}

async function bringUp(emit: Emit): Promise<HostSetup> {
  // The process that held the lock before may have done the work.
  const already = await askEngine();
  if (already) return { engine: already, installed: false, started: false };
  const facts = await observeHost();
  const act = planHost(facts);
  if (act.kind === 'refuse') throw refusal(act);
  if (act.kind === 'install') {
    note(emit, `installing ${act.packages.join(' and ')} with apt-get`);
    await installPackages(act.packages, { why: 'Docker Engine', code: 'ENGINE_NOT_INSTALLABLE' });
  }
  const engine = await start(facts, emit);
  return { engine, installed: act.kind === 'install', started: true };
}

/** Where systemd runs, installing the package has often started it already: asking again costs nothing. */
async function start(facts: HostFacts, emit: Emit): Promise<EngineInfo> {
  if (facts.systemd) {
    note(emit, 'starting Docker Engine: systemctl enable --now docker');
    await startUnit();
    return untilAnswers(() => false);
  }
  const present = await observeHost();
  if (present.daemonRunning) {
    note(emit, 'dockerd is running but does not answer yet; waiting for it');
    return untilAnswers(() => false);
  }
  note(emit, `starting Docker Engine: dockerd; its log is ${daemonLog}`);
  const daemon = await startDaemon();
  return untilAnswers(() => daemon.ended());
}

async function untilAnswers(ended: () => boolean): Promise<EngineInfo> {
  const engine = await until(realClock, { deadlineMs: startDeadlineMs, everyMs: 200 }, async () => {
    const over = ended();
    return (await askEngine()) ?? (over ? 'ended' : null);
  });
  if (engine !== null && engine !== 'ended') return engine;
  const log = await lastLines(daemonLog, 5);
  throw new OpsError('ENGINE_UNREACHABLE', {
    message: ended()
      ? `dockerd ended at once. Its last log lines: ${log.join(' | ') || '(none)'}`
      : `Docker Engine did not answer within ${startDeadlineMs / 1000} s of its start.`,
    next: [`read ${daemonLog}, or: journalctl -u docker`, 'gameops host setup'],
    facts: { log },
  });
}

/** The engine's facts, or null when none answers. */
async function askEngine(): Promise<EngineInfo | null> {
  try {
    const engine = await dockerEngine();
    try {
      return await engine.info();
    } finally {
      await engine.close();
    }
  } catch (error) {
    if (isOpsError(error, 'ENGINE_UNREACHABLE')) return null;
    throw error;
  }
}

function note(emit: Emit, message: string): void {
  emit({ type: 'note', level: 'info', message });
}
