/**
 * `npm run bench:players -- [players=10000 rounds=3 deploys=10 only=steady,deploy,kill,stalled,row]`: what players notice
 * while they play, during a deploy, when a server dies, and when one of them stops reading; over TLS, in containers, with
 * the load on the same machine. Prints a table with the limits and how busy the machine and the load were; exits 1 when a
 * limit was missed. Works on a project of its own and leaves nothing.
 */
import { cpus, loadavg } from 'node:os';
import type { LoadReport } from '../../src/load/load.ts';
import { startHttpProbe } from '../support/players/http-probe.ts';
import { startLoad } from '../support/players/load.ts';
import { openTlsSite, type TlsSite } from '../support/site/tls-site.ts';
import {
  cpuSeconds,
  gameProcesses,
  machineCpuSeconds,
  memoryOf,
  pidOf,
  rssMB,
  takeGauges,
} from '../support/site/vital-signs.ts';
import { manyDeploys } from './players-in-a-row.ts';
import { stalledReader } from './players-stalled.ts';
import { judgeLeast, judgeRounds, median, missed, say, sleep, table, worst } from './table.ts';

const asked = Object.fromEntries(process.argv.slice(2).map((pair) => pair.split('=')));
const players = Number(asked.players ?? 10_000);
const rounds = Number(asked.rounds ?? 3);
const deploys = Number(asked.deploys ?? 10);
const parts = ['steady', 'deploy', 'kill', 'stalled', 'row'];
const only: string[] = asked.only?.split(',') ?? parts;
const replicas = 2;
/** Twice the heartbeat. */
const steadyMs = 60_000;
const deployMs = 110_000;
const killMs = 100_000;
const ghosts = Math.min(300, Math.ceil(players / 10));
/** Every player hears one message a second. A window cuts into a second, so 9,995 a second may be seen instead of 10,000. */
const steadyPlayers = Math.ceil(players * 1.02);

function host(report: LoadReport): string {
  const lag = report.generatorLagMs;
  return `load average ${loadavg()[0]?.toFixed(1)} on ${cpus().length} cores; load's own event loop p99 ${lag.p99} ms, max ${lag.max} ms`;
}

interface Steady {
  report: LoadReport;
  /** Of all players that were sent, when all had joined or failed. */
  outside: number;
  perSecond: number;
  rssMB: number;
  loopP99Ms: number;
}

async function steady(tls: TlsSite): Promise<Steady> {
  const { site } = tls;
  const load = startLoad(tls, steadyPlayers, steadyMs + 5_000);
  const outside = steadyPlayers - (await load.playing);
  await sleep(2_000);
  const games = await gameProcesses(site);
  const nginx = await pidOf(site, 'proxy');
  const redis = await pidOf(site, 'redis');
  const before = await Promise.all(games.map(takeGauges));
  const [begun, gameBefore, redisBefore, allBefore] = [
    performance.now(),
    games.map(({ pid }) => cpuSeconds(pid)),
    cpuSeconds(redis),
    machineCpuSeconds(),
  ];
  await sleep(steadyMs);
  const after = await Promise.all(games.map(takeGauges));
  const seconds = (performance.now() - begun) / 1_000;
  const loops = after.map(({ loopP99Ms }) => loopP99Ms);
  const told = after.map(({ deliveries }, n) => deliveries - (before[n]?.deliveries ?? Number.NaN));
  const perSecond = told.reduce((sum, one) => sum + one, 0) / seconds;
  const game = games.map(({ pid }, n) => (cpuSeconds(pid) - (gameBefore[n] ?? 0)) / seconds);
  const busy = (machineCpuSeconds() - allBefore) / seconds;
  const rss = games.map(({ pid }) => rssMB(pid));
  const report = await load.report();
  const { rttMs, deliveryMs } = report;
  say(
    `steady: ${report.players} players, ${outside} of them not in, ${report.failed} failed; ${Math.round(perSecond)} deliveries/s; servers ${rss.join(' + ')} MB, loop p99 ${loops.join(', ')} ms, ` +
      `${game.map((one) => one.toFixed(2)).join(' + ')} cores; Redis ${((cpuSeconds(redis) - redisBefore) / seconds).toFixed(2)}, Nginx ${rssMB(nginx)} MB (master); machine ${busy.toFixed(2)} of ${cpus().length} cores; ` +
      `rtt p50 ${rttMs.p50} p99 ${rttMs.p99} max ${rttMs.max}, delivery p99 ${deliveryMs.p99} max ${deliveryMs.max}; lost ${report.lost}, twice ${report.duplicated}`,
  );
  say(`  ${host(report)}`);
  return { report, outside, perSecond, rssMB: Math.max(...rss), loopP99Ms: Math.max(...loops) };
}

