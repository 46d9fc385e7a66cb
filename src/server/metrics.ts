/**
 * Numbers for Prometheus, on the admin port only: never reachable through Nginx. No label holds a player.
 */
import { createServer, type Server } from 'node:http';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { endpoint } from '../contract.ts';
import type { Identity } from './settings.ts';

/** Edges at the targets 0.2 s and 0.5 s, so that a percentile is judged by counting, not by interpolating. */
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
    requests: new Histogram({
      name: 'http_request_duration_seconds',
      help: 'HTTP requests by route',
      labelNames: ['method', 'route', 'status'],
      buckets: seconds,
      registers,
    }),
  };
}

export function listenForAdmin(registry: Registry, at: { port: number; host: string }): Promise<Server> {
  const server = createServer(async (request, response) => {
    if (request.method !== 'GET' || request.url !== endpoint.metrics) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, { 'content-type': registry.contentType }).end(await registry.metrics());
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(at.port, at.host, () => resolve(server));
  });
}
