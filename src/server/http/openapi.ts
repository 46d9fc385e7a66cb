/**
 * The OpenAPI document, made from the zod schemas that requests are checked with, so that the two can't differ. It is made
 * when somebody first asks for it, because a deploy waits for every millisecond of a start.
 */
import * as z from 'zod/mini';
import { servedByHeader } from '../../contract.ts';
import { idempotencyKey } from './input.ts';
import type { Limit } from './limits.ts';

export interface Described {
  method: 'GET' | 'POST';
  /** As Fastify writes it: /api/regions/:region */
  path: string;
  summary: string;
  body?: z.ZodMiniType;
  query?: Record<string, z.ZodMiniType>;
  needs?: ('token' | 'idempotency-key')[];
  attempts?: Limit;
  /** Status → what it means, and the answer's shape. */
  answers: Record<number, { means: string; shape?: z.ZodMiniType }>;
}

export const person = z.object({ id: z.string(), name: z.string() });
export const discovery = z.object({
  id: z.string(),
  player: person,
  region: z.string(),
  tile: z.nullable(z.object({ x: z.int(), y: z.int() })),
  what: z.string(),
  at: z.string(),
});
export const failure = z.object({ error: z.object({ code: z.string(), message: z.string() }) });

/** What a route may answer besides its own answers. */
const usual = {
  400: 'The request is not valid',
  401: 'The token is missing, not valid or expired',
  429: 'Too many requests',
  503: 'Try again',
};

export function openApi(routes: readonly Described[], version: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes) {
    const path = route.path.replaceAll(/:(\w+)/g, '{$1}');
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operation(route) };
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'gameops game server',
      version,
      description: `Everything live is on the WebSocket at /ws. The header ${servedByHeader} names the release and replica that answered.`,
    },
    paths,
    components: {
      securitySchemes: { token: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } },
    },
  };
}

function operation({ path, summary, body, query, needs = [], attempts, answers }: Described): object {
  const named = [...path.matchAll(/:(\w+)/g)].map(([, name]) =>
    parameter('path', name ?? '', z.string(), true),
  );
  const asked = Object.entries(query ?? {}).map(([name, shape]) => parameter('query', name, shape, false));
  const headers = needs.includes('idempotency-key')
    ? [parameter('header', 'idempotency-key', idempotencyKey, true)]
    : [];
  const usually: [string, string][] = [
    ...(body || query ? [usualAnswer(400)] : []),
    ...(needs.includes('token') ? [usualAnswer(401)] : []),
    ...(attempts ? [usualAnswer(429)] : []),
    usualAnswer(503),
  ];
  const responses = Object.fromEntries([
    ...usually.map(([status, means]) => [status, answer(means, failure)]),
    ...Object.entries(answers).map(([status, { means, shape }]) => [status, answer(means, shape)]),
  ]);
  return {
    summary,
    parameters: [...named, ...asked, ...headers],
    ...(needs.includes('token') ? { security: [{ token: [] }] } : {}),
    ...(body ? { requestBody: { required: true, content: json(body) } } : {}),
    responses,
  };
}

const usualAnswer = (status: keyof typeof usual): [string, string] => [String(status), usual[status]];

function parameter(place: string, name: string, shape: z.ZodMiniType, required: boolean): object {
  return { in: place, name, required, schema: jsonSchema(shape) };
}

function answer(description: string, shape: z.ZodMiniType | undefined): object {
  return { description, ...(shape ? { content: json(shape) } : {}) };
}

const json = (shape: z.ZodMiniType) => ({ 'application/json': { schema: jsonSchema(shape) } });

function jsonSchema(shape: z.ZodMiniType): object {
  const { $schema: _, ...made } = z.toJSONSchema(shape, { io: 'input' });
  return made;
}
