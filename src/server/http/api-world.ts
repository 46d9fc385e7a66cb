/** Routes of the world: guests, regions, discoveries, the leaderboard. */
import { randomUUID } from 'node:crypto';
import * as z from 'zod/mini';
import { type Headcount, isRegion, protocolVersion, world } from '../../protocol.ts';
import { mintToken, tokenLifeMs } from '../../tokens.ts';
import { contentOf } from '../world/tile-content.ts';
import type { Api, ApiRoute } from './api-route.ts';
import { body, guestName, oneRegion, read, readKey, refuse } from './input.ts';
import { attempts } from './limits.ts';
import { discovery, person } from './openapi.ts';

const latestCount = 50;
const peopleCount = 200;
const leadersCount = 20;
const regionsMs = 1_000;
const leadersMs = 5_000;

const many = z.object({ discoveries: z.array(discovery) });
const headcount: z.ZodMiniType<Headcount> = z.object({ region: z.string(), players: z.int() });
const visitor = z.object({ token: z.string(), player: person, expiresAt: z.string() });

export function worldRoutes(api: Api): ApiRoute[] {
  return [
    versionRoute(api),
    guestRoute(api),
    regionsRoute(api),
    regionRoute(api),
    discoveriesRoute(api),
    exploreRoute(api),
    leaderboardRoute(api),
  ];
}

function versionRoute({ identity }: Api): ApiRoute {
  const { release, replica } = identity;
  return {
    method: 'GET',
    path: '/api/version',
    summary: 'The release that answers, without asking a database',
    answers: {
      200: {
        means: 'The release',
        shape: z.object({ release: z.int(), replica: z.int(), protocol: z.string() }),
      },
    },
    answer: async () => ({ release, replica, protocol: protocolVersion }),
  };
}

function guestRoute({ secret }: Api): ApiRoute {
  return {
    method: 'POST',
    path: '/api/session',
    summary: 'Play as a guest',
    body: body.guest,
    attempts: attempts.guest,
    answers: { 200: { means: 'A token for the hello', shape: visitor } },
    async answer({ body: sent }) {
      const { name } = read(body.guest, sent ?? {});
      const player = { id: `guest-${randomUUID()}`, name: guestName(name) };
      return {
        token: mintToken(secret, player, tokenLifeMs.guest),
        player,
        expiresAt: new Date(Date.now() + tokenLifeMs.guest).toISOString(),
      };
    },
  };
}

function regionsRoute({ presence }: Api): ApiRoute {
  const regions = kept(regionsMs, () => presence.headcount());
  return {
    method: 'GET',
    path: '/api/regions',
    summary: 'The size of the world, and how many players are in each region',
    answers: {
      200: {
        means: 'Regions with somebody in them; all others are empty',
        shape: z.object({
          columns: z.int(),
          rows: z.int(),
          tiles: z.int(),
          regions: z.array(headcount),
        }),
      },
    },
    async answer() {
      const found: Headcount[] = await regions().catch(() => {
        throw refuse(503, 'UNAVAILABLE', 'Redis does not answer, so nobody knows who is where. Try again.');
      });
      return { ...world, regions: found };
    },
  };
}

function leaderboardRoute({ store, available }: Api): ApiRoute {
  const leaders = kept(leadersMs, () => available(store.leaders(leadersCount)));
  return {
    method: 'GET',
    path: '/api/leaderboard',
    summary: 'The players with the most discoveries',
    answers: {
      200: {
        means: `At most ${leadersCount} players, a few seconds old`,
        shape: z.object({ leaders: z.array(z.object({ player: person, discoveries: z.int() })) }),
      },
    },
    answer: async () => ({ leaders: await leaders() }),
  };
}

function regionRoute({ store, presence, available }: Api): ApiRoute {
  return {
    method: 'GET',
    path: '/api/regions/:region',
    summary: 'The players and the discoveries of a region',
    answers: {
      200: {
        means: `At most ${peopleCount} players, and the newest discoveries`,
        shape: z.object({ region: z.string(), people: z.array(person), discoveries: z.array(discovery) }),
      },
      404: { means: 'There is no such region' },
    },
    async answer({ params }) {
      const region = (params as { region: string }).region;
      if (!isRegion(region)) throw refuse(404, 'NOT_FOUND', 'There is no such region.');
      const [people, discoveries] = await Promise.all([
        presence.people(region, peopleCount).catch(() => {
          throw refuse(503, 'UNAVAILABLE', 'Redis does not answer, so nobody knows who is there. Try again.');
        }),
        available(store.latest(latestCount, region)),
      ]);
      return { region, people, discoveries };
    },
  };
}

function discoveriesRoute({ store, available }: Api): ApiRoute {
  return {
    method: 'GET',
    path: '/api/discoveries',
    summary: 'The newest discoveries, of the world or of one region',
    query: { region: oneRegion },
    answers: { 200: { means: `At most ${latestCount}, newest first`, shape: many } },
    async answer({ query }) {
      const { region } = query as { region?: string };
      const one = region === undefined ? null : read(oneRegion, region);
      return { discoveries: await available(store.latest(latestCount, one)) };
    },
  };
}

function exploreRoute(api: Api): ApiRoute {
  const answered = z.object({ discovery, isNew: z.boolean() });
  return {
    method: 'POST',
    path: '/api/discoveries',
    summary: 'Explore a tile: the first player to do so makes its discovery',
    body: body.explore,
    needs: ['token', 'idempotency-key'],
    attempts: attempts.explore,
    answers: {
      201: { means: 'The discovery is yours, and the region is told', shape: answered },
      200: { means: 'The tile was explored before, by you or somebody else', shape: answered },
    },
    async answer(incoming, reply) {
      const player = api.playerOf(incoming);
      const key = readKey(incoming.headers['idempotency-key']);
      const { region, x, y } = read(body.explore, incoming.body);
      const tile = { x, y };
      const what = contentOf(region, tile);
      const kept = await api.available(api.store.keep({ player, region, tile, key, what }));
      if (kept.isNew) {
        // The promise was to store it. An announcement that Redis does not take is not worth a failed request.
        api.bus.announce(region, { t: 'discovered', discovery: kept.discovery }).catch(() => undefined);
      }
      return reply.code(kept.isNew ? 201 : 200).send(kept);
    },
  };
}

/** Asks once for everybody, at most once in `forMs`. A failure is not kept. */
function kept<T>(forMs: number, ask: () => Promise<T>): () => Promise<T> {
  let answer: Promise<T> | null = null;
  let until = 0;
  return () => {
    if (answer !== null && performance.now() < until) return answer;
    until = performance.now() + forMs;
    const own = ask();
    own.catch(() => {
      if (answer === own) answer = null;
    });
    answer = own;
    return own;
  };
}
