/**
 * The players of one thread, out of a crowd that may be spread over several: whole rooms, so that each knows its own.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { type LoadPlayer, newTimes, startPlayer, type Times } from '../client/player.ts';
import { realClock, until } from '../clock.ts';
import { world } from '../protocol.ts';
import { mintToken } from '../tokens.ts';

export interface Crowd {
  url: string;
  /** Of all threads. */
  players: number;
  forMs: number;
  rate: number;
  tokens: { secret: string; lifeMs: number };
  /** Part of every player's name; players of one crowd check each other. */
  run: string;
  /** Number of this thread, from 0. */
  thread: number;
  threads: number;
}

export interface CrowdHooks {
  signal: AbortSignal;
  /** How many players of this thread have joined. */
  onJoined(count: number): void;
  onSecond(second: number): void;
  /** Called once, when all players of this thread have joined or failed. */
  othersAreIn(): Promise<void>;
}

export interface CrowdCounts {
  online: number;
  joinMs: number;
  ms: number;
  sent: number;
  received: number;
  lost: number;
  duplicated: number;
  falseOffline: number;
  lastCode: number | null;
  unacknowledged: number;
  moved: number;
  resumed: number;
  anew: number;
  times: Times;
  servedBy: Record<string, number>;
  lagMs: { p99: number; max: number };
}

export const roomSize = 50;
/** A server that is starting takes some hundred hellos a second; faster joins would measure themselves. */
const joinsPerSecond = 500;
const joiningMax = 200;
const joinTickMs = 20;
const joinPatienceMs = 30_000;
/** For all players together. */
const pingsPerSecond = 200;
/** `quiet`: without a new message. `most`: in all, because somebody else may go on talking in these rooms. */
const settleMs = { quiet: 5_000, most: 30_000 };

interface Member {
  number: number;
  player: LoadPlayer;
}

export async function playCrowd(crowd: Crowd, hooks: CrowdHooks): Promise<CrowdCounts> {
  const { signal } = hooks;
  const lag = monitorEventLoopDelay({ resolution: 10 });
  lag.enable();
  const times = newTimes();
  const members: Member[] = [];
  const began = performance.now();
  try {
    await join(crowd, hooks, members, times);
    await hooks.othersAreIn();
    const joinMs = performance.now() - began;
    // The many joins at the beginning are not measured.
    Object.assign(times, newTimes());
    lag.reset();
    const begunAt = performance.now();
    const stopTalking = talk(members, crowd.rate);
    for (let at = 0; at < crowd.forMs && !signal.aborted; at = performance.now() - begunAt) {
      hooks.onSecond(Math.floor(at / 1_000));
      await sleep(Math.min(1_000, crowd.forMs - at), undefined, { signal }).catch(() => undefined);
    }
    stopTalking();
    const ms = performance.now() - begunAt;
    const players = members.map(({ player }) => player);
    await settle(players, signal.aborted ? settleMs.quiet : settleMs.most);
    const lagMs = { p99: lag.percentile(99) / 1e6, max: lag.max / 1e6 };
    return { ...countsOf(players), times, joinMs, ms, lagMs };
  } finally {
    lag.disable();
    for (const { player } of members) player.stop();
  }
}

async function join(crowd: Crowd, hooks: CrowdHooks, members: Member[], times: Times): Promise<void> {
  const { url, run, tokens, threads } = crowd;
  const pingEveryMs = Math.max(1_000, (crowd.players / pingsPerSecond) * 1_000);
  const numbers = numbersOf(crowd);
  const isSettled = ({ player }: Member) => player.isOn() || player.hasGivenUp();
  // A player who gave up joins no more, but is not in the game.
  const countIn = () => members.filter(({ player }) => player.isOn()).length;
  let lastTold = 0;
  let deadline = performance.now() + joinPatienceMs;
  while (!hooks.signal.aborted) {
    const settled = members.filter(isSettled).length;
    const joining = members.length - settled;
    if (settled === numbers.length || performance.now() > deadline) break;
    const atOnce = Math.ceil((joinsPerSecond * joinTickMs) / 1_000 / threads);
    const some = Math.max(0, Math.min(joiningMax / threads - joining, atOnce));
    for (const number of numbers.slice(members.length, members.length + some)) {
      const name = `${run}-${number}`;
      const refresh = () => mintToken(tokens.secret, { id: name, name }, tokens.lifeMs);
      const region = regionOf(number);
      members.push({
        number,
        player: startPlayer({ url, token: refresh(), name, region, refresh, pingEveryMs, times }),
      });
      deadline = performance.now() + joinPatienceMs;
    }
    if (performance.now() - lastTold > 1_000) {
      lastTold = performance.now();
      hooks.onJoined(countIn());
    }
    await sleep(joinTickMs);
  }
  hooks.onJoined(countIn());
}

