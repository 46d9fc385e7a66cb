/**
 * `npm run bench:peers [rounds] [seconds] [kinds]`: broadcast to rooms of 50 by the bundled game server, beside bare
 * `ws`, Socket.IO with its Redis Streams adapter and Colyseus: same machine, same run, same offered loads, one server at a
 * time, interleaved. What counts is deliveries per CPU second of the server's process: at least 0.85 × bare `ws` and
 * 2 × Socket.IO. Every round proves that each member heard each message once; otherwise it fails.
 *
 * Bare `ws` promises nothing (no Redis, no order over servers, no resume, no bound for slow readers), so it is the
 * floor of what a delivery can cost in Node.
 *
 * Under the load `talk` both limits are missed. 0.85 × leaves 90 µs a message for everything that bare `ws` does not do.
 * The round trip to Redis that an acknowledgement stands for costs a Node process twice that at this rate; and
 * 2 × Socket.IO is more than bare `ws` itself. Under the load `play` both limits are met, because several messages of a
 * room at once are one write. Needs the build, an engine with images and, the first time, a registry.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../src/package-root.ts';
import { openTestGame, type TestGame } from '../support/players/test-game.ts';
import type { CrowdRequest, Proof, Window } from './peers/crowd.ts';
import type { Kind } from './peers/players.ts';
import { installPeers, startStack } from './peers/stacks.ts';

const rounds = Number(process.argv[2] ?? 3);
const steadyMs = Number(process.argv[3] ?? 12) * 1_000;
const only = process.argv[4]?.split(',');
const kinds = (['gameops', 'bare ws', 'Socket.IO', 'Colyseus'] as const).filter(
  (kind) => only?.includes(kind) ?? true,
);
const roomSize = 50;
/** `rate`: messages a second in each room. */
const loads = {
  /** Everybody says something every five seconds. */
  talk: { rooms: 20, rate: 10 },
  /** Everybody does something four times a second. */
  play: { rooms: 4, rate: 200 },
};
type Load = keyof typeof loads;
/** Until the code that runs often is compiled: V8's own threads take about ten seconds for it, and they are not measured. */
const warmMs = 15_000;
const limit = { bare: 0.85, socketIo: 2 };
/** The unit of /proc/<pid>/stat on Linux, whatever the kernel's own clock. */
const ticksPerSecond = 100;

interface Run {
  perCpuSecond: number;
  /** Cores. */
  cpu: number;
  rttMs: Window['rttMs'];
  perSecond: number;
  proof: Proof;
  generator: { lagMs: number; cpu: number };
  hostBusy: number;
}

async function cpuSeconds(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8');
  // The process name before it may contain anything, even spaces and brackets.
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

/** Busy core seconds of the whole machine since it started. */
const hostSeconds = () =>
  cpus().reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0) / 1_000;

