/**
 * `npm run bench:players -- [players=10000 rounds=3 deploys=10 only=steady,deploy,kill,stalled,row]`: what players feel
 * while they play, while a release comes, while a server dies and while one of them stops reading; over TLS, in
 * containers, with the load beside it on the same machine. Prints a table with the limits and how busy machine and
 * load were; exits 1 when a limit was missed. Works on a project of its own and leaves nothing.
 */
import { cpus, loadavg } from 'node:os';
import type { LoadReport } from '../../src/observe/load.ts';
import { startHttpProbe } from '../support/http-probe.ts';
import { startLoad } from '../support/load.ts';
import { openTlsSite, type TlsSite } from '../support/tls-site.ts';
import {
  cpuSeconds,
  gameProcesses,
  machineCpuSeconds,
  memoryOf,
  pidOf,
  rssMiB,
  takeLoopP99Ms,
} from '../support/vital-signs.ts';
import { manyDeploys } from './players-in-a-row.ts';
import { stalledReader } from './players-stalled.ts';
import { judge, median, missed, say, sleep, table, worst } from './table.ts';

const asked = Object.fromEntries(process.argv.slice(2).map((pair) => pair.split('=')));
const players = Number(asked.players ?? 10_000);
const rounds = Number(asked.rounds ?? 3);
const deploys = Number(asked.deploys ?? 10);
const only: string[] = (asked.only ?? 'steady,deploy,kill,stalled,row').split(',');
const replicas = 2;
/** Twice the heartbeat. */
const steadyMs = 60_000;
const deployMs = 110_000;
const killMs = 100_000;
const ghosts = Math.min(300, Math.ceil(players / 10));

function host(report: LoadReport): string {
  const lag = report.generatorLagMs;
  return `load average ${loadavg()[0]?.toFixed(1)} on ${cpus().length} cores; load's own event loop p99 ${lag.p99} ms, max ${lag.max} ms`;
}

interface Steady {
  report: LoadReport;
  rssMiB: number;
  loopP99Ms: number;
}

async function steady(ground: TlsSite): Promise<Steady> {
  const { site } = ground;
  const load = startLoad(ground, players, steadyMs + 5_000);
  await load.playing;
  await sleep(2_000);
  const games = await gameProcesses(site);
  const nginx = await pidOf(site, 'proxy');
  const redis = await pidOf(site, 'redis');
  await Promise.all(games.map(takeLoopP99Ms));
  const [gameBefore, redisBefore, allBefore] = [
    games.map(({ pid }) => cpuSeconds(pid)),
    cpuSeconds(redis),
    machineCpuSeconds(),
  ];
  await sleep(steadyMs);
  const loops = await Promise.all(games.map(takeLoopP99Ms));
  const seconds = steadyMs / 1_000;
  const game = games.map(({ pid }, n) => (cpuSeconds(pid) - (gameBefore[n] ?? 0)) / seconds);
  const busy = (machineCpuSeconds() - allBefore) / seconds;
  const rss = games.map(({ pid }) => rssMiB(pid));
  const report = await load.report();
  const { rttMs, deliveryMs } = report;
  say(
    `steady: ${Math.round(report.received / (report.ms / 1_000))} deliveries/s; servers ${rss.join(' + ')} MiB, loop p99 ${loops.join(', ')} ms, ` +
      `${game.map((one) => one.toFixed(2)).join(' + ')} cores; Redis ${((cpuSeconds(redis) - redisBefore) / seconds).toFixed(2)}, Nginx ${rssMiB(nginx)} MiB (master); machine ${busy.toFixed(2)} of ${cpus().length} cores; ` +
      `rtt p50 ${rttMs.p50} p99 ${rttMs.p99} max ${rttMs.max}, delivery p99 ${deliveryMs.p99} max ${deliveryMs.max}; lost ${report.lost}, twice ${report.duplicated}`,
  );
  say(`  ${host(report)}`);
  return { report, rssMiB: Math.max(...rss), loopP99Ms: Math.max(...loops) };
}

async function walk(ground: TlsSite) {
  const { site, httpsUrl, certificateFile } = ground;
  const load = startLoad(ground, players, deployMs);
  await load.playing;
  const http = startHttpProbe(httpsUrl, certificateFile, 50, ['/api/version', '/api/regions', '/']);
  await sleep(5_000);
  const ran = await site.run(['deploy', '--again', '--watch', '3s', '--drain', '90s']);
  const isOver = load.running.process.exitCode !== null;
  await sleep(2_000);
  const seen = await http.stop();
  const report = await load.report();
  if (ran.exitCode !== 0) say(`deploy ended with ${ran.exitCode}: ${ran.stdout.slice(0, 500)}`);
  if (isOver) say('the load ended before the deploy did: its numbers leave out the end');
  const steps: { kind: string; ms: number }[] = ran.json?.result?.steps ?? [];
  const drainMs = steps.filter(({ kind }) => kind === 'drain').reduce((sum, { ms }) => sum + ms, 0);
  const told = ran.json?.result?.players;
  const { gapMs, deliveryMs, rttMs } = report;
  say(
    `deploy ${(ran.ms / 1_000).toFixed(1)} s, drain ${(drainMs / 1_000).toFixed(1)} s, told ${JSON.stringify(told)}: moved ${report.moved}, came back ${report.resumed}, anew ${report.anew}, lost ${report.lost}, twice ${report.duplicated}, failed ${report.failed}; ` +
      `gap p99 ${gapMs.p99} max ${gapMs.max}, delivery p99 ${deliveryMs.p99} max ${deliveryMs.max}, rtt p99 ${rttMs.p99}; false offline ${report.falseOffline}; ` +
      `HTTP ${seen.sent} sent ${seen.failed} failed p95 ${seen.p95Ms} p99 ${seen.p99Ms} max ${seen.maxMs} ${seen.examples.join('; ')}`,
  );
  say(`  ${host(report)}`);
  return { report, http: seen, drainMs, isWhole: ran.exitCode === 0 && !isOver };
}

