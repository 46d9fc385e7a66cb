/** Runs inside the namespaces of daemon-restart.ts: starts an engine there, deploys on it, restarts it during the deploy. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import Docker from 'dockerode';
import { label } from '../../src/contract.ts';
import type { Event } from '../../src/report/events.ts';
import { openSite, type Site } from '../support/site/site.ts';
import type { DaemonReport } from './daemon-restart.ts';
import { liveOf, recover, whatIsNotWhole } from './scenarios.ts';

const [state = '', holder = ''] = process.argv.slice(2);
const socket = join(state, 'docker.sock');
const own = new Docker({ socketPath: socket });
const machines = new Docker({ socketPath: '/var/run/docker.sock' });
const say = (text: string) => void process.send?.(text);

async function startEngine(): Promise<ChildProcess> {
  const log = openSync(join(state, 'dockerd.log'), 'a', 0o600);
  const daemon = spawn(
    'nsenter',
    [
      `--mount=/proc/${holder}/ns/mnt`,
      '--',
      'dockerd',
      '--data-root',
      join(state, 'data'),
      '--exec-root',
      '/run/docker',
      '--pidfile',
      '/run/docker.pid',
      '-H',
      `unix://${socket}`,
    ],
    { stdio: ['ignore', log, log] },
  );
  for (let tries = 0; tries < 150; tries += 1) {
    if (
      await own.ping().then(
        () => true,
        () => false,
      )
    )
      return daemon;
    if (daemon.exitCode !== null) break;
    await sleep(200);
  }
  throw new Error(`the engine did not come up; it says why in ${state}/dockerd.log`);
}

async function copyImages(): Promise<void> {
  const filters = { label: [label.content, `${label.role}=image`] };
  const tags = (await machines.listImages({ filters: JSON.stringify(filters) })).flatMap(
    ({ RepoTags }) => RepoTags ?? [],
  );
  const wanted = tags.filter((tag) => tag.startsWith('gameops-debian:'));
  // Official images come from the machine's own engine, because the engine inside has no network to pull them.
  for (const tag of wanted) {
    const loaded = await own.loadImage((await machines.getImage(tag).get()) as never);
    loaded.resume();
    await once(loaded, 'end');
  }
}

/** Restarts the engine while a deploy is in the step, then resumes until the deploy is done. */
async function restartIn(
  site: Site,
  kind: string,
  before: ChildProcess,
): Promise<{ daemon: ChildProcess; problems: string[] }> {
  const live = await liveOf(site);
  let restarted: Promise<ChildProcess> | null = null;
  const restart = async () => {
    before.kill('SIGTERM');
    await once(before, 'exit');
    return startEngine();
  };
  const onEvent = (event: Event) => {
    if (event.type === 'step-started' && event.step.kind === kind) restarted ??= restart();
  };
  const ran = await site.start(['deploy', '--again', '--watch', '2s'], { onEvent }).ended;
  const daemon = (await (restarted as Promise<ChildProcess> | null)) ?? before;
  say(`engine restarted in ${kind}: exit ${ran.exitCode} ${ran.json?.error?.code ?? ''}`);
  const problems: string[] = [];
  if (daemon === before) problems.push('was over before');
  if (![4, 5, 6].includes(ran.exitCode ?? -1) || !ran.json?.error?.next[0])
    problems.push(`exit ${ran.exitCode}: ${ran.stdout}`);
  problems.push(...(await recover(site, 'resume')), ...(await whatIsNotWhole(site, live)));
  return { daemon, problems: problems.map((problem) => `${kind}: ${problem}`) };
}

async function main(): Promise<DaemonReport> {
  let daemon = await startEngine();
  await copyImages();
  const site = await openSite({ replicas: 2, name: 'daemon' });
  const problems: string[] = [];
  const kinds = ['await-ready', 'watch', 'drain'];
  try {
    const first = await site.run(['deploy', '--watch', '1s']);
    if (first.exitCode !== 0) return { summary: '', problems: [`first deploy: ${first.stdout}`] };
    for (const kind of kinds) {
      const done = await restartIn(site, kind, daemon);
      daemon = done.daemon;
      for (const problem of done.problems) say(problem);
      problems.push(...done.problems);
    }
  } finally {
    await site.close().catch((error: Error) => problems.push(error.message));
  }
  return { summary: `in ${kinds.join(', ')}: resumed to an empty plan each time`, problems };
}

const report = await main().catch(
  (error: Error): DaemonReport => ({ summary: '', problems: [error.message] }),
);
process.send?.(report, () => process.exit());
