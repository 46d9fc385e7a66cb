/**
 * Sends the players of this server to the next release, when the CLI orders it through Redis. Each player is told when
 * to open a second connection, and closes the first one only when the second is welcomed: make before break.
 *
 * Promises: never more players at a time than both fleets bear, neither per second nor under way; a player who does not
 * move in time is closed with 1012 at the same pace; an order that is taken back ends the handover between any two
 * players; everybody is counted once.
 */
import type { Logger } from 'pino';
import { type HandoverOrder, type HandoverProgress, redisKeys } from '../../contract.ts';
import type { Metrics } from '../metrics.ts';
import type { Bus } from '../redis/bus.ts';
import type { Counts } from '../redis/counts.ts';
import { readOrder, readVitals } from '../redis/forms.ts';
import { quietly } from '../redis/redis.ts';
import type { Identity } from '../settings.ts';
import { recordClosed } from './closing.ts';
import { handoverPace, nextHandoverPace, nextPatience, patience, type Strain } from './pace.ts';
import type { Player } from './player.ts';
import type { Left } from './visit.ts';
import { close, isOpen, tell } from './wire.ts';

export interface Handover {
  joined(player: Player): void;
  left(player: Player, how: Left): void;
  /** What the CLI orders, as Redis has it; null for nothing. */
  hear(order: string | null): void;
  stop(): void;
}

export interface HandoverRequest {
  identity: Identity;
  bus: Bus;
  counts: Counts;
  metrics: Metrics;
  log: Logger;
  players: ReadonlySet<Player>;
  /** Of this server, 99th percentile, ms. */
  lagMs: () => number;
  /** Then the drain closes everybody: there is no time left to move by oneself. */
  isDraining: () => boolean;
}

/** One order while it is carried out. Another order begins with a run of its own. */
interface Run {
  readonly order: HandoverOrder;
  readonly counted: Counted;
  /** Players who are still to be hinted. */
  readonly waiting: Player[];
  /** Players who were hinted, in the order in which their time is up. */
  readonly hinted: Player[];
  /** Players who were told to move, are still here and are waited for, oldest first. */
  readonly underway: Set<Player>;
  patienceMs: number;
  perSecond: number;
  slowedAt: number;
  /** Players that may be told or closed at once. */
  credit: number;
  lastAt: number;
}

interface State extends HandoverRequest {
  heard: string | null;
  run: Run | null;
  timers: NodeJS.Timeout[];
}

type Counted = Pick<HandoverProgress, 'hinted' | 'moved' | 'closed' | 'gone'>;

const tickMs = 20;
const judgeMs = 250;
const measuredMs = 1_000;
/** Hints are spread already; this only keeps the players of one tick from coming back in step. */
const jitterMs = 100;
/**
 * Players of the whole fleet who were told to move and have not arrived yet. A fleet that falls behind is sent no more,
 * before it shows any strain.
 */
const underwayMax = 64;
const progressForSeconds = 3_600;
/** As many replicas as a release may have. */
const replicasMax = 50;

export function openHandover(request: HandoverRequest): Handover {
  const state: State = { ...request, heard: null, run: null, timers: [] };
  return {
    joined(player) {
      state.run?.waiting.push(player);
    },
    left: (player, how) => left(state, player, how),
    hear: (order) => hear(state, order),
    stop: () => stopTimers(state),
  };
}

function hear(state: State, text: string | null): void {
  if (text === state.heard) return;
  const { players, identity, log } = state;
  const read = readOrder(text);
  const order = read?.replicas.includes(identity.replica) ? read : null;
  stopTimers(state);
  if (state.run !== null || order !== null)
    log.info({ to: order?.to ?? null, isOrdered: order !== null, players: players.size }, 'handover');
  state.heard = text;
  state.run = order === null ? null : newRun(order, players);
  if (order === null) return;
  state.timers.push(
    setInterval(() => void judge(state), judgeMs),
    setInterval(() => step(state), tickMs),
  );
}

function newRun(order: HandoverOrder, players: ReadonlySet<Player>): Run {
  return {
    order,
    counted: { hinted: 0, moved: 0, closed: 0, gone: 0 },
    waiting: [...players],
    hinted: [],
    underway: new Set(),
    patienceMs: patience.firstMs,
    perSecond: handoverPace.first,
    slowedAt: Number.NEGATIVE_INFINITY,
    credit: 0,
    lastAt: performance.now(),
  };
}

function stopTimers(state: State): void {
  for (const timer of state.timers.splice(0)) clearInterval(timer);
}

/** How many players of this replica may be under way. */
const room = ({ order }: Run) => Math.max(1, Math.floor(underwayMax / order.replicas.length));

