/**
 * What may go wrong during a deploy, done for real: the CLI is killed or interrupted, a replica dies. Each scenario ends
 * with the command that an operator would type, and returns a sentence for everything that did not hold.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { label, namesOf } from '../../src/contract.ts';
import type { Event } from '../../src/report/events.ts';
import { type Clients, inWords } from '../support/players/clients.ts';
import { type Ran, type Site, stepsOf } from '../support/site/site.ts';

export type Strategy = 'blue-green' | 'rolling';

/** The nth step event of a kind, from 1, or so long after the start of the process. */
export type Moment = { at: 'step-started' | 'step-done'; nth: number } | { afterMs: number };

export interface Struck {
  /** Where the CLI was when the signal came. */
  where: string;
  /** False: the deploy was over before the moment came. */
  hit: boolean;
  problems: string[];
}

const quick = ['--watch', '1s'];
/** A kill in this time is seen at the next look, however late that comes. */
const patient = ['--watch', '10s'];

export function momentInWords(moment: Moment): string {
  return 'afterMs' in moment ? `after ${moment.afterMs} ms` : `${moment.at} ${moment.nth}`;
}

/** Runs a deploy and sends it a signal at the moment. */
export async function strike(
  site: Site,
  strategy: Strategy,
  moment: Moment,
  signal: 'SIGKILL' | 'SIGINT',
): Promise<{ ran: Ran; hit: boolean; where: string }> {
  let seen = 0;
  let hit = false;
  let last = 'before the first step';
  let where = '';
  const blow = (child: { kill(signal: NodeJS.Signals): boolean }) => {
    if (hit) return;
    hit = child.kill(signal);
    where = last;
  };
  const onEvent = (event: Event, child: { kill(signal: NodeJS.Signals): boolean }) => {
    if (event.type === 'step-started' || event.type === 'step-done')
      last = `${event.type === 'step-done' ? 'after' : 'in'} ${event.step.kind}`;
    if ('afterMs' in moment || event.type !== moment.at) return;
    seen += 1;
    if (seen === moment.nth) blow(child);
  };
  const running = site.start(['deploy', '--again', '--strategy', strategy, ...quick], { onEvent });
  const timer = 'afterMs' in moment ? setTimeout(() => blow(running.process), moment.afterMs) : undefined;
  const ran = await running.ended;
  clearTimeout(timer);
  return { ran, hit: hit && !(ran.signal === null && ran.exitCode === 0), where: where || 'never' };
}

/** SIGKILL at the moment, then the operator's next command. */
export async function killAndRecover(
  site: Site,
  clients: Clients,
  how: { strategy: Strategy; moment: Moment; recovery: 'resume' | 'deploy' },
): Promise<Struck> {
  await clients.window();
  const before = await liveOf(site);
  const { hit, where } = await strike(site, how.strategy, how.moment, 'SIGKILL');
  const problems = await recover(site, how.recovery);
  problems.push(...(await whatIsNotWhole(site, before)), ...(await whatClientsSaw(clients)));
  return { where: `${how.strategy}, ${momentInWords(how.moment)}, ${where}`, hit, problems };
}

/** Ctrl-C at the moment: exit 130 at a safe boundary, then `resume`. */
export async function interruptAndResume(
  site: Site,
  clients: Clients,
  how: { strategy: Strategy; moment: Moment },
): Promise<Struck> {
  await clients.window();
  const before = await liveOf(site);
  const { ran, hit, where } = await strike(site, how.strategy, how.moment, 'SIGINT');
  const problems: string[] = [];
  // In and after the last step there is no further boundary to stop at.
  const isExpected = ran.exitCode === 130 || (ran.exitCode === 0 && / close$/.test(where));
  if (hit && !isExpected) problems.push(`Ctrl-C ended with ${ran.exitCode}: ${ran.json?.error?.message}`);
  if (ran.exitCode === 130 && !ran.json?.error?.next[0]) problems.push('Ctrl-C named no next command');
  problems.push(...(await recover(site, 'resume')));
  problems.push(...(await whatIsNotWhole(site, before)), ...(await whatClientsSaw(clients)));
  return { where: `${how.strategy}, ${momentInWords(how.moment)}, ${where}`, hit, problems };
}

/**
 * `docker kill` of one replica while a deploy is in the named step: of the release that leaves, or of the one that comes.
 * Requests that were in that replica are lost with it, so failures are counted by the caller, not judged here.
 */
export async function killReplicaIn(
  site: Site,
  how: { kind: string; whose: 'old' | 'new'; strategy: Strategy },
): Promise<Struck & { exitCode: number | null; code: string | null }> {
  const before = await liveOf(site);
  let killed: Promise<boolean> | null = null;
  const onEvent = (event: Event) => {
    if (event.type !== 'step-started' || event.step.kind !== how.kind || killed !== null) return;
    killed = killReplica(site, how.whose, before);
  };
  const watch = how.kind === 'watch' && how.whose === 'new' ? patient : quick;
  const ran = await site.start(['deploy', '--again', '--strategy', how.strategy, ...watch], { onEvent })
    .ended;
  const hit = (await (killed as Promise<boolean> | null)) ?? false;
  const problems: string[] = [];
  if (![0, 5, 6].includes(ran.exitCode ?? -1))
    problems.push(`ended with ${ran.exitCode} ${ran.json?.error?.code}: ${ran.json?.error?.message}`);
  if (ran.exitCode !== 0) problems.push(...(await recover(site, 'resume')));
  problems.push(...(await whatIsNotWhole(site, before)));
  const where = `${how.strategy}, ${how.whose} replica in ${how.kind}`;
  return { where, hit, problems, exitCode: ran.exitCode, code: ran.json?.error?.code ?? null };
}

