/**
 * The regular exchange with Redis, twice a second in one pipeline: how many players are here, how much this process
 * lags, and whether players are to be sent elsewhere. Never rejects; what can't be said now is said half a second later.
 */
import type { Logger } from 'pino';
import { redisKeys, type Vitals } from '../../contract.ts';
import { type LoopLag, percentile99 } from '../loop-lag.ts';
import type { Handover } from '../players/handover.ts';
import type { Sockets } from '../players/sockets.ts';
import type { Identity } from '../settings.ts';
import type { Bus } from './bus.ts';
import type { Presence } from './presence.ts';

export interface ExchangeRequest {
  identity: Identity;
  bus: Bus;
  loopLag: LoopLag;
  log: Logger;
  presence: Presence;
  sweepMs: number;
  sockets: Sockets;
  handover: Handover;
}

export interface Exchange {
  stop(): void;
}

const everyMs = 500;
const keptSeconds = 10;

export function startExchange(request: ExchangeRequest): Exchange {
  const { presence, log, sweepMs, sockets } = request;
  const later = (error: Error) => log.debug({ reason: error.message }, 'redis command failed');
  let joinMs: number | null = null;
  let turns = 0;
  const exchange = () => {
    turns += 1;
    if (turns % 2 === 0) joinMs = percentile99(sockets.takeJoins());
    void exchangeOnce(request, joinMs).catch(later);
  };
  const exchanging = setInterval(exchange, everyMs);
  const sweeping = setInterval(() => void presence.sweep().catch(later), sweepMs);
  exchange();
  return {
    stop() {
      clearInterval(exchanging);
      clearInterval(sweeping);
    },
  };
}

async function exchangeOnce(request: ExchangeRequest, joinMs: number | null): Promise<void> {
  const { identity, bus, loopLag, sockets, handover } = request;
  const { release, replica } = identity;
  const keys = redisKeys(identity.project);
  const vitals: Vitals = { v: 1, players: sockets.count(), lagMs: loopLag.worstMs(), joinMs };
  const pipeline = bus.commands.pipeline();
  pipeline.get(keys.handover(release));
  pipeline.set(keys.players(release, replica), vitals.players, 'EX', keptSeconds);
  pipeline.set(keys.vitals(release, replica), JSON.stringify(vitals), 'EX', keptSeconds);
  const [order] = (await pipeline.exec()) ?? [];
  // No answer is no order: the last order that was heard stands.
  if (order && order[0] === null) handover.hear((order[1] as string | null) ?? null);
}
