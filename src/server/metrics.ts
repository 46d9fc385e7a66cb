/**
 * Numbers for Prometheus. Promises that no label names a player.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { Identity } from './settings.ts';

/** There are edges at the targets of 0.2 s and 0.5 s, so that a percentile is judged by counting, not by interpolating. */
const seconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10];

export type Metrics = ReturnType<typeof createMetrics>;

export function createMetrics({ project, release, replica }: Identity) {
  const registry = new Registry();
  const registers = [registry];
  registry.setDefaultLabels({ project, release: String(release), replica: String(replica) });
  collectDefaultMetrics({ register: registry });
  return {
    registry,
    connections: new Gauge({ name: 'gameops_ws_connections', help: 'Players connected now', registers }),
    closed: new Counter({
      name: 'gameops_ws_closed_total',
      help: 'Sockets closed, by reason',
      labelNames: ['reason'],
      registers,
    }),
    deliveries: new Counter({
      name: 'gameops_ws_deliveries_total',
      help: 'Messages of rooms, once for each player they are written to',
      registers,
    }),
    resumes: new Counter({
      name: 'gameops_ws_hellos_total',
      help: 'Players welcomed: as newcomers (fresh), resumed from memory (warm), from Redis (cold), or not resumed (none)',
      labelNames: ['how'],
      registers,
    }),
    handover: new Counter({
      name: 'gameops_ws_handover_total',
      help: 'Players of this server in handovers, by what happened to them',
      labelNames: ['what'],
      registers,
    }),
    loopLag: new Gauge({
      name: 'gameops_loop_lag_seconds',
      help: 'Delay of the event loop, the 99th percentile of the last second',
      registers,
    }),
    requests: new Histogram({
      name: 'http_request_duration_seconds',
      help: 'HTTP requests by route',
      labelNames: ['method', 'route', 'status'],
      buckets: seconds,
      registers,
    }),
  };
}
