/**
 * The numbers of "nobody notices a deploy", in full: `npm run test:soak -- deploy`. Prints what it sees as it goes and
 * a table at the end; exits 1 when a number is missed. Works on a project of its own and leaves nothing.
 */
import { type Clients, type ClientsReport, inWords, startClients } from '../support/players/clients.ts';
import { openSite, type Site } from '../support/site/site.ts';
import { daemonRestart } from './daemon-restart.ts';
import {
  interruptAndResume,
  killAndRecover,
  killReplicaIn,
  type Moment,
  type Strategy,
  type Struck,
} from './scenarios.ts';

const scale = Number(process.env.GAMEOPS_SOAK_SCALE ?? '1');
const asked = Object.fromEntries(process.argv.slice(2).map((pair) => pair.split('=')));
const count = (key: string, full: number) =>
  asked[key] === undefined ? Math.ceil(full * scale) : Number(asked[key]);

const counts = {
  /** Of each strategy. */
  deploys: count('deploys', 20),
  kills: count('kills', 52),
  interrupts: count('interrupts', 12),
  replicas: count('replicas', 8),
  daemon: count('daemon', 1),
};
const limit = { silenceMs: 500, p99Ratio: 2 };
/** Step boundaries of a blue-green deploy of a project that has some; rolling with two replicas has seven more. */
const boundaries = { 'blue-green': 11, rolling: 18 } as const;

const began = Date.now();
const rows: string[][] = [];
const missed: string[] = [];
const say = (text: string) =>
  console.log(`[${((Date.now() - began) / 1000).toFixed(0).padStart(5)} s] ${text}`);

function judge(what: string, value: string, isMet: boolean): void {
  rows.push([what, value, isMet ? 'met' : 'MISSED']);
  if (!isMet) missed.push(what);
}

/** Windows of the same clients without any deploy, before and after, because a shared machine may become slower. */
async function quiet(clients: Clients, seconds: number): Promise<ClientsReport> {
  await clients.window();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1_000));
  const seen = await clients.window();
  say(`without a deploy: ${inWords(seen)}`);
  return seen;
}