async function walk(tls: TlsSite) {
  const { site, httpsUrl, certificateFile } = tls;
  const load = startLoad(tls, players, deployMs);
  const outside = players - (await load.playing);
  const http = startHttpProbe(httpsUrl, certificateFile, 50, ['/api/version', '/api/regions', '/']);
  await sleep(5_000);
  const ran = await site.run(['deploy', '--again', '--watch', '3s', '--drain', '90s']);
  const isOver = load.running.process.exitCode !== null;
  await sleep(2_000);
  const seen = await http.stop();
  const report = await load.report();
  if (ran.exitCode !== 0) say(`deploy ended with ${ran.exitCode}: ${ran.stdout.slice(0, 500)}`);
  if (isOver) say('the load ended before the deploy did, so its numbers do not cover the end');
  const steps: { kind: string; ms: number }[] = ran.json?.result?.steps ?? [];
  const drainMs = steps.filter(({ kind }) => kind === 'drain').reduce((sum, { ms }) => sum + ms, 0);
  const told = ran.json?.result?.players;
  const { gapMs, deliveryMs, rttMs } = report;
  say(
    `deploy ${(ran.ms / 1_000).toFixed(1)} s, drain ${(drainMs / 1_000).toFixed(1)} s, told ${JSON.stringify(told)}: not in ${outside}, moved ${report.moved}, came back ${report.resumed}, anew ${report.anew}, lost ${report.lost}, twice ${report.duplicated}, failed ${report.failed}; ` +
      `gap p99 ${gapMs.p99} max ${gapMs.max}, delivery p99 ${deliveryMs.p99} max ${deliveryMs.max}, rtt p99 ${rttMs.p99}; false offline ${report.falseOffline}; ` +
      `HTTP ${seen.sent} sent ${seen.failed} failed p95 ${seen.p95Ms} p99 ${seen.p99Ms} max ${seen.maxMs} ${seen.examples.join('; ')}`,
  );
  say(`  ${host(report)}`);
  return {
    report,
    outside,
    http: seen,
    drainMs,
    isWhole: ran.exitCode === 0 && !isOver,
    // Not a number when the deploy did not tell, so that it never counts as none.
    toldLost: Number(told?.lost ?? Number.NaN),
  };
}

/** A server dies, and some of its players never come back: these must not stay on the list. */
async function kill(tls: TlsSite) {
  const { site } = tls;
  const memory = await memoryOf(site);
  const gone = startLoad(tls, ghosts, 600_000);
  const goneOutside = ghosts - (await gone.playing);
  await sleep(2_000);
  const others = new Set(await memory.present());
  const load = startLoad(tls, players, killMs);
  const outside = goneOutside + players - (await load.playing);
  await sleep(5_000);
  const own = new Set((await memory.present()).filter((id) => !others.has(id)));
  const [victim] = await gameProcesses(site);
  if (!victim) throw new Error(`${site.project} has no server to be killed`);
  gone.running.process.kill('SIGKILL');
  process.kill(victim.pid, 'SIGKILL');
  const killedAt = performance.now();
  await sleep(75_000);
  const present = await memory.present();
  const sinceMs = performance.now() - killedAt;
  const report = await load.report();
  const { gapMs } = report;
  memory.close();
  // Counted apart: a missing player must not make up for a ghost.
  const back = present.filter((id) => own.has(id)).length;
  const seen = { missing: players - back, ghosts: present.length - back };
  say(
    `kill: not in ${outside}, came back ${report.resumed}, anew ${report.anew}, failed ${report.failed} (last code ${report.lastCode}), lost ${report.lost}, twice ${report.duplicated}, way back p50 ${gapMs.p50} p99 ${gapMs.p99} max ${gapMs.max}; ` +
      `${present.length} present of ${players} after ${(sinceMs / 1_000).toFixed(0)} s: ${seen.missing} missing, ${seen.ghosts} ghosts`,
  );
  say(`  ${host(report)}`);
  await site.run(['resume']);
  return { report, outside, ...seen };
}

