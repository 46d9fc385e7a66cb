/**
 * The HTTP side. Promises that every request which reaches this process is answered, also during a drain: then it
 * answers as always and asks the proxy not to reuse the connection, because old Nginx workers may still send requests.
 * Errors are JSON without a stack and without values.
 */
import Fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from 'fastify';
import type { Logger } from 'pino';
import { endpoint, servedByHeader } from '../../contract.ts';
import type { Metrics } from '../metrics.ts';
import type { Readiness } from '../readiness.ts';
import { apiPlugin } from './api.ts';
import type { ApiRequest } from './api-route.ts';

export interface HttpRequest extends ApiRequest {
  readiness: Readiness;
  metrics: Metrics;
}

export interface Http {
  app: FastifyInstance;
  /** Milliseconds without a request; 0 while one is in flight. */
  quietMs(): number;
}

/** Longer than Nginx keeps its upstream connections (60 s): the side that closes first must be the side that sends. */
const keepAliveMs = 75_000;

export function createHttp(request: HttpRequest): Http {
  const app = Fastify({
    loggerInstance: request.log as FastifyBaseLogger,
    logController: new LogController({ disableRequestLogging: true }),
    keepAliveTimeout: keepAliveMs,
    requestTimeout: 30_000,
    // A client that opens a connection and sends no request is cut soon. Node's default would look twice a minute only.
    http: { headersTimeout: 10_000, connectionsCheckingInterval: 2_000 },
    bodyLimit: 16_384,
    // By default, requests that arrive after close() get a 503. We close when there is no traffic, but never risk that.
    return503OnClosing: false,
  });
  const quietMs = followTraffic(app, request);
  answerErrors(app, request.log);
  addProbes(app, request.readiness);
  app.register(apiPlugin(request));
  return { app, quietMs };
}

function followTraffic(app: FastifyInstance, { identity, readiness, metrics }: HttpRequest): () => number {
  const servedBy = `${identity.release}/${identity.replica}`;
  let inFlight = 0;
  let lastAt = performance.now();
  app.addHook('onRequest', async (incoming, reply) => {
    // A probe is not counted as traffic. Otherwise a health check would keep a drained process alive.
    if (!isProbe(incoming.url)) {
      inFlight += 1;
      reply.raw.once('close', () => {
        inFlight -= 1;
        lastAt = performance.now();
      });
    }
    reply.header(servedByHeader, servedBy);
    if (readiness.isDraining()) reply.header('connection', 'close');
  });
  app.addHook('onResponse', async (incoming, reply) => {
    const route = incoming.routeOptions.url ?? 'none';
    metrics.requests.observe(
      { method: incoming.method, route, status: reply.statusCode },
      reply.elapsedTime / 1_000,
    );
  });
  return () => (inFlight > 0 ? 0 : performance.now() - lastAt);
}

function isProbe(url: string): boolean {
  return url === endpoint.ready || url === endpoint.alive;
}

function answerErrors(app: FastifyInstance, log: Logger): void {
  app.setNotFoundHandler((_incoming, reply) =>
    reply.code(404).send({ error: { code: 'NOT_FOUND', message: 'There is nothing at this address.' } }),
  );
  app.setErrorHandler((error: Error & { statusCode?: number; code?: string }, incoming, reply) => {
    const status = error.statusCode ?? 500;
    if (status === 503) reply.header('retry-after', '1');
    if (status < 500 || status === 503)
      return reply
        .code(status)
        .send({ error: { code: error.code ?? 'BAD_REQUEST', message: error.message } });
    log.error({ err: error, route: incoming.routeOptions.url }, 'request failed');
    return reply.code(500).send({ error: { code: 'INTERNAL', message: 'The server failed. Try again.' } });
  });
}

function addProbes(app: FastifyInstance, readiness: Readiness): void {
  app.get(endpoint.alive, async () => ({ alive: true }));
  app.get(endpoint.ready, async (_incoming, reply) => {
    const missing = readiness.missing();
    return reply.code(missing.length === 0 ? 200 : 503).send({ ready: missing.length === 0, missing });
  });
}
