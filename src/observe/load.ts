/**
 * Load players: a crowd that joins at a pace, spreads over the regions and talks at a fixed rate, and a sum of what
 * all of them saw. Promises to say nothing after its time is over, to wait for what was said to be heard before it
 * counts, and to tell how busy this process itself was, because a slow generator looks like a slow server.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Histogram, percentile, rounded } from '../client/histogram.ts';
import { type LoadPlayer, newTimes, startPlayer, type Times } from '../client/player.ts';
import { world } from '../protocol.ts';

export interface LoadRequest {
  /** Such as wss://play.example.com/ws */
  url: string;
  players: number;
  forMs: number;
  /** Messages a second in each room, said by its players in turn. */
  rate: number;
  /** @param name of the player, and its id */
  tokenFor(name: string): string;
  signal: AbortSignal;
  /** `joined`: of all players while they come in; afterwards seconds of all seconds. */
  onProgress(what: 'joined' | 'seconds', done: number): void;
}

export interface LoadReport {
  players: number;
  rooms: number;
  /** Until the last player was in or had failed. */
  joinMs: number;
  /** From then to the last message said. */
  ms: number;
  sent: number;
  /** What all players heard, joining and leaving of others included. */
  received: number;
  lost: number;
  duplicated: number;
  /** How often a player heard that another one had left, while all of them played on. */
  falseOffline: number;
  /** Players who never came in, or gave up. */
  failed: number;
  /** Of the last close that was no restart; null when there was none. */
  lastCode: number | null;
  /** Said, and never acknowledged. */
  unacknowledged: number;
  /** Welcomed by another server while still with the one before. */
  moved: number;
  /** Came back after a close; `anew`: of those, to a session that was gone. */
  resumed: number;
  anew: number;
  /** Without a live welcome, at each move and each return; 0 is a move that nobody could notice. */
  gapMs: { p50: number; p99: number; max: number };
  rttMs: { p50: number; p95: number; p99: number; max: number };
  deliveryMs: { p50: number; p99: number; max: number };
  /** Release and replica → players there at the end. */
  servedBy: Record<string, number>;
  /** Delay of this process' own event loop. */
  generatorLagMs: { p99: number; max: number };
}

const roomSize = 50;
/** A server that is starting takes some hundred hellos a second; a herd would measure the herd. */
const joinsPerSecond = 500;
const joiningMax = 200;
const joinTickMs = 20;
const joinPatienceMs = 30_000;
/** Of all players together. */
const pingsPerSecond = 200;
const settleMs = 5_000;

export async function runLoad(request: LoadRequest): Promise<LoadReport> {
  const { players: size, forMs, signal, onProgress } = request;
  const lag = monitorEventLoopDelay({ resolution: 10 });
  lag.enable();
  const times = newTimes();
  const players: LoadPlayer[] = [];
  const began = performance.now();
  try {
    await join(request, players, times);
    const joinMs = performance.now() - began;
    // The storm of joining is not what is asked about.
    Object.assign(times, newTimes());
    lag.reset();
    const begunAt = performance.now();
    const stopTalking = talk(players, request.rate);
    for (let at = 0; at < forMs && !signal.aborted; at = performance.now() - begunAt) {
      onProgress('seconds', Math.floor(at / 1_000));
      await sleep(Math.min(1_000, forMs - at), undefined, { signal }).catch(() => undefined);
    }
    stopTalking();
    const ms = performance.now() - begunAt;
    await settle(players);
    const generatorLagMs = { p99: rounded(lag.percentile(99) / 1e6), max: rounded(lag.max / 1e6) };
    return {
      ...report(players, times),
      players: size,
      joinMs: Math.round(joinMs),
      ms: Math.round(ms),
      generatorLagMs,
    };
  } finally {
    lag.disable();
    for (const player of players) player.stop();
  }
}

async function join(request: LoadRequest, players: LoadPlayer[], times: Times): Promise<void> {
  const { url, players: size, tokenFor, signal, onProgress } = request;
  const run = `load-${Math.random().toString(36).slice(2, 6)}`;
  const pingEveryMs = Math.max(1_000, (size / pingsPerSecond) * 1_000);
  const isSettled = (player: LoadPlayer) => player.isOn() || player.hasGivenUp();
  let lastTold = 0;
  let deadline = performance.now() + joinPatienceMs;
  while (!signal.aborted) {
    const settled = players.filter(isSettled).length;
    const joining = players.length - settled;
    if (settled === size || performance.now() > deadline) break;
    const some = Math.min(size - players.length, joiningMax - joining, (joinsPerSecond * joinTickMs) / 1_000);
    for (let n = 0; n < some; n += 1) {
      const name = `${run}-${players.length}`;
      const refresh = () => tokenFor(name);
      const region = regionOf(players.length);
      players.push(startPlayer({ url, token: refresh(), name, region, refresh, pingEveryMs, times }));
      deadline = performance.now() + joinPatienceMs;
    }
    if (performance.now() - lastTold > 1_000) {
      lastTold = performance.now();
      onProgress('joined', settled);
    }
    await sleep(joinTickMs);
  }
  onProgress('joined', players.filter((player) => player.isOn()).length);
}

