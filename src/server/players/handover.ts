/**
 * Sends the players of this server to the next release, when the CLI orders it through Redis. Each is told when to
 * open a second connection, and closes the first one only when the second is welcome: make before break.
 *
 * Promises: never more at a time than both fleets bear, neither a second nor under way; who does not move in time is
 * closed with 1012 at the same pace; an order that is taken back ends it between any two players; everybody is counted once.
 */
import type { Logger } from 'pino';
import { type HandoverOrder, type HandoverProgress, redisKeys, type Vitals } from '../../contract.ts';
import type { Metrics } from '../metrics.ts';
import type { Bus } from '../redis/bus.ts';
import type { Counts } from '../redis/counts.ts';
import { quietly } from '../redis/redis.ts';
import type { Identity } from '../settings.ts';
import { handoverPace, nextHandoverPace, nextPatience, patience, type Strain } from './pace.ts';
import type { Player } from './player.ts';
import { close, isOpen, tell } from './wire.ts';

export interface Handover {
  joined(player: Player): void;
  left(player: Player, how: 'moved' | 'done' | 'other'): void;
  /** What the CLI asks, as Redis has it; null for nothing. */
  hear(order: string | null): void;
  stop(): void;
}

export interface HandoverRequest {
  identity: Identity;
  bus: Bus;
  counts: Counts;
  metrics: Metrics;
  log: Logger;
  players: () => ReadonlySet<Player>;
  /** Of this server, 99th percentile, ms. */
  lagMs: () => number;
  /** Then the drain closes everybody: there is no time left to move by oneself. */
  isDraining: () => boolean;
}

const tickMs = 20;
const judgeMs = 250;
const measuredMs = 1_000;
/** Hints are spread already; this only keeps those of one tick from coming back in step. */
const jitterMs = 100;
/** Of the whole fleet, told to move and not there yet: a fleet that falls behind is sent no more, before it shows any strain. */
const underwayMax = 64;
const recordMs = 100;
const progressForSeconds = 3_600;
/** As many replicas as a release may have. */
const replicasMax = 50;

type Counted = Pick<HandoverProgress, 'hinted' | 'moved' | 'closed' | 'gone'>;

