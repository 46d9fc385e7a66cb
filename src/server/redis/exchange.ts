/**
 * The regular exchange with Redis, twice a second in one pipeline: how many are here, how this process feels, and
 * whether players are to be sent elsewhere. Never rejects; what can't be said now is said half a second later.
 */
import type { Logger } from 'pino';
import { redisKeys, type Vitals } from '../../contract.ts';
import { type Gauges, percentile99 } from '../loop-lag.ts';
import type { Metrics } from '../metrics.ts';
import type { Handover } from '../players/handover.ts';
import type { Sockets } from '../players/sockets.ts';
import type { Identity } from '../settings.ts';
import type { Bus } from './bus.ts';
import type { Presence } from './presence.ts';

export interface Pulse {
  /** The worst of the last second, ms. */
  lagMs(): number;
  stop(): void;
}

export interface PulseRequest {
  identity: Identity;
  bus: Bus;
  gauges: Gauges;
  metrics: Metrics;
  log: Logger;
  presence: Presence;
  sweepMs: number;
  sockets: () => Sockets;
  handover: () => Handover;
}

const everyMs = 500;
const sampleMs = 250;
const samplesKept = 4;
const keptSeconds = 10;

export function startPulse(request: PulseRequest): Pulse {
  const { identity, bus, gauges, metrics, log, presence, sweepMs } = request;
  const { release, replica } = identity;
  const keys = redisKeys(identity.project);
  const lags: number[] = [];
  const worstLagMs = () => Math.max(0, ...lags);
  let joinMs: number | null = null;
  let beats = 0;

  async function beat(): Promise<void> {
    beats += 1;
    const sockets = request.sockets();
    if (beats % 2 === 0) joinMs = percentile99(sockets.takeJoins());
    const vitals: Vitals = { v: 1, players: sockets.count(), lagMs: worstLagMs(), joinMs };
    const pipeline = bus.commands.pipeline();
    pipeline.get(keys.handover(release));
    pipeline.set(keys.players(release, replica), vitals.players, 'EX', keptSeconds);
    pipeline.set(keys.vitals(release, replica), JSON.stringify(vitals), 'EX', keptSeconds);
    const [order] = (await pipeline.exec()) ?? [];
    // No answer is no order: what was asked last stands.
    if (order && order[0] === null) request.handover().hear((order[1] as string | null) ?? null);
  }

  function sample(): void {
    lags.push(gauges.takeLagMs());
    if (lags.length > samplesKept) lags.shift();
    metrics.loopLag.set(worstLagMs() / 1_000);
  }

  const later = (error: Error) => log.debug({ reason: error.message }, 'redis command failed');
  const beating = setInterval(() => void beat().catch(later), everyMs);
  const sampling = setInterval(sample, sampleMs);
  const sweeping = setInterval(() => void presence.sweep().catch(later), sweepMs);
  void beat().catch(later);
  return {
    lagMs: worstLagMs,
    stop() {
      for (const timer of [beating, sampling, sweeping]) clearInterval(timer);
      gauges.stop();
    },
  };
}
