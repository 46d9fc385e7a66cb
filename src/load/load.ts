/**
 * Load players: a crowd that joins at a pace, spreads over the regions and talks at a fixed rate, and a sum of what
 * all of them saw. A large one is spread over threads, whole rooms in each. Promises to say nothing after its time is
 * over, to count only when every message has been heard, and to tell how busy its own threads were, because a slow
 * generator looks like a slow server.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { addTo, type Histogram, newHistogram, percentile, rounded } from '../client/histogram.ts';
import { type Crowd, type CrowdCounts, type CrowdHooks, playCrowd, roomsOf } from './crowd.ts';
import type { FromThread, ToThread } from './thread.ts';

export interface LoadRequest {
  /** Such as wss://play.example.com/ws */
  url: string;
  players: number;
  forMs: number;
  /** Messages a second in each room, said by its players in turn. */
  rate: number;
  /** Default: as many as the crowd needs and the machine has cores for. */
  threads?: number | undefined;
  /** The key that signs the players' tokens, and how long each token is valid. */
  tokens: { secret: string; lifeMs: number };
  signal: AbortSignal;
  /** `joined`: of all players while they come in; afterwards seconds of all seconds. */
  onProgress(what: 'joined' | 'seconds', done: number): void;
}

export interface LoadReport {
  players: number;
  rooms: number;
  /** Until the last player had joined or failed. */
  joinMs: number;
  /** From then to the last message. */
  ms: number;
  sent: number;
  /** Messages that all players heard, joins and leaves of others included. */
  received: number;
  lost: number;
  duplicated: number;
  /** How often a player heard that another player had left, although all of them were still playing. */
  falseOffline: number;
  /** Players who never joined, or gave up. */
  failed: number;
  /** Code of the last close that was not a restart; null when there was none. */
  lastCode: number | null;
  /** Messages that were never acknowledged. */
  unacknowledged: number;
  /** Players welcomed by another server while the old connection was still open. */
  moved: number;
  /** Players who came back after a close; `anew`: those of them whose session was gone. */
  resumed: number;
  anew: number;
  /** Without a live welcome, at each move and each return; 0 is a move that nobody could notice. */
  gapMs: { p50: number; p99: number; max: number };
  rttMs: { p50: number; p95: number; p99: number; max: number };
  deliveryMs: { p50: number; p99: number; max: number };
  /** Release and replica → players there at the end. */
  servedBy: Record<string, number>;
  /** Delay of its own event loops, of the slowest one. */
  generatorLagMs: { p99: number; max: number };
}

/** What one event loop can do without delay. */
const playersPerThread = 2_500;
/** Ten thousand players' messages are short-lived, ten thousand players are not: room to leave the young ones lie. */
const youngMB = 128;

/** @throws the error of a thread that failed */
export async function runLoad(request: LoadRequest): Promise<LoadReport> {
  const { url, players, rate, forMs, tokens, signal, onProgress } = request;
  const { threads = Math.min(availableParallelism(), Math.ceil(players / playersPerThread)) } = request;
  const run = `load-${Math.random().toString(36).slice(2, 6)}`;
  const joined = Array.from({ length: threads }, () => 0);
  let waiting = threads;
  let begin = () => {};
  const everybodyIsIn = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const broken = new AbortController();
  const ending = AbortSignal.any([signal, broken.signal]);
  const parts = Array.from({ length: threads }, (_, thread) => {
    const crowd: Crowd = { url, players, rate, forMs, tokens, run, thread, threads };
    const hooks: CrowdHooks = {
      signal: ending,
      onJoined(count) {
        joined[thread] = count;
        onProgress(
          'joined',
          joined.reduce((sum, one) => sum + one, 0),
        );
      },
      onSecond: (second) => thread === 0 && onProgress('seconds', second),
      othersAreIn() {
        waiting -= 1;
        if (waiting === 0) begin();
        return everybodyIsIn;
      },
    };
    return threads === 1 ? playCrowd(crowd, hooks) : playInThread(crowd, hooks);
  });
  try {
    return reportOf(players, await Promise.all(parts));
  } catch (error) {
    // A thread that failed must not leave the others playing.
    broken.abort();
    await Promise.allSettled(parts);
    throw error;
  }
}

function playInThread(crowd: Crowd, hooks: CrowdHooks): Promise<CrowdCounts> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./load-thread.cjs', import.meta.url), {
      workerData: crowd,
      resourceLimits: { maxYoungGenerationSizeMb: youngMB },
    });
    const tell = (what: ToThread) => worker.postMessage(what);
    const stop = () => tell('stop');
    hooks.signal.addEventListener('abort', stop, { once: true });
    worker.on('message', (told: FromThread) => {
      if (told.what === 'joined') hooks.onJoined(told.count);
      if (told.what === 'second') hooks.onSecond(told.second);
      if (told.what === 'in') void hooks.othersAreIn().then(() => tell('play'));
      if (told.what === 'over') resolve(told.counts);
    });
    worker.on('error', reject);
    worker.on('exit', (code) => reject(new Error(`a thread of the load ended with ${code}`)));
    if (hooks.signal.aborted) stop();
  });
}

function reportOf(players: number, parts: readonly CrowdCounts[]): LoadReport {
  const sum = (of: (part: CrowdCounts) => number) => parts.reduce((total, part) => total + of(part), 0);
  const most = (of: (part: CrowdCounts) => number) => Math.max(...parts.map(of));
  const merged = (of: (part: CrowdCounts) => Histogram) =>
    parts.map(of).reduce((all, one) => addTo(all, one), newHistogram());
  const rtt = merged(({ times }) => times.rtt);
  const servedBy: Record<string, number> = {};
  for (const part of parts)
    for (const [name, count] of Object.entries(part.servedBy)) servedBy[name] = (servedBy[name] ?? 0) + count;
  return {
    players,
    rooms: roomsOf(players),
    joinMs: Math.round(most(({ joinMs }) => joinMs)),
    ms: Math.round(most(({ ms }) => ms)),
    sent: sum(({ sent }) => sent),
    received: sum(({ received }) => received),
    lost: sum(({ lost }) => lost),
    duplicated: sum(({ duplicated }) => duplicated),
    falseOffline: sum(({ falseOffline }) => falseOffline),
    failed: players - sum(({ online }) => online),
    lastCode: parts.findLast(({ lastCode }) => lastCode !== null)?.lastCode ?? null,
    unacknowledged: sum(({ unacknowledged }) => unacknowledged),
    moved: sum(({ moved }) => moved),
    resumed: sum(({ resumed }) => resumed),
    anew: sum(({ anew }) => anew),
    gapMs: inShares(merged(({ times }) => times.gap)),
    rttMs: { ...inShares(rtt), p95: percentile(rtt, 0.95) },
    deliveryMs: inShares(merged(({ times }) => times.delivery)),
    servedBy,
    generatorLagMs: {
      p99: rounded(most(({ lagMs }) => lagMs.p99)),
      max: rounded(most(({ lagMs }) => lagMs.max)),
    },
  };
}

const inShares = (times: Histogram) => ({
  p50: percentile(times, 0.5),
  p99: percentile(times, 0.99),
  max: rounded(times.max),
});
