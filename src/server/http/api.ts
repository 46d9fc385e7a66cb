/**
 * The REST side: a table of routes, from which both the server and its OpenAPI document are made. Promises that an error
 * is answered as JSON with a code, and that a database which does not answer leads to a 503 and nothing worse.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { redisKeys } from '../../contract.ts';
import { openAccounts } from '../world/accounts.ts';
import { accountRoutes } from './api-accounts.ts';
import type { Api, ApiRequest, ApiRoute } from './api-route.ts';
import { worldRoutes } from './api-world.ts';
import { readBearer, refuse } from './input.ts';
import { addLimits } from './limits.ts';
import { openApi } from './openapi.ts';

/** A plugin, because the limits have to be loaded before the routes that they apply to. */
export function apiPlugin(request: ApiRequest) {
  const { verify, log, bus, identity } = request;
  const api: Api = {
    ...request,
    playerOf: (incoming) => readBearer(incoming.headers.authorization, verify),
    async available(asked) {
      try {
        return await asked;
      } catch (error) {
        log.warn({ reason: error instanceof Error ? error.message : 'unknown' }, 'postgres did not answer');
        throw refuse(503, 'UNAVAILABLE', 'The database does not answer. Try again.');
      }
    },
  };
  return async (app: FastifyInstance): Promise<void> => {
    await addLimits(app, bus.commands, redisKeys(identity.project).attempts);
    const accounts = openAccounts(request.store.pool);
    const routes = [...worldRoutes(api), ...accountRoutes(api, accounts, app)];
    routes.push(described(routes, identity.release));
    for (const route of routes) addRoute(app, route, api);
  };
}

function addRoute(
  app: FastifyInstance,
  { method, path, attempts, answer }: ApiRoute,
  { playerOf }: Api,
): void {
  const keyed =
    attempts?.by === 'player' ? { keyGenerator: (incoming: FastifyRequest) => playerOf(incoming).id } : {};
  app.route({
    method,
    url: path,
    handler: answer,
    ...(attempts ? { config: { rateLimit: { ...attempts, ...keyed } } } : {}),
  });
}

function described(routes: readonly ApiRoute[], release: number): ApiRoute {
  let made: object | null = null;
  return {
    method: 'GET',
    path: '/api/openapi.json',
    summary: 'This document',
    answers: { 200: { means: 'OpenAPI 3.1' } },
    async answer() {
      made ??= openApi(routes, String(release));
      return made;
    },
  };
}
