/**
 * The admin port: numbers for Prometheus and the log level. Reachable on the project's network only, never through
 * Nginx.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import * as z from 'zod/mini';
import { endpoint } from '../contract.ts';

export interface AdminRequest {
  registry: Registry;
  log: Logger;
  port: number;
  host: string;
}

const bodyBytesMax = 1_024;
const levelWish = z.object({
  level: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']),
  forMs: z.optional(z.int().check(z.gte(1), z.lte(86_400_000))),
});

export function listenForAdmin({ registry, log, port, host }: AdminRequest): Promise<Server> {
  const setLevel = levelSetter(log);
  const server = createServer((request, response) => {
    const asked = `${request.method} ${request.url}`;
    if (asked === `GET ${endpoint.metrics}`) void sendMetrics(registry, response);
    else if (asked === `POST ${endpoint.logLevel}`) void takeLevel(request, response, setLevel);
    else response.writeHead(404).end();
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => resolve(server));
  });
}

async function sendMetrics(registry: Registry, response: ServerResponse): Promise<void> {
  response.writeHead(200, { 'content-type': registry.contentType }).end(await registry.metrics());
}

type SetLevel = (level: string, forMs: number | undefined) => void;

async function takeLevel(
  request: IncomingMessage,
  response: ServerResponse,
  setLevel: SetLevel,
): Promise<void> {
  const wish = levelWish.safeParse(await readBody(request).catch(() => null));
  const status = wish.success ? 200 : 400;
  if (wish.success) setLevel(wish.data.level, wish.data.forMs);
  const answer = wish.success
    ? wish.data
    : { error: { code: 'BAD_REQUEST', message: 'Send { level, forMs? }.' } };
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
}

async function readBody(request: IncomingMessage): Promise<unknown> {
  let text = '';
  for await (const chunk of request) {
    text += String(chunk);
    if (text.length > bodyBytesMax) return null;
  }
  return JSON.parse(text);
}

/** A level that was asked for a limited time falls back to the level of the settings. */
export function levelSetter(log: Pick<Logger, 'level'>): SetLevel {
  const own = log.level;
  let timer: NodeJS.Timeout | undefined;
  return (level, forMs) => {
    clearTimeout(timer);
    log.level = level;
    if (forMs === undefined) return;
    timer = setTimeout(() => {
      log.level = own;
    }, forMs);
    timer.unref();
  };
}