async function killReplica(site: Site, whose: 'old' | 'new', live: number): Promise<boolean> {
  const victims = (await site.containers()).filter(
    ({ Labels, State }) =>
      State === 'running' &&
      Labels[label.role] === 'game' &&
      (whose === 'old' ? Number(Labels[label.release]) === live : Number(Labels[label.release]) > live),
  );
  const victim = victims[0];
  if (!victim) return false;
  await site.docker.getContainer(victim.Id).kill();
  return true;
}

/** The next command of an operator; the lock of the dead process may stand for up to a second. */
export async function recover(site: Site, verb: 'resume' | 'deploy'): Promise<string[]> {
  for (let tries = 0; ; tries += 1) {
    const ran = await site.run(verb === 'deploy' ? ['deploy', ...quick] : ['resume']);
    if (ran.exitCode === 0) return [];
    if (ran.exitCode === 8 && tries < 1_200) {
      await sleep(500);
      continue;
    }
    return [`${verb} ended with ${ran.exitCode} ${ran.json?.error?.code}: ${ran.json?.error?.message}`];
  }
}

export async function liveOf(site: Site): Promise<number> {
  const releases: { id: number; verdict: string }[] =
    (await site.run(['releases'])).json?.result?.releases ?? [];
  return releases.find((release) => release.verdict === 'live')?.id ?? 0;
}

/** @returns what is not as it must be when a deploy is over, however it ended */
export async function whatIsNotWhole(site: Site, liveBefore: number): Promise<string[]> {
  const problems: string[] = [];
  // Side by side: a resume with nothing to do changes nothing that the others look at.
  const [resumed, shown, told, live] = await Promise.all([
    site.run(['resume']),
    site.run(['deploy', '--plan']),
    site.run(['status']),
    liveOf(site),
  ]);
  if (resumed.exitCode !== 0 || stepsOf(resumed).length > 0) {
    const kinds = stepsOf(resumed).map((step) => step.kind);
    problems.push(`a second resume ended with ${resumed.exitCode} and did: ${kinds.join(', ')}`);
  }
  const planned: { kind: string }[] = shown.json?.result?.plan.steps ?? [{ kind: 'no plan' }];
  if (planned.length > 0) problems.push(`deploy still plans: ${planned.map(({ kind }) => kind).join(', ')}`);

  const status = told.json?.result;
  if (!status) return [...problems, `status ended with ${told.exitCode}: ${told.stdout}`];
  if (live < liveBefore) problems.push(`release ${live} is live, but ${liveBefore} was`);
  if (status.unfinished !== null) problems.push(`unfinished: ${JSON.stringify(status.unfinished)}`);
  const wanted = status.fleets.find((fleet: { release: number }) => fleet.release === live)?.wanted ?? 0;
  const routes = JSON.stringify(status.traffic);
  const replicas = Array.from({ length: wanted }, (_, index) => index + 1);
  if (routes !== JSON.stringify([{ release: live, replicas }])) problems.push(`traffic goes to ${routes}`);
  problems.push(...strays(await site.containers(), site.project, live, wanted));
  return problems;
}

type Containers = Awaited<ReturnType<Site['containers']>>;

function strays(containers: Containers, project: string, live: number, wanted: number): string[] {
  const problems: string[] = [];
  const up = containers.filter(({ Labels, State }) => Labels[label.role] === 'game' && State !== 'exited');
  const ofLive = up.filter(
    ({ Labels, State }) => Number(Labels[label.release]) === live && State === 'running',
  );
  if (ofLive.length !== wanted || up.length !== wanted)
    problems.push(
      `${wanted} replicas of ${live} wanted, there are: ${up.map(({ Names, State }) => `${Names[0]} ${State}`).join(', ')}`,
    );
  const carrier = `/${namesOf(project).carrier}`;
  const temporary = containers.filter(
    ({ Labels, Names }) =>
      ['lock', 'one-off'].includes(Labels[label.role] ?? '') ||
      (Labels[label.role] === 'carrier' && !Names.includes(carrier)),
  );
  if (temporary.length > 0)
    problems.push(`left behind: ${temporary.map(({ Names, State }) => `${Names[0]} ${State}`).join(', ')}`);
  return problems;
}

async function whatClientsSaw(clients: Clients): Promise<string[]> {
  const seen = await clients.window();
  return seen.failed === 0 ? [] : [`${inWords(seen)}: ${seen.examples.slice(0, 5).join('; ')}`];
}
