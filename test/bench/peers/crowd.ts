/**
 * The players, in a process of their own: joins rooms, talks at a fixed rate, and counts. Over IPC it takes a request,
 * then "window" (what was seen since the last one) and "stop" (all that was said, and whether all of it was heard).
 * Checks by count and by sum that every member heard every message of their room once.
 */
import { once } from 'node:events';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { type Histogram, newHistogram, note, percentile, rounded } from '../../../src/client/histogram.ts';
import { joinerOf, type Kind, type Say } from './players.ts';

export interface CrowdRequest {
  kind: Kind;
  url: string;
  /** Where the packages of the peers are. */
  peers: string;
  secret: string;
  rooms: number;
  roomSize: number;
  /** Messages a second in each room. */
  rate: number;
}

export interface Window {
  ms: number;
  deliveries: number;
  /** From saying to hearing oneself. */
  rttMs: { p50: number; p99: number };
  /** Delay of this process' own event loop. */
  lagMs: number;
}

export interface Proof {
  /** Messages × members of their room. */
  expected: number;
  heard: number;
  /** Members who did not hear each message of their room once. */
  wrong: number;
}

interface Member {
  say: Say;
  heard: number;
  sum: number;
}

interface Room {
  members: Member[];
  said: number;
  sum: number;
}

/** With it, what rooms tell is about 150 bytes. */
const textLength = 32;
const settleMs = 5_000;
const resolutionMs = 1;

let deliveries = 0;
let rtt: Histogram = newHistogram();

async function fill(request: CrowdRequest): Promise<Room[]> {
  const join = joinerOf(request.kind, request.peers, request.secret);
  const run = Math.random().toString(36).slice(2, 6);
  const rooms: Room[] = Array.from({ length: request.rooms }, () => ({ members: [], said: 0, sum: 0 }));
  // One into each room at a time: the first ones make the rooms.
  for (let turn = 0; turn < request.roomSize; turn += 1) {
    await Promise.all(
      rooms.map(async (room, number) => {
        const name = `${run}-${number}-${turn}`;
        const member: Member = { say: () => undefined, heard: 0, sum: 0 };
        room.members.push(member);
        const hear = (text: string) => heard(member, turn, text);
        member.say = await join({ url: request.url, name, room: `r${number}-0`, hear });
      }),
    );
  }
  return rooms;
}

function heard(member: Member, own: number, text: string): void {
  const [number, by, at] = text.split(':').map(Number);
  member.heard += 1;
  member.sum += number ?? 0;
  deliveries += 1;
  if (by === own) note(rtt, performance.now() - (at ?? 0));
}

/** Every room by itself, begun at a random moment: rooms that talk in step would be one large burst. */
function talk(rooms: readonly Room[], rate: number): () => void {
  const everyMs = 1_000 / rate;
  const timers = rooms.map((room) => {
    const timer = {
      due: performance.now() + Math.random() * everyMs,
      handle: setTimeout(() => undefined, 0),
    };
    const next = () => {
      timer.handle = setTimeout(
        () => {
          speak(room);
          timer.due += everyMs;
          next();
        },
        Math.max(0, timer.due - performance.now()),
      );
    };
    next();
    return timer;
  });
  return () => {
    for (const { handle } of timers) clearTimeout(handle);
  };
}

function speak(room: Room): void {
  const by = room.said % room.members.length;
  room.said += 1;
  room.sum += room.said;
  room.members[by]?.say(`${room.said}:${by}:${performance.now().toFixed(2)}:`.padEnd(textLength, '0'));
}

function prove(rooms: readonly Room[]): Proof {
  const proof: Proof = { expected: 0, heard: 0, wrong: 0 };
  for (const { members, said, sum } of rooms) {
    proof.expected += said * members.length;
    for (const member of members) {
      proof.heard += member.heard;
      if (member.heard !== said || member.sum !== sum) proof.wrong += 1;
    }
  }
  return proof;
}

async function settled(rooms: readonly Room[]): Promise<Proof> {
  const deadline = performance.now() + settleMs;
  let proof = prove(rooms);
  while (proof.wrong > 0 && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    proof = prove(rooms);
  }
  return proof;
}

const answer = (value: unknown) => process.send?.(value);
const [request] = (await once(process, 'message')) as [CrowdRequest];
const rooms = await fill(request);
const lag = monitorEventLoopDelay({ resolution: resolutionMs });
lag.enable();
let begunAt = performance.now();
const stopTalking = talk(rooms, request.rate);

function takeWindow(): Window {
  const now = performance.now();
  const seen = {
    ms: now - begunAt,
    deliveries,
    rttMs: { p50: percentile(rtt, 0.5), p99: percentile(rtt, 0.99) },
    lagMs: rounded(Math.max(0, lag.percentile(99) / 1e6 - resolutionMs)),
  };
  begunAt = now;
  deliveries = 0;
  rtt = newHistogram();
  lag.reset();
  return seen;
}

process.on('message', (word) => {
  if (word === 'window') answer(takeWindow());
  else {
    stopTalking();
    void settled(rooms).then((proof) => process.send?.(proof, () => process.exit(0)));
  }
});
answer('ready');