async function repeat<T>(work: () => Promise<T>): Promise<T[]> {
  const all: T[] = [];
  for (let round = 0; round < rounds; round += 1) all.push(await work());
  return all;
}

function judgeSteady(all: readonly Steady[]): void {
  judgeLeast(
    'deliveries/s',
    all.map(({ perSecond }) => perSecond),
    players,
  );
  judgeRounds(all, [
    ['server RSS, MB, largest', (one) => one.rssMB, 256, worst],
    ['event loop p99, ms', (one) => one.loopP99Ms, 20, median],
    ['round trip p99, ms', ({ report }) => report.rttMs.p99, 50, median],
    ['not in, or gave up, steady', ({ report, outside }) => outside + report.failed, 0, worst],
    ['lost + twice, steady', ({ report }) => report.lost + report.duplicated, 0, worst],
  ]);
}

function judgeDeploys(all: readonly Awaited<ReturnType<typeof walk>>[]): void {
  judgeRounds(all, [
    ['deploys that failed', ({ isWhole }) => (isWhole ? 0 : 1), 0, worst],
    ['deploy: not in, or gave up', ({ report, outside }) => outside + report.failed, 0, worst],
    ['deploy: lost', ({ report }) => report.lost, 0, worst],
    ['deploy: lost, by its own count', ({ toldLost }) => toldLost, 0, worst],
    ['deploy: duplicated', ({ report }) => report.duplicated, 0, worst],
    ['deploy: sessions begun anew', ({ report }) => report.anew, 0, worst],
    ['deploy: failed HTTP', ({ http }) => (http.sent > 0 ? http.failed : Number.NaN), 0, worst],
    ['deploy: player gap max, ms', ({ report }) => report.gapMs.max, 250, worst],
    ['deploy: delivery max, ms', ({ report }) => report.deliveryMs.max, 1_000, worst],
    ['deploy: drain, s', ({ drainMs }) => drainMs / 1_000, 45, worst],
    ['deploy: false offline', ({ report }) => report.falseOffline, 0, worst],
    ['deploy: HTTP P95, ms', ({ http }) => http.p95Ms, 200, median],
    ['deploy: HTTP P99, ms', ({ http }) => http.p99Ms, 500, median],
  ]);
}

function judgeKills(all: readonly Awaited<ReturnType<typeof kill>>[]): void {
  // If no player had to come back, nothing was proven.
  judgeLeast(
    'kill: came back',
    all.map(({ report }) => report.resumed),
    1,
  );
  judgeRounds(all, [
    ['kill: longest way back, s', ({ report }) => report.gapMs.max / 1_000, 8, worst],
    ['kill: not in, or gave up', ({ report, outside }) => outside + report.failed, 0, worst],
    ['kill: sessions begun anew', ({ report }) => report.anew, 0, worst],
    ['kill: lost', ({ report }) => report.lost, 0, worst],
    ['kill: ghosts after 75 s', (one) => one.ghosts, 0, worst],
    ['kill: players not present after 75 s', ({ missing }) => missing, 0, worst],
  ]);
}

const unknown = only.filter((part) => !parts.includes(part));
if (unknown.length > 0) throw new Error(`there is no ${unknown.join(', ')}; there is ${parts.join(', ')}`);
const tls = await openTlsSite('players', {
  server: { replicas, memory: '512m', cpus: 2 },
  deploy: { drain: '90s' },
});
try {
  if (only.includes('steady')) judgeSteady(await repeat(() => steady(tls)));
  if (only.includes('deploy')) judgeDeploys(await repeat(() => walk(tls)));
  if (only.includes('kill')) judgeKills(await repeat(() => kill(tls)));
  if (only.includes('stalled')) await stalledReader(tls, rounds);
  if (only.includes('row')) await manyDeploys(tls, players, deploys);
} finally {
  await tls.site.close();
}
table();
process.exitCode = missed() ? 1 : 0;