async function measure(kind: Kind, load: Load, game: TestGame, peers: string): Promise<Run> {
  const stack = await startStack(kind, { game, peers, roomSize });
  const crowd = spawn(process.execPath, ['scripts/run.js', 'test/bench/peers/crowd.ts'], {
    cwd: packageRoot(),
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const gone = once(crowd, 'exit').then(([code]) => Promise.reject(new Error(`the crowd ended: ${code}`)));
  gone.catch(() => undefined);
  try {
    const ask = async <T>(word: 'window' | 'stop' | CrowdRequest): Promise<T> => {
      const answered = once(crowd, 'message');
      crowd.send(word);
      return (await Promise.race([answered, gone]))[0] as T;
    };
    const secret = game.settings.JWT_SECRET ?? '';
    await ask({ kind, url: stack.url, peers, secret, roomSize, ...loads[load] });
    await sleep(warmMs);
    const pids = [stack.pid, crowd.pid ?? 0];
    await ask('window');
    const [before, hostBefore] = [await Promise.all(pids.map(cpuSeconds)), hostSeconds()];
    await sleep(steadyMs);
    const seen = await ask<Window>('window');
    const [after, hostAfter] = [await Promise.all(pids.map(cpuSeconds)), hostSeconds()];
    const proof = await ask<Proof>('stop');
    const seconds = seen.ms / 1_000;
    const [server = 0, generator = 0] = after.map((spent, n) => spent - (before[n] ?? 0));
    return {
      perCpuSecond: seen.deliveries / server,
      cpu: server / seconds,
      rttMs: seen.rttMs,
      perSecond: seen.deliveries / seconds,
      proof,
      generator: { lagMs: seen.lagMs, cpu: generator / seconds },
      hostBusy: (hostAfter - hostBefore) / seconds / cpus().length,
    };
  } finally {
    await end(crowd);
    await stack.stop();
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
}

const median = (values: readonly number[]) =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
const count = (value: number) => Math.round(value).toLocaleString('en-US');
const say = (text: string) => process.stdout.write(`${text}\n`);
const proven = ({ expected, heard, wrong }: Proof) => expected > 0 && heard === expected && wrong === 0;

function line(kind: Kind, run: Run): string {
  const { proof, generator, rttMs } = run;
  return [
    kind.padEnd(9),
    `${count(run.perSecond)} deliveries/s with ${run.cpu.toFixed(3)} cores: ${count(run.perCpuSecond)} per CPU second`,
    `round trip p50 ${rttMs.p50} p99 ${rttMs.p99} ms`,
    `heard ${count(proof.heard)} of ${count(proof.expected)}${proven(proof) ? '' : `, ${proof.wrong} members wrong`}`,
    `generator ${generator.cpu.toFixed(2)} cores, lag p99 ${generator.lagMs} ms`,
    `host ${Math.round(run.hostBusy * 100)} % busy`,
  ].join(' · ');
}

function row(kind: Kind, runs: readonly Run[]): string {
  const values = runs.map(({ perCpuSecond }) => perCpuSecond);
  const p50 = median(runs.map(({ rttMs }) => rttMs.p50));
  const p99 = median(runs.map(({ rttMs }) => rttMs.p99));
  const cells = [
    kind.padEnd(9),
    count(median(values)).padStart(8),
    `${count(Math.min(...values))} to ${count(Math.max(...values))}`.padStart(18),
    median(runs.map(({ cpu }) => cpu))
      .toFixed(3)
      .padStart(7),
    String(p50).padStart(6),
    String(p99).padStart(6),
    runs.every(({ proof }) => proven(proof)) ? '  all' : '  NOT ALL',
  ];
  return cells.join('  ');
}

/** Says how the bundled server compares under one load. @returns whether that is within the limits */
function judge(load: Load, all: ReadonlyMap<Kind, Run[]>): boolean {
  say(`\n${load}: ${described(load)}`);
  say('deliveries per CPU second:  median            spread    cores  p50 ms  p99 ms  heard');
  for (const [kind, runs] of all) say(row(kind, runs));
  const rate = (kind: Kind) => median((all.get(kind) ?? []).map(({ perCpuSecond }) => perCpuSecond));
  const ratio = (kind: Kind, least: number) => {
    if (!all.has('gameops') || !all.has(kind)) return true;
    const value = rate('gameops') / rate(kind);
    say(`gameops / ${kind}: ${value.toFixed(2)} ×${least > 0 ? ` (limit ${least})` : ''}`);
    return value >= least;
  };
  const isComplete = [...all.values()].every((runs) => runs.every(({ proof }) => proven(proof)));
  const ratios = [ratio('bare ws', limit.bare), ratio('Socket.IO', limit.socketIo), ratio('Colyseus', 0)];
  return isComplete && ratios.every(Boolean);
}

function described(load: Load): string {
  const { rooms, rate } = loads[load];
  return `${rooms * roomSize} players in ${rooms} rooms of ${roomSize}, ${rooms * rate} messages/s`;
}

const peers = await installPeers();
const game = await openTestGame('peers');
const names = Object.keys(loads) as Load[];
const seen = new Map(names.map((load) => [load, new Map<Kind, Run[]>(kinds.map((kind) => [kind, []]))]));
try {
  for (let round = 1; round <= rounds; round += 1) {
    for (const [load, all] of seen) {
      if (round === 1) say(`${load}: ${described(load)}`);
      for (const [kind, runs] of all) {
        const run = await measure(kind, load, game, peers);
        runs.push(run);
        say(`${round}  ${load}  ${line(kind, run)}`);
      }
    }
  }
} finally {
  await game.clear();
  await game.remove();
}
say(
  `\nmedians of ${rounds} rounds of ${steadyMs / 1_000} s, Node ${process.versions.node}, ${cpus().length} cores`,
);
process.exitCode = [...seen].map(([load, all]) => judge(load, all)).every(Boolean) ? 0 : 1;