/** Tells and closes as many players as the pace allows by now. */
function step(state: State): void {
  const { run } = state;
  if (run === null || state.isDraining()) return;
  const now = performance.now();
  earnCredit(run, now);
  giveUpSilent(run, now);
  const overdue: Player[] = [];
  while (run.credit >= 1) {
    const late = nextOf(run.hinted, (player) => player.overdueAt <= now);
    const next = late ?? (run.underway.size < room(run) ? nextOf(run.waiting, () => true) : null);
    if (next === null) break;
    run.credit -= 1;
    if (late) overdue.push(late);
    else hint(state, run, next, now);
  }
  if (overdue.length > 0) void closeOverdue(state, overdue);
}

function earnCredit(run: Run, now: number): void {
  const share = run.perSecond / run.order.replicas.length;
  // A stall must not be made up for all at once.
  run.credit = Math.min(run.credit + (share * (now - run.lastAt)) / 1_000, Math.max(1, share / 10));
  run.lastAt = now;
}

/** A player who has not moved by then may not have heard the hint, and holds up nobody else. */
function giveUpSilent(run: Run, now: number): void {
  for (const player of run.underway) {
    if (now - (player.hintedAt ?? now) < run.patienceMs) break;
    run.underway.delete(player);
    run.patienceMs = nextPatience(run.patienceMs, null, room(run));
  }
}

function hint(state: State, run: Run, player: Player, now: number): void {
  const { to, patienceMs: inMs } = run.order;
  const afterMs = Math.round(Math.random() * jitterMs);
  player.hintedAt = now;
  player.overdueAt = now + afterMs + inMs;
  tell(player.link, { t: 'reconnect', reason: 'deploy', to, afterMs, deadlineMs: afterMs + inMs });
  run.hinted.push(player);
  run.underway.add(player);
  count(state, run, 'hinted');
}

async function closeOverdue(state: State, late: readonly Player[]): Promise<void> {
  await recordClosed(state.counts, late);
  for (const player of late) {
    if (state.run !== null) close(player.link, 'restart');
  }
}

function left(state: State, player: Player, how: Left): void {
  const { run } = state;
  if (run === null) return;
  run.underway.delete(player);
  if (how === 'moved' && player.hintedAt !== null)
    run.patienceMs = nextPatience(run.patienceMs, performance.now() - player.hintedAt, room(run));
  if (player.link.closedFor === 'restart') count(state, run, 'closed');
  else count(state, run, how === 'moved' ? 'moved' : 'gone');
}

function count({ metrics }: State, { counted }: Run, what: keyof Counted): void {
  counted[what] += 1;
  metrics.handover.inc({ what });
}

/** Tells the CLI how far it is, and finds the pace for what both fleets bear. */
async function judge(state: State): Promise<void> {
  const { run, bus, log, identity } = state;
  if (run === null) return;
  const ownLagMs = state.lagMs();
  const keys = redisKeys(identity.project);
  const progress: HandoverProgress = { v: 1, ...run.counted, left: state.players.size };
  const key = keys.handoverProgress(identity.release);
  const { to } = run.order;
  const asked = to === null ? [] : Array.from({ length: replicasMax }, (_, n) => keys.vitals(to, n + 1));
  const [vitals] = await Promise.all([
    asked.length === 0 ? [] : bus.commands.mget(asked).catch(() => []),
    quietly(bus.commands.hset(key, String(identity.replica), JSON.stringify(progress)), log),
    quietly(bus.commands.expire(key, progressForSeconds), log),
  ]);
  adjustPace(run, worstOf(ownLagMs, vitals));
}

function adjustPace(run: Run, strain: Strain): void {
  const wished = nextHandoverPace(run.perSecond, strain);
  const now = performance.now();
  if (wished < run.perSecond) {
    // What is measured is the last second: one bad moment in it slows down once.
    if (now - run.slowedAt < measuredMs) return;
    run.slowedAt = now;
  }
  run.perSecond = wished;
}

/** The first player who is still here, when it is their turn. Players who left are taken out on the way. */
function nextOf(queue: Player[], isTurn: (player: Player) => boolean): Player | null {
  for (;;) {
    const [first] = queue;
    if (first === undefined) return null;
    if (isOpen(first.link) && !isTurn(first)) return null;
    queue.shift();
    if (isOpen(first.link)) return first;
  }
}

/** Of this server and of the replicas that players go to. A replica that says nothing is not counted. */
export function worstOf(ownLagMs: number, texts: readonly (string | null)[]): Strain {
  const worst: Strain = { lagMs: ownLagMs, joinMs: null };
  for (const text of texts) {
    const vitals = readVitals(text);
    if (vitals === null) continue;
    const { lagMs, joinMs } = vitals;
    worst.lagMs = Math.max(worst.lagMs, lagMs);
    if (joinMs !== null) worst.joinMs = Math.max(worst.joinMs ?? 0, joinMs);
  }
  return worst;
}