const roomsCount = world.columns * world.rows;
const roomOf = (number: number): number => Math.floor(number / roomSize) % roomsCount;
export const roomsOf = (players: number): number => Math.min(roomsCount, Math.ceil(players / roomSize));

function numbersOf({ players, thread, threads }: Crowd): number[] {
  return Array.from({ length: players }, (_, number) => number).filter(
    (number) => roomOf(number) % threads === thread,
  );
}

export function regionOf(number: number): string {
  const room = roomOf(number);
  return `r${room % world.columns}-${Math.floor(room / world.columns)}`;
}

/** Each room starts at a random moment: rooms that talk at the same time would make one large burst. */
function talk(crowd: readonly Member[], rate: number): () => void {
  const rooms = new Map<string, LoadPlayer[]>();
  for (const { number, player } of crowd) {
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

/** The next player of the room who has not given up; a player who is reconnecting says it afterwards. */
function speak(members: readonly LoadPlayer[], turn: number): void {
  for (let n = 0; n < members.length; n += 1) {
    const player = members[(turn + n) % members.length];
    if (player && !player.hasGivenUp() && player.count()) return;
  }
}

/** Waits until every message is acknowledged and all players of a room have heard the same. */
async function settle(players: readonly LoadPlayer[], mostMs: number): Promise<void> {
  const progress = () => players.reduce((sum, { counts }) => sum + counts.received + counts.acknowledged, 0);
  let seen = progress();
  let quietSince = performance.now();
  await until(realClock, { deadlineMs: mostMs, everyMs: 50 }, async () => {
    const isSaid = players.every((player) => player.waiting() === 0 || player.hasGivenUp());
    if (isSaid && behind(players) === 0) return 'said';
    const now = performance.now();
    if (progress() !== seen) {
      seen = progress();
      quietSince = now;
    }
    return now - quietSince >= settleMs.quiet ? 'quiet' : null;
  });
}

/** Messages that some players of a room have heard and others have not; no later message would show the gap. */
function behind(players: readonly LoadPlayer[]): number {
  const places = players.flatMap((player) => (player.isOn() ? (player.place() ?? []) : []));
  const newest = new Map<string, number>();
  for (const { room, offset } of places) newest.set(room, Math.max(newest.get(room) ?? 0, offset));
  return places.reduce((sum, { room, offset }) => sum + ((newest.get(room) ?? 0) - offset), 0);
}

function countsOf(players: readonly LoadPlayer[]): Omit<CrowdCounts, 'times' | 'joinMs' | 'ms' | 'lagMs'> {
  const sum = (of: (player: LoadPlayer) => number) =>
    players.reduce((total, player) => total + of(player), 0);
  const online = players.filter((player) => player.isOn());
  const servedBy: Record<string, number> = {};
  for (const player of online) {
    const name = player.servedBy() ?? 'nobody';
    servedBy[name] = (servedBy[name] ?? 0) + 1;
  }
  const joins = sum(({ counts }) => Math.max(0, counts.joins - 1));
  const moved = sum(({ counts }) => counts.moves);
  return {
    online: online.length,
    sent: sum(({ counts }) => counts.sent),
    received: sum(({ counts }) => counts.received),
    lost: sum(({ counts }) => counts.lost) + behind(players),
    duplicated: sum(({ counts }) => counts.duplicated),
    falseOffline: sum(({ counts }) => counts.matesLeft),
    lastCode: players.findLast(({ counts }) => counts.lastCode !== null)?.counts.lastCode ?? null,
    unacknowledged: sum((player) => player.waiting()),
    moved,
    resumed: joins - moved,
    anew: sum(({ counts }) => counts.anew),
    servedBy,
  };
}