/** A server dies, and with it some players who never come back: they must not stay on the list. */
async function kill(ground: TlsSite) {
  const { site } = ground;
  const memory = await memoryOf(site);
  const gone = startLoad(ground, ghosts, 600_000);
  await gone.playing;
  const load = startLoad(ground, players, killMs);
  await load.playing;
  await sleep(5_000);
  const [victim] = await gameProcesses(site);
  gone.running.process.kill('SIGKILL');
  if (victim) process.kill(victim.pid, 'SIGKILL');
  const killedAt = performance.now();
  await sleep(75_000);
  const present = await memory.present();
  const sinceMs = performance.now() - killedAt;
  const report = await load.report();
  const { gapMs } = report;
  memory.close();
  say(
    `kill: came back ${report.resumed}, anew ${report.anew}, failed ${report.failed} (last code ${report.lastCode}), lost ${report.lost}, twice ${report.duplicated}, way back p50 ${gapMs.p50} p99 ${gapMs.p99} max ${gapMs.max}; ` +
      `${present} present of ${players} after ${(sinceMs / 1_000).toFixed(0)} s`,
  );
  say(`  ${host(report)}`);
  await site.run(['resume']);
  return { report, ghosts: present - players };
}

async function repeat<T>(name: string, work: () => Promise<T>): Promise<T[]> {
  const all: T[] = [];
  for (let round = 0; only.includes(name) && round < rounds; round += 1) all.push(await work());
  return all;
}

const ground = await openTlsSite('players', {
  server: { replicas, memory: '512m', cpus: 2 },
  deploy: { drain: '90s' },
});
try {
  const quiet = await repeat('steady', () => steady(ground));
  if (quiet.length > 0) {
    const of = (value: (one: Steady) => number) => quiet.map(value);
    judge(
      'server RSS, MiB, largest',
      of((one) => one.rssMiB),
      256,
      worst,
    );
    judge(
      'event loop p99, ms',
      of((one) => one.loopP99Ms),
      20,
      median,
    );
    judge(
      'round trip p99, ms',
      of((one) => one.report.rttMs.p99),
      50,
      median,
    );
    judge(
      'lost + twice, steady',
      of(({ report }) => report.lost + report.duplicated),
      0,
      worst,
    );
  }
  const walks = await repeat('deploy', () => walk(ground));
  if (walks.length > 0) {
    const of = (value: (one: Awaited<ReturnType<typeof walk>>) => number) => walks.map(value);
    judge(
      'deploys that failed',
      of((one) => (one.isWhole ? 0 : 1)),
      0,
      worst,
    );
    judge(
      'deploy: lost',
      of(({ report }) => report.lost),
      0,
      worst,
    );
    judge(
      'deploy: duplicated',
      of(({ report }) => report.duplicated),
      0,
      worst,
    );
    judge(
      'deploy: failed HTTP',
      of(({ http }) => http.failed),
      0,
      worst,
    );
    judge(
      'deploy: player gap max, ms',
      of(({ report }) => report.gapMs.max),
      250,
      worst,
    );
    judge(
      'deploy: delivery max, ms',
      of(({ report }) => report.deliveryMs.max),
      1_000,
      worst,
    );
    judge(
      'deploy: drain, s',
      of(({ drainMs }) => drainMs / 1_000),
      45,
      worst,
    );
    judge(
      'deploy: false offline',
      of(({ report }) => report.falseOffline),
      0,
      worst,
    );
    judge(
      'deploy: HTTP P95, ms',
      of(({ http }) => http.p95Ms),
      200,
      median,
    );
    judge(
      'deploy: HTTP P99, ms',
      of(({ http }) => http.p99Ms),
      500,
      median,
    );
  }
  const kills = await repeat('kill', () => kill(ground));
  if (kills.length > 0) {
    const of = (value: (one: Awaited<ReturnType<typeof kill>>) => number) => kills.map(value);
    judge(
      'kill: longest way back, s',
      of(({ report }) => report.gapMs.max / 1_000),
      8,
      worst,
    );
    judge(
      'kill: gave up',
      of(({ report }) => report.failed),
      0,
      worst,
    );
    judge(
      'kill: lost',
      of(({ report }) => report.lost),
      0,
      worst,
    );
    judge(
      'kill: ghosts after 75 s',
      of((one) => Math.abs(one.ghosts)),
      0,
      worst,
    );
  }
  if (only.includes('stalled')) await stalledReader(ground, rounds);
  if (only.includes('row')) await manyDeploys(ground, players, deploys);
} finally {
  await ground.site.close();
}
table();
process.exitCode = missed() ? 1 : 0;