export function openHandover(request: HandoverRequest): Handover {
  const { identity, bus, counts, metrics, log, players, lagMs, isDraining } = request;
  const keys = redisKeys(identity.project);
  let heard: string | null = null;
  let order: HandoverOrder | null = null;
  let counted = nobody();
  let perSecond: number = handoverPace.first;
  /** Still to be hinted, and hinted in the order in which their time is up. */
  let waiting: Player[] = [];
  let hinted: Player[] = [];
  /** Told to move, still here and waited for, oldest first. */
  const underway = new Set<Player>();
  let patienceMs: number = patience.firstMs;
  let slowedAt = Number.NEGATIVE_INFINITY;
  let credit = 0;
  let lastAt = performance.now();
  let timers: NodeJS.Timeout[] = [];

  function hear(text: string | null): void {
    if (text === heard) return;
    heard = text;
    const read = readOrder(text);
    const next = read?.replicas.includes(identity.replica) ? read : null;
    stopTimers();
    if (order !== null || next !== null)
      log.info({ to: next?.to ?? null, isOrdered: next !== null, players: players().size }, 'handover');
    order = next;
    waiting = next === null ? [] : [...players()];
    hinted = [];
    underway.clear();
    if (next === null) return;
    counted = nobody();
    perSecond = handoverPace.first;
    patienceMs = patience.firstMs;
    credit = 0;
    lastAt = performance.now();
    timers.push(
      setInterval(() => void judge(), judgeMs),
      setInterval(step, tickMs),
    );
  }

  const room = () => Math.max(1, Math.floor(underwayMax / (order?.replicas.length ?? 1)));

  function step(): void {
    if (order === null || isDraining()) return;
    const now = performance.now();
    const share = perSecond / order.replicas.length;
    // A stall must not be made up for all at once.
    credit = Math.min(credit + (share * (now - lastAt)) / 1_000, Math.max(1, share / 10));
    lastAt = now;
    const overdue: Player[] = [];
    forgetSilent(now);
    while (credit >= 1) {
      const late = nextOf(hinted, (player) => player.overdueAt <= now);
      const next = late ?? (underway.size < room() ? nextOf(waiting, () => true) : null);
      if (next === null) break;
      credit -= 1;
      if (late) overdue.push(late);
      else hint(next, order, now);
    }
    if (overdue.length > 0) void closeOverdue(overdue);
  }

  /** Who has not moved by then may not have heard, and holds up nobody else. */
  function forgetSilent(now: number): void {
    for (const player of underway) {
      if (now - (player.hintedAt ?? now) < patienceMs) break;
      underway.delete(player);
      patienceMs = nextPatience(patienceMs, null, room());
    }
  }

  function hint(player: Player, { to, patienceMs: inMs }: HandoverOrder, now: number): void {
    const afterMs = Math.round(Math.random() * jitterMs);
    player.hintedAt = now;
    player.overdueAt = now + afterMs + inMs;
    tell(player.link, { t: 'reconnect', reason: 'deploy', to, afterMs, deadlineMs: afterMs + inMs });
    hinted.push(player);
    underway.add(player);
    count('hinted');
  }

  async function closeOverdue(late: readonly Player[]): Promise<void> {
    await Promise.race([counts.closed(late), new Promise((resolve) => setTimeout(resolve, recordMs))]);
    for (const player of late) {
      if (order !== null) close(player.link, 'restart');
    }
  }

  async function judge(): Promise<void> {
    if (order === null) return;
    const own = lagMs();
    const progress: HandoverProgress = { v: 1, ...counted, left: players().size };
    const key = keys.handoverProgress(identity.release);
    const { to } = order;
    const asked = to === null ? [] : Array.from({ length: replicasMax }, (_, n) => keys.vitals(to, n + 1));
    const [vitals] = await Promise.all([
      asked.length === 0 ? [] : bus.commands.mget(asked).catch(() => []),
      quietly(bus.commands.hset(key, String(identity.replica), JSON.stringify(progress)), log),
      quietly(bus.commands.expire(key, progressForSeconds), log),
    ]);
    const wished = nextHandoverPace(perSecond, worstOf(own, vitals));
    const now = performance.now();
    if (wished < perSecond) {
      // What is measured is the last second: one bad moment of it slows down once.
      if (now - slowedAt < measuredMs) return;
      slowedAt = now;
    }
    perSecond = wished;
  }

  function count(what: keyof Counted): void {
    counted[what] += 1;
    metrics.handover.inc({ what });
  }

  function stopTimers(): void {
    for (const timer of timers) clearInterval(timer);
    timers = [];
  }

  return {
    joined(player) {
      if (order !== null) waiting.push(player);
    },
    left(player, how) {
      underway.delete(player);
      if (order === null) return;
      if (how === 'moved' && player.hintedAt !== null)
        patienceMs = nextPatience(patienceMs, performance.now() - player.hintedAt, room());
      if (player.link.closedFor === 'restart') count('closed');
      else count(how === 'moved' ? 'moved' : 'gone');
    },
    hear,
    stop: stopTimers,
  };
}

const nobody = (): Counted => ({ hinted: 0, moved: 0, closed: 0, gone: 0 });

/** The first one who is still here, when it is his turn; who left is taken out on the way. */
function nextOf(queue: Player[], isTurn: (player: Player) => boolean): Player | null {
  for (;;) {
    const [first] = queue;
    if (first === undefined) return null;
    if (isOpen(first.link) && !isTurn(first)) return null;
    queue.shift();
    if (isOpen(first.link)) return first;
  }
}

export function readOrder(text: string | null): HandoverOrder | null {
  if (text === null) return null;
  try {
    const read = JSON.parse(text) as Partial<HandoverOrder>;
    const isKnown = read.v === 1 && read.order === 'hand-over';
    return isKnown && Array.isArray(read.replicas) && typeof read.patienceMs === 'number'
      ? (read as HandoverOrder)
      : null;
  } catch {
    return null;
  }
}

/** Of this server and of the replicas that players go to; who says nothing is not counted. */
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

/** Of this or another release; null for a form that is not known, and for none. */
function readVitals(text: string | null): Vitals | null {
  try {
    const read = JSON.parse(text ?? 'null') as Partial<Vitals> | null;
    const isKnown = read?.v === 1 && typeof read.lagMs === 'number';
    return isKnown && (read.joinMs === null || typeof read.joinMs === 'number') ? (read as Vitals) : null;
  } catch {
    return null;
  }
}