const roomsCount = world.columns * world.rows;

function regionOf(player: number): string {
  const room = Math.floor(player / roomSize) % roomsCount;
  return `r${room % world.columns}-${Math.floor(room / world.columns)}`;
}

/** Every room by itself, begun at a random moment: rooms that talk in step would be one large burst. */
function talk(players: readonly LoadPlayer[], rate: number): () => void {
  const rooms = new Map<string, LoadPlayer[]>();
  for (const [number, player] of players.entries()) {
    const room = regionOf(number);
    const members = rooms.get(room);
    if (members) members.push(player);
    else rooms.set(room, [player]);
  }
  const everyMs = 1_000 / rate;
  const timers = new Set<NodeJS.Timeout>();
  let hasEnded = false;
  for (const members of rooms.values()) {
    let turn = 0;
    let due = performance.now() + Math.random() * everyMs;
    const next = () => {
      const timer = setTimeout(
        () => {
          timers.delete(timer);
          if (hasEnded) return;
          speak(members, turn);
          turn += 1;
          due += everyMs;
          next();
        },
        Math.max(0, due - performance.now()),
      );
      timers.add(timer);
    };
    next();
  }
  return () => {
    hasEnded = true;
    for (const timer of timers) clearTimeout(timer);
  };
}

/** The next one of the room who is still playing; who is just coming back says it when he is. */
function speak(members: readonly LoadPlayer[], turn: number): void {
  for (let n = 0; n < members.length; n += 1) {
    const player = members[(turn + n) % members.length];
    if (player && !player.hasGivenUp() && player.count()) return;
  }
}

/** What was said is acknowledged, and all players of a room have heard the same. */
async function settle(players: readonly LoadPlayer[]): Promise<void> {
  const deadline = performance.now() + settleMs;
  while (performance.now() < deadline) {
    const isSaid = players.every((player) => player.waiting() === 0 || player.hasGivenUp());
    if (isSaid && behind(players) === 0) return;
    await sleep(50);
  }
}

/** Messages that room mates have heard and others have not: nothing comes after them that would show the hole. */
function behind(players: readonly LoadPlayer[]): number {
  const places = players.flatMap((player) => (player.isOn() ? (player.place() ?? []) : []));
  const newest = new Map<string, number>();
  for (const { room, offset } of places) newest.set(room, Math.max(newest.get(room) ?? 0, offset));
  return places.reduce((sum, { room, offset }) => sum + ((newest.get(room) ?? 0) - offset), 0);
}

type Summed = Omit<LoadReport, 'players' | 'joinMs' | 'ms' | 'generatorLagMs'>;

function report(players: readonly LoadPlayer[], { gap, rtt, delivery }: Times): Summed {
  const sum = (of: (player: LoadPlayer) => number) =>
    players.reduce((total, player) => total + of(player), 0);
  const servedBy: Record<string, number> = {};
  for (const player of players) {
    if (!player.isOn()) continue;
    const name = player.servedBy() ?? 'nobody';
    servedBy[name] = (servedBy[name] ?? 0) + 1;
  }
  const joins = sum(({ counts }) => Math.max(0, counts.joins - 1));
  const moved = sum(({ counts }) => counts.moves);
  return {
    rooms: Math.min(roomsCount, Math.ceil(players.length / roomSize)),
    sent: sum(({ counts }) => counts.sent),
    received: sum(({ counts }) => counts.received),
    lost: sum(({ counts }) => counts.lost) + behind(players),
    duplicated: sum(({ counts }) => counts.duplicated),
    falseOffline: sum(({ counts }) => counts.matesLeft),
    failed: players.filter((player) => !player.isOn()).length,
    lastCode: players.findLast(({ counts }) => counts.lastCode !== null)?.counts.lastCode ?? null,
    unacknowledged: sum((player) => player.waiting()),
    moved,
    resumed: joins - moved,
    anew: sum(({ counts }) => counts.anew),
    gapMs: inShares(gap),
    rttMs: { ...inShares(rtt), p95: percentile(rtt, 0.95) },
    deliveryMs: inShares(delivery),
    servedBy,
  };
}

const inShares = (times: Histogram) => ({
  p50: percentile(times, 0.5),
  p99: percentile(times, 0.99),
  max: rounded(times.max),
});
