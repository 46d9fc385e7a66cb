/**
 * Reads the bus, from where this server stopped and for as long as the connection lasts. Promises every entry once and
 * in order, or a break that says why not.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type BusEntry, entryOf, idOf, type StreamEntry } from './bus-entry.ts';
import { askAgain, verify } from './bus-epoch.ts';
import type { BusState } from './bus-state.ts';

const readCount = 500;
const readBlockMs = 1_000;
/**
 * Entries that come within this time are read at once, because a read for every message costs more than telling it to
 * a room. It is the time of one picture on a screen, so nobody sees the difference.
 */
const readApartMs = 16;
/** How much of the past a new server reads before it is ready: many times what players miss while they move. */
const warmMs = 30_000;

/** Both connections are up: verifies the epoch, wakes those who wait, and reads until the connection is lost. */
export async function begin(bus: BusState): Promise<void> {
  bus.turn += 1;
  const own = bus.turn;
  try {
    await verify(bus);
    if (own !== bus.turn) return;
    bus.isVerified = true;
    bus.readiness.set('redis', true);
    for (const wake of bus.waiting) wake();
    await follow(bus, own);
  } catch (error) {
    if (own !== bus.turn) return;
    bus.log.debug({ reason: error instanceof Error ? error.message : 'unknown' }, 'reading the bus failed');
    bus.tail.disconnect(true);
  }
}

async function follow(bus: BusState, own: number): Promise<void> {
  let isBehind = true;
  if (bus.lastId === null) bus.beginning = await warmStart(bus);
  let readAt = Number.NEGATIVE_INFINITY;
  while (own === bus.turn) {
    const restMs = readAt + readApartMs - performance.now();
    if (!isBehind && restMs > 1) await sleep(restMs);
    const after = bus.lastId ?? bus.beginning;
    const entries = await read(bus, after, isBehind);
    if (own !== bus.turn) return;
    readAt = performance.now();
    // A renewal in the meantime began the stream anew: these entries belong to the epoch before it.
    if (after === (bus.lastId ?? bus.beginning)) take(bus, entries);
    isBehind = entries.length === readCount;
    if (!isBehind) bus.readiness.set('bus', true);
  }
}

/** By the clock of the bus itself. */
async function warmStart({ tail, keys }: BusState): Promise<string> {
  const [newest] = await tail.xrevrange(keys.bus, '+', '-', 'COUNT', 1);
  const ms = Number.parseInt(idOf(newest) ?? '0', 10);
  return `${Math.max(0, ms - warmMs)}-0`;
}

async function read({ tail, keys }: BusState, after: string, isBehind: boolean): Promise<StreamEntry[]> {
  const reply = isBehind
    ? await tail.xread('COUNT', readCount, 'STREAMS', keys.bus, after)
    : await tail.xread('COUNT', readCount, 'BLOCK', readBlockMs, 'STREAMS', keys.bus, after);
  return reply?.[0]?.[1] ?? [];
}

function take(bus: BusState, entries: readonly StreamEntry[]): void {
  const known: BusEntry[] = [];
  let isStrange = false;
  for (const [id, fields] of entries) {
    bus.lastId = id;
    const entry = entryOf(fields);
    if (entry === null) continue;
    if (entry.epoch === null || entry.epoch === bus.epoch) known.push(entry);
    else isStrange = true;
  }
  // Asked once for all of them: after a renewal the whole stream may be of the epoch before.
  if (isStrange && bus.isVerified) void askAgain(bus);
  if (known.length > 0) bus.onEntries(known);
}