async function deploys(site: Site): Promise<void> {
  const clients = await startClients({ url: await site.url(), clients: 32, players: 16 });
  const total = { sent: 0, failed: 0, resets: 0, silenceMs: 0 };
  const without: number[] = [];
  const during: number[] = [];
  const failedDeploys: string[] = [];
  try {
    for (let n = 0; n < counts.deploys * 2; n += 1) {
      const strategy: Strategy = n % 2 === 0 ? 'blue-green' : 'rolling';
      if (n % 4 === 0) without.push((await quiet(clients, 8)).p99Ms);
      await clients.window();
      const ran = await site.run(['deploy', '--again', '--strategy', strategy, '--watch', '1s']);
      const seen = await clients.window();
      if (ran.exitCode !== 0) failedDeploys.push(`${n}: ${ran.exitCode} ${ran.json?.error?.message}`);
      total.sent += seen.sent;
      total.failed += seen.failed;
      total.resets += seen.failures.ECONNRESET ?? 0;
      total.silenceMs = Math.max(total.silenceMs, seen.longestSilenceMs);
      during.push(seen.p99Ms);
      say(
        `${strategy} ${Math.floor(n / 2) + 1}, ${(ran.ms / 1000).toFixed(1)} s: ${inWords(seen)} ${seen.examples[0] ?? ''}`,
      );
    }
    without.push((await quiet(clients, 10)).p99Ms);
  } finally {
    const last = await clients.stop();
    rows.push([
      'players on / broken',
      `${last.players.on} of ${last.players.of} / ${last.players.broken}`,
      '',
    ]);
    judge('players lost', String(last.players.of - last.players.on), last.players.on === last.players.of);
    judge(
      'players’ longest way back',
      `${last.players.longestAwayMs} ms`,
      last.players.longestAwayMs < 10_000,
    );
  }
  const ratio = median(during) / median(without);
  judge(
    'deploys under 32 clients',
    `${counts.deploys} + ${counts.deploys} rolling`,
    failedDeploys.length === 0,
  );
  judge('requests', String(total.sent), total.sent > 0);
  judge('failed', String(total.failed), total.failed === 0);
  judge('resets', String(total.resets), total.resets === 0);
  judge(
    'longest silence',
    `${total.silenceMs} ms (≤ ${limit.silenceMs})`,
    total.silenceMs <= limit.silenceMs,
  );
  judge(
    'p99 with / without',
    `${median(during)} / ${median(without)} ms = ${ratio.toFixed(2)} (≤ ${limit.p99Ratio}), worst ${Math.max(...during)} ms`,
    ratio <= limit.p99Ratio,
  );
  for (const failure of failedDeploys) say(`FAILED deploy ${failure}`);
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

/** Every boundary of both strategies, then random moments; `kills` of them, spread over the whole deploy. */
function moments(wanted: number): { strategy: Strategy; moment: Moment }[] {
  const all = (['blue-green', 'rolling'] as const).flatMap((strategy) =>
    Array.from({ length: boundaries[strategy] }, (_, index) =>
      (['step-started', 'step-done'] as const).map((at) => ({ strategy, moment: { at, nth: index + 1 } })),
    ).flat(),
  );
  // Each step's end is followed at once by the next one's start; half of the sweep does for rolling.
  const sweep = all.filter(
    ({ strategy, moment }) => strategy === 'blue-green' || moment.at === 'step-started',
  );
  const fixed = sweep.filter(
    (_, index) => index % Math.ceil(sweep.length / Math.max(1, wanted * 0.75)) === 0,
  );
  const chance = Array.from({ length: Math.max(0, wanted - fixed.length) }, (_, index) => ({
    strategy: index % 2 === 0 ? ('blue-green' as const) : ('rolling' as const),
    moment: { afterMs: 300 + Math.round(Math.random() * 12_000) },
  }));
  return [...fixed, ...chance].slice(0, wanted);
}

function tell(struck: Struck, n: number, of: number): boolean {
  say(
    `${n + 1} of ${of}: ${struck.where}: ${struck.problems.length === 0 ? (struck.hit ? 'whole' : 'was over before') : struck.problems.join(' | ')}`,
  );
  return struck.problems.length === 0;
}

async function kills(site: Site): Promise<void> {
  const clients = await startClients({ url: await site.url(), clients: 16, pauseMs: 5 });
  let good = 0;
  let hits = 0;
  const planned = moments(counts.kills);
  try {
    for (const [n, { strategy, moment }] of planned.entries()) {
      const recovery = n % 3 === 2 ? 'deploy' : 'resume';
      const struck = await killAndRecover(site, clients, { strategy, moment, recovery });
      if (struck.hit) hits += 1;
      if (tell(struck, n, planned.length)) good += 1;
    }
    judge('SIGKILL', `${planned.length}, ${hits} hit, ${good} whole and unnoticed`, good === planned.length);
    let quietOnes = 0;
    for (let n = 0; n < counts.interrupts; n += 1) {
      const nth = 1 + Math.floor((n * boundaries['blue-green']) / counts.interrupts);
      const moment = { at: 'step-started', nth } as const;
      const struck = await interruptAndResume(site, clients, { strategy: 'blue-green', moment });
      if (tell(struck, n, counts.interrupts)) quietOnes += 1;
    }
    judge(
      'Ctrl-C',
      `${counts.interrupts}, ${quietOnes} whole and unnoticed`,
      quietOnes === counts.interrupts,
    );
  } finally {
    await clients.stop();
  }
}

const victims = [
  { kind: 'start-fleet', whose: 'old' },
  { kind: 'await-ready', whose: 'new' },
  { kind: 'switch-traffic', whose: 'new' },
  { kind: 'watch', whose: 'new' },
  { kind: 'watch', whose: 'old' },
  { kind: 'quiesce', whose: 'new' },
  { kind: 'commit', whose: 'new' },
  { kind: 'drain', whose: 'old' },
] as const;

/** Reads only: a POST in a replica that is killed is lost with it, and nobody may send it again. */
async function replicaKills(site: Site): Promise<void> {
  const clients = await startClients({
    url: await site.url(),
    clients: 8,
    pauseMs: 20,
    paths: ['/api/version'],
  });
  let good = 0;
  let failed = 0;
  try {
    for (let n = 0; n < counts.replicas; n += 1) {
      const victim = victims[n % victims.length] ?? victims[0];
      await clients.window();
      const struck = await killReplicaIn(site, { ...victim, strategy: 'blue-green' });
      const seen = await clients.window();
      failed += seen.failed;
      say(
        `exit ${struck.exitCode} ${struck.code ?? ''}; ${inWords(seen)} ${seen.examples.slice(0, 3).join('; ')}`,
      );
      if (tell(struck, n, counts.replicas)) good += 1;
    }
  } finally {
    await clients.stop();
  }
  judge('replica kills', `${counts.replicas}, ${good} whole`, good === counts.replicas);
  judge('GETs failed meanwhile', String(failed), failed === 0);
}

async function main(): Promise<number> {
  const site = await openSite({ replicas: 2, name: 'soak' });
  try {
    const first = await site.run(['deploy', '--watch', '1s']);
    if (first.exitCode !== 0) throw new Error(`first deploy: ${first.stdout}`);
    if (counts.deploys > 0) await deploys(site);
    if (counts.kills + counts.interrupts > 0) await kills(site);
    if (counts.replicas > 0) await replicaKills(site);
  } finally {
    await site.close().catch((error: Error) => judge('leftovers', error.message, false));
  }
  if (counts.daemon > 0) {
    const { summary, problems } = await daemonRestart(say);
    judge(
      'Docker daemon restarted',
      problems.length === 0 ? summary : problems.join(' | '),
      problems.length === 0,
    );
  }
  const widths = [0, 1].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  console.log(
    `\n${rows
      .map((row) =>
        row
          .map((cell, n) => cell.padEnd(widths[n] ?? 0))
          .join('   ')
          .trimEnd(),
      )
      .join('\n')}`,
  );
  console.log(missed.length === 0 ? '\nAll numbers met.' : `\nMissed: ${missed.join(', ')}`);
  return missed.length === 0 ? 0 : 1;
}

process.exit(await main());
