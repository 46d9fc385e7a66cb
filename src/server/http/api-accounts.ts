/** Routes of accounts: register, login, refresh, logout, profile. Guests play without an account. */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import * as z from 'zod/mini';
import type { Person } from '../../protocol.ts';
import { mintToken, tokenLifeMs } from '../../tokens.ts';
import { type Accounts, nameKey } from '../world/accounts.ts';
import { Busy, hashPassword, isPassword } from '../world/passwords.ts';
import type { Api, ApiRoute } from './api-route.ts';
import { body, read, refuse } from './input.ts';
import { attempts, tooMany } from './limits.ts';
import { failure, person } from './openapi.ts';

const login = z.object({
  token: z.string(),
  refreshToken: z.string(),
  player: person,
  expiresAt: z.string(),
});

export function accountRoutes(api: Api, accounts: Accounts, app: FastifyInstance): ApiRoute[] {
  return [
    registerRoute(api, accounts),
    loginRoute(api, accounts, app),
    refreshRoute(api, accounts),
    logoutRoute(api, accounts),
    profileRoute(api, accounts),
  ];
}

function registerRoute({ available, secret }: Api, accounts: Accounts): ApiRoute {
  return {
    method: 'POST',
    path: '/api/register',
    summary: 'Make an account',
    body: body.register,
    attempts: attempts.register,
    answers: {
      201: { means: 'The account is made and logged in', shape: login },
      409: { means: 'The name is taken', shape: failure },
    },
    async answer(incoming, reply) {
      const { name, password } = read(body.register, incoming.body);
      const player = await available(accounts.create(name, await unlessBusy(hashPassword(password))));
      if (player === null) throw refuse(409, 'NAME_TAKEN', 'Another player has that name.');
      return reply.code(201).send(loggedIn(secret, player, await available(accounts.grant(player.id))));
    },
  };
}

function loginRoute({ available, secret }: Api, accounts: Accounts, app: FastifyInstance): ApiRoute {
  const ofName = app.createRateLimit({
    ...attempts.name,
    keyGenerator: (incoming: FastifyRequest) => `name:${nameKey(read(body.login, incoming.body).name)}`,
  });
  return {
    method: 'POST',
    path: '/api/login',
    summary: 'Log in',
    body: body.login,
    attempts: attempts.login,
    answers: {
      200: { means: 'Logged in', shape: login },
      401: { means: 'The name is unknown, or the password is wrong', shape: failure },
    },
    async answer(incoming) {
      const { name, password } = read(body.login, incoming.body);
      const counted = await ofName(incoming);
      if (!counted.isAllowed && counted.isExceeded) throw tooMany(counted.ttl);
      const account = await available(accounts.find(name));
      const isRight = await unlessBusy(isPassword(password, account?.passwordHash ?? null));
      if (account === null || !isRight)
        throw refuse(401, 'LOGIN_WRONG', 'The name or the password is wrong.');
      return loggedIn(secret, account.player, await available(accounts.grant(account.player.id)));
    },
  };
}

function refreshRoute({ available, secret }: Api, accounts: Accounts): ApiRoute {
  return {
    method: 'POST',
    path: '/api/refresh',
    summary: 'Exchange a refresh token for a fresh token and a new refresh token',
    body: body.refresh,
    attempts: attempts.login,
    answers: {
      200: { means: 'Still logged in', shape: login },
      401: { means: 'The refresh token is not valid any more: log in again', shape: failure },
    },
    async answer(incoming) {
      const { refreshToken } = read(body.refresh, incoming.body);
      const rotated = await available(accounts.rotate(refreshToken));
      if (rotated === null) throw refuse(401, 'REFRESH_TOKEN_BAD', 'This login has ended. Log in again.');
      return loggedIn(secret, rotated.player, rotated.token);
    },
  };
}

function logoutRoute({ available }: Api, accounts: Accounts): ApiRoute {
  return {
    method: 'POST',
    path: '/api/logout',
    summary: 'End the login that a refresh token belongs to',
    body: body.refresh,
    attempts: attempts.logout,
    answers: { 204: { means: 'The login has ended, or had ended before' } },
    async answer(incoming, reply) {
      const { refreshToken } = read(body.refresh, incoming.body);
      await available(accounts.end(refreshToken));
      return reply.code(204).send();
    },
  };
}

function loggedIn(secret: string, player: Person, refreshToken: string) {
  return {
    token: mintToken(secret, player, tokenLifeMs.account),
    refreshToken,
    player,
    expiresAt: new Date(Date.now() + tokenLifeMs.account).toISOString(),
  };
}

function profileRoute({ playerOf, available, store }: Api, accounts: Accounts): ApiRoute {
  return {
    method: 'GET',
    path: '/api/profile',
    summary: 'Your name, and how much you have discovered',
    needs: ['token'],
    answers: {
      200: {
        means: '`since`: when the account was made; null for a guest',
        shape: z.object({ player: person, since: z.nullable(z.string()), discoveries: z.int() }),
      },
    },
    async answer(incoming) {
      const player = playerOf(incoming);
      const [since, discoveries] = await available(
        Promise.all([accounts.since(player.id), store.countOf(player.id)]),
      );
      return { player, since: since?.toISOString() ?? null, discoveries };
    },
  };
}

async function unlessBusy<T>(asked: Promise<T>): Promise<T> {
  try {
    return await asked;
  } catch (error) {
    if (error instanceof Busy)
      throw refuse(503, 'UNAVAILABLE', 'Too many players log in at once. Try again.');
    throw error;
  }
}
