/** Accounts, the world and the OpenAPI document, on real Postgres and Redis. */
import { createHash } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { closeCode, world } from '../../../src/protocol.ts';
import { attempts } from '../../../src/server/http/limits.ts';
import type { GameServer } from '../../support/players/game-server.ts';
import { until } from '../../support/players/game-server.ts';
import { openTestGame, type TestGame } from '../../support/players/test-game.ts';
import { joinAs } from '../../support/players/wire-player.ts';

let game: TestGame;
/** The server that a test asks; it is shared by all tests that do not start one. */
let server: GameServer;
let shared: GameServer;
let people = 0;

beforeAll(async () => {
  game = await openTestGame('rest');
  shared = await game.startKept();
});
beforeEach(() => {
  server = shared;
});
afterEach(async () => {
  await game.clear();
  // Attempts of one test must not count in the next.
  const keys = await counters();
  if (keys.length > 0) await game.redis.del(keys);
});
afterAll(() => game?.remove());

const counters = () => game.redis.keys(`${game.keys.attempts}*`);
/** Windows of limits that began stay open: on a slow machine they would begin anew in the middle of a test. */
const holdWindows = async () => {
  for (const key of await counters()) await game.redis.pexpire(key, 3_600_000);
};

interface Login {
  token: string;
  refreshToken: string;
  player: { id: string; name: string };
}

const freshName = () => {
  people += 1;
  return `Ranger ${people}`;
};

async function ask<T>(
  path: string,
  init: { body?: object; token?: string; headers?: Record<string, string>; at?: GameServer } = {},
) {
  const { body, token, headers, at = server } = init;
  const response = await fetch(`${at.url}${path}`, {
    method: body ? 'POST' : 'GET',
    headers: {
      ...(body ? { 'content-type': 'application/json' } : {}),
      ...(token ? { authorization: `Bearer ${token}` } : {}),
      ...headers,
    },
    ...(body ? { body: JSON.stringify(body) } : {}),
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: (text ? JSON.parse(text) : null) as T };
}

const register = async (name = freshName(), password = 'a long password') => {
  const { status, body } = await ask<Login>('/api/register', { body: { name, password } });
  expect(status).toBe(201);
  return { ...body, name, password };
};
const codeOf = ({ body }: { body: unknown }) => (body as { error: { code: string } }).error.code;
const explore = (token: string, key: string, tile: object) =>
  ask<{ isNew: boolean; discovery: { player: { id: string }; what: string } }>('/api/discoveries', {
    body: tile,
    token,
    headers: { 'idempotency-key': key },
  });

describe('accounts', () => {
  test('a player who registers and then logs in on another server is the same player', async () => {
    const other = await game.startReady({ replica: 2 });
    const { player, name, password } = await register();
    const login = await ask<Login>('/api/login', {
      body: { name: name.toUpperCase(), password },
      at: other,
    });
    expect(login.status).toBe(200);
    expect(login.body.player).toEqual(player);
    const joined = await joinAs(other.wsUrl, { token: login.body.token });
    expect(joined.welcome.player).toEqual(player);
    joined.leave();
    const profile = await ask<{ since: string; discoveries: number }>('/api/profile', {
      token: login.body.token,
    });
    expect(profile.body).toMatchObject({ player, discoveries: 0 });
    expect(Date.parse(profile.body.since)).toBeGreaterThan(Date.now() - 3_600_000);
  });

  test('a name is given to one account, whatever its case, also when several players want it at the same time', async () => {
    const name = freshName();
    const answers = await Promise.all(
      [name, name.toUpperCase(), name.toLowerCase()].map((one) =>
        ask('/api/register', { body: { name: one, password: 'a long password' } }),
      ),
    );
    expect(answers.map(({ status }) => status).sort()).toEqual([201, 409, 409]);
  });

  test('a wrong password and a name that nobody has get the same answer', async () => {
    const { name } = await register();
    const wrong = await ask('/api/login', { body: { name, password: 'not this one' } });
    const nobody = await ask('/api/login', { body: { name: 'Nobody At All', password: 'not this one' } });
    expect([wrong.status, nobody.status]).toEqual([401, 401]);
    expect(wrong.body).toEqual(nobody.body);
  });

  test('passwords and refresh tokens are stored as hashes, and neither is in the log', async () => {
    server = await game.startReady({ settings: { ...game.settings, LOG_LEVEL: 'trace' } });
    const { player, password, refreshToken } = await register(freshName(), 'correct horse battery');
    const { rows } = await game.database.query('select password_hash from accounts where player_id = $1', [
      player.id,
    ]);
    expect(rows[0].password_hash).toMatch(/^scrypt\$N=16384,r=8,p=5\$[\w-]{22}\$[\w-]{43}$/);
    const tokens = await game.database.query('select token_hash from refresh_tokens where player_id = $1', [
      player.id,
    ]);
    expect(tokens.rows[0].token_hash).toEqual(createHash('sha256').update(refreshToken).digest());
    expect(server.log()).not.toContain(password);
    expect(server.log()).not.toContain(refreshToken);
  });

  test('a refresh token is exchanged at every use; using an old one much later ends the login', async () => {
    const first = await register();
    const second = await ask<Login>('/api/refresh', { body: { refreshToken: first.refreshToken } });
    expect(second.status).toBe(200);
    expect(second.body.refreshToken).not.toBe(first.refreshToken);
    // The answer got lost: asking once more is no theft.
    const again = await ask<Login>('/api/refresh', { body: { refreshToken: first.refreshToken } });
    expect(again.status).toBe(200);
    await game.database.query(`update refresh_tokens set used_at = used_at - interval '1 hour'`);
    expect((await ask('/api/refresh', { body: { refreshToken: first.refreshToken } })).status).toBe(401);
    expect((await ask('/api/refresh', { body: { refreshToken: second.body.refreshToken } })).status).toBe(
      401,
    );
    expect((await ask('/api/refresh', { body: { refreshToken: again.body.refreshToken } })).status).toBe(401);
  });

  test('a login that has ended cannot be refreshed, another login of the same player can', async () => {
    const { name, password, refreshToken } = await register();
    const other = await ask<Login>('/api/login', { body: { name, password } });
    expect((await ask('/api/logout', { body: { refreshToken } })).status).toBe(204);
    expect((await ask('/api/logout', { body: { refreshToken } })).status).toBe(204);
    expect((await ask('/api/refresh', { body: { refreshToken } })).status).toBe(401);
    expect((await ask('/api/refresh', { body: { refreshToken: other.body.refreshToken } })).status).toBe(200);
  });

  test('an expired refresh token is refused', async () => {
    const { refreshToken, player } = await register();
    await game.database.query('update refresh_tokens set expires_at = now() where player_id = $1', [
      player.id,
    ]);
    expect((await ask('/api/refresh', { body: { refreshToken } })).status).toBe(401);
  });

  test('refreshing a login deletes its tokens that have expired', async () => {
    const { refreshToken, player } = await register();
    const second = await ask<Login>('/api/refresh', { body: { refreshToken } });
    await game.database.query(
      `update refresh_tokens set expires_at = now() - interval '1 s' where player_id = $1 and used_at is not null`,
      [player.id],
    );
    const third = await ask<Login>('/api/refresh', { body: { refreshToken: second.body.refreshToken } });
    expect(third.status).toBe(200);
    const { rows } = await game.database.query<{ token_hash: Buffer }>(
      'select token_hash from refresh_tokens where player_id = $1',
      [player.id],
    );
    const hashOf = (token: string) => createHash('sha256').update(token).digest('hex');
    expect(rows.map((row) => row.token_hash.toString('hex')).sort()).toEqual(
      [second, third].map(({ body }) => hashOf(body.refreshToken)).sort(),
    );
  });

  test('names and passwords that are not valid are refused', async () => {
    const password = 'a long password';
    for (const body of [
      { name: 'x', password },
      { name: 'a'.repeat(30), password },
      { name: '<b>bold</b>', password },
      { name: 'ab\u202Ecd', password },
      { name: 'short', password: 'seven77' },
      { name: 'none' },
    ]) {
      const answer = await ask('/api/register', { body });
      expect(answer.status).toBe(400);
      expect(codeOf(answer)).toBe('BAD_REQUEST');
    }
  });

  test('the same rules hold for names of guests, and no guest can be taken for a player with an account', async () => {
    const guest = (name?: string) =>
      ask<{ player: { id: string; name: string }; token: string }>('/api/session', { body: { name } });
    for (const name of [
      '',
      'x',
      'a'.repeat(30),
      '<b>bold</b>',
      'ab\u202Ecd',
      'ab\u0000cd',
      'ab\ncd',
      'Me (guest)',
    ])
      expect((await guest(name)).status, JSON.stringify(name)).toBe(400);
    const { player } = await register();
    const other = await guest(player.name);
    expect(other.status).toBe(200);
    expect(other.body.player.name).toBe(`${player.name} (guest)`);
    const joined = await joinAs(server.wsUrl, { token: other.body.token });
    expect(joined.welcome.player).toEqual(other.body.player);
    joined.leave();
    expect((await guest()).body.player.name).toBe('Guest');
    for (const name of [other.body.player.name, 'Guest', 'server', 'Ｓerver'])
      expect((await ask('/api/register', { body: { name, password: 'a long password' } })).status, name).toBe(
        400,
      );
  });

  test('guessing passwords is stopped by name, from whatever address, and other players may log in', async () => {
    const { name, password } = await register();
    const other = await register();
    const tries = [];
    for (let n = 0; n < 11; n += 1) {
      tries.push(
        await ask('/api/login', {
          body: { name, password: `guess number ${n}` },
          headers: { 'x-real-ip': `192.0.2.${n}` },
        }),
      );
      await holdWindows();
    }
    expect(tries.map(({ status }) => status)).toEqual([...Array.from({ length: 10 }, () => 401), 429]);
    expect((await ask('/api/login', { body: { name, password } })).status).toBe(429);
    expect((await ask('/api/login', { body: { name: other.name, password } })).status).toBe(200);
  });

  test('guessing refresh tokens is stopped by address, on every replica, and other addresses may refresh', async () => {
    const second = await game.startReady({ replica: 2 });
    const attempt = (n: number, address: string) =>
      ask('/api/refresh', {
        body: { refreshToken: `guess ${n}` },
        at: n % 2 ? server : second,
        headers: { 'x-real-ip': address },
      });
    const tries = [];
    for (let n = 0; n < 31; n += 1) {
      tries.push(await attempt(n, '198.51.100.7'));
      if (n === 0) await holdWindows();
    }
    expect(tries.map(({ status }) => status)).toEqual([...Array.from({ length: 30 }, () => 401), 429]);
    expect(codeOf(tries[30] as { body: unknown })).toBe('TOO_MANY');
    expect(tries[30]?.headers.get('retry-after')).toMatch(/^\d+$/);
    expect((await attempt(99, '198.51.100.8')).status).toBe(401);
  });

  test('making guests or ending logins is limited by address, and other addresses may go on', async () => {
    for (const [path, body, good, { max }] of [
      ['/api/session', {}, 200, attempts.guest],
      ['/api/logout', { refreshToken: 'none of mine' }, 204, attempts.logout],
    ] as const) {
      const from = (address: string) => ask(path, { body, headers: { 'x-real-ip': address } });
      const before = new Set(await counters());
      const answers = await Promise.all(Array.from({ length: 40 }, () => from('198.51.100.9')));
      expect(new Set(answers.map(({ status }) => status)), path).toEqual(new Set([good]));
      await holdWindows();
      // As if all but one of the others had been asked, too: the counter goes up, whatever raises it.
      const counter = (await counters()).find((key) => !before.has(key)) ?? '';
      await game.redis.incrby(counter, max - 41);
      expect((await from('198.51.100.9')).status, path).toBe(good);
      const beyond = await from('198.51.100.9');
      expect(beyond.status, path).toBe(429);
      expect(codeOf(beyond)).toBe('TOO_MANY');
      expect((await from('198.51.100.10')).status, path).toBe(good);
    }
  });

  test('pings of a player are answered while passwords of others are being hashed', async () => {
    const player = await game.join(server, 'undisturbed');
    const crowd = Promise.all(
      Array.from({ length: 12 }, (_, n) =>
        ask('/api/login', {
          body: { name: `sleeper ${n}`, password: 'whatever' },
          headers: { 'x-real-ip': `203.0.113.${n}` },
        }),
      ),
    );
    let answered = 0;
    void crowd.then(() => {
      answered = -1;
    });
    while (answered >= 0) {
      player.send({ t: 'ping', at: answered });
      const sent = answered;
      await until(() => player.heard.some((message) => message.t === 'pong' && message.at === sent));
      if (answered === sent) answered += 1;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect((await crowd).every(({ status }) => status === 401)).toBe(true);
    expect(player.heard.filter(({ t }) => t === 'pong').length).toBeGreaterThan(1);
  });
});

describe('the world', () => {
  test('the first player to explore a tile makes its discovery, and the region hears of it', async () => {
    const tile = { region: 'r4-4', x: 3, y: 9 };
    const listener = await game.join(server, 'listener', { region: 'r4-4' });
    const elsewhere = await game.join(server, 'elsewhere', { region: 'r4-5' });
    const tries = await Promise.all(
      ['ada', 'ben', 'cyd'].map((player) => explore(game.tokenOf(player), `${player}-first`, tile)),
    );
    expect(tries.map(({ status }) => status).sort()).toEqual([200, 200, 201]);
    const first = tries.find(({ status }) => status === 201);
    expect(new Set(tries.map(({ body }) => body.discovery.player.id)).size).toBe(1);
    const { discovery, room } = await listener.next('discovered');
    expect(discovery).toEqual(first?.body.discovery);
    expect(room).toBe('r4-4');
    listener.say(1, 'seen');
    await listener.next('said');
    expect(listener.heard.filter(({ t }) => t === 'discovered')).toHaveLength(1);
    expect(elsewhere.heard.filter(({ t }) => t === 'discovered')).toHaveLength(0);
  });

  test('an idempotency key that is sent again gets the same answer, even for another tile', async () => {
    const token = game.tokenOf('twice');
    const first = await explore(token, 'same-key-1', { region: 'r4-6', x: 1, y: 1 });
    const again = await explore(token, 'same-key-1', { region: 'r4-6', x: 2, y: 2 });
    expect([first.status, again.status]).toEqual([201, 200]);
    expect(again.body.discovery).toEqual(first.body.discovery);
  });

  test('a discovery from before there were tiles has no tile and is still listed', async () => {
    await game.database.query(
      `insert into discoveries (player_id, player_name, region, what, idempotency_key)
       values ('old', 'Old Hand', 'Salt Marsh', 'iron ore', 'from-before')`,
    );
    const { body } = await ask<{ discoveries: object[] }>('/api/discoveries');
    expect(body.discoveries[0]).toMatchObject({ player: { id: 'old' }, region: 'Salt Marsh', tile: null });
  });

  test('regions list their players and their discoveries', async () => {
    server = await game.startReady();
    await game.join(server, 'one', { region: 'r8-8' });
    await game.join(server, 'two', { region: 'r8-8' });
    await explore(game.tokenOf('one'), 'in-r8-8-a', { region: 'r8-8', x: 0, y: 0 });
    const { body } = await ask<{ regions: { region: string; players: number }[] }>('/api/regions');
    expect(body).toMatchObject(world);
    expect(body.regions).toContainEqual({ region: 'r8-8', players: 2 });
    const region = await ask<{ people: { id: string }[]; discoveries: object[] }>('/api/regions/r8-8');
    expect(region.body.people.map(({ id }) => id).sort()).toEqual(['one', 'two']);
    expect(region.body.discoveries).toMatchObject([{ region: 'r8-8', tile: { x: 0, y: 0 } }]);
    expect((await ask('/api/regions/r20-0')).status).toBe(404);
    const filtered = await ask<{ discoveries: object[] }>('/api/discoveries?region=r8-8');
    expect(filtered.body.discoveries).toHaveLength(1);
    expect((await ask('/api/discoveries?region=nowhere')).status).toBe(400);
  });

  test('the leaderboard counts the discoveries that are stored', async () => {
    server = await game.startReady();
    const token = game.tokenOf('champion');
    for (let x = 0; x < 12; x += 1) await explore(token, `champion-${x}`, { region: 'r9-9', x, y: 7 });
    const { body } = await ask<{ leaders: object[] }>('/api/leaderboard');
    expect(body.leaders[0]).toEqual({ player: { id: 'champion', name: 'champion' }, discoveries: 12 });
    expect((await ask('/api/profile', { token })).body).toMatchObject({ since: null, discoveries: 12 });
  });

  test('one player cannot fill a region at once, over however many replicas, and others may go on', async () => {
    const second = await game.startReady({ replica: 2 });
    const listener = await game.join(server, 'overwhelmed', { region: 'r5-5' });
    const token = game.tokenOf('hasty');
    const attempt = (n: number) =>
      ask('/api/discoveries', {
        body: { region: 'r5-5', x: n % 32, y: Math.floor(n / 32) },
        token,
        headers: { 'idempotency-key': `in-haste-${n}` },
        at: n % 2 ? server : second,
      });
    const tries = [await attempt(0)];
    await holdWindows();
    const rest = Array.from({ length: attempts.explore.max + 19 }, (_, n) => attempt(n + 1));
    tries.push(...(await Promise.all(rest)));
    const counted = (status: number) => tries.filter((answer) => answer.status === status).length;
    expect([counted(201), counted(429)]).toEqual([attempts.explore.max, 20]);
    const calm = await explore(game.tokenOf('calm'), 'calm-in-r5-5', { region: 'r5-5', x: 31, y: 31 });
    expect(calm.status).toBe(201);
    await until(() => listener.heard.filter(({ t }) => t === 'discovered').length > counted(201));
    expect((await explore('no.such.token', 'nobody-in-r5-5', { region: 'r5-5', x: 1, y: 31 })).status).toBe(
      401,
    );
  });

  test('players can talk while Postgres fails, because it is not on the message path', async () => {
    server = await game.startReady();
    const player = await game.join(server, 'talker');
    await game.database.query('alter table discoveries rename to away');
    try {
      const failed = await ask('/api/leaderboard');
      expect(failed.status).toBe(503);
      expect(codeOf(failed)).toBe('UNAVAILABLE');
      expect(failed.headers.get('retry-after')).toBe('1');
      player.say(1, 'all well');
      await player.next('said');
    } finally {
      await game.database.query('alter table away rename to discoveries');
    }
  });
});

describe('the OpenAPI document', () => {
  test('describes every route, with the limits that requests are checked against', async () => {
    interface Document {
      openapi: string;
      paths: Record<
        string,
        Record<string, { requestBody?: object; responses: object; parameters: object[] }>
      >;
    }
    const { body } = await ask<Document>('/api/openapi.json');
    expect(body.openapi).toBe('3.1.0');
    expect(Object.keys(body.paths).sort()).toEqual([
      '/api/discoveries',
      '/api/leaderboard',
      '/api/login',
      '/api/logout',
      '/api/openapi.json',
      '/api/profile',
      '/api/refresh',
      '/api/regions',
      '/api/regions/{region}',
      '/api/register',
      '/api/session',
      '/api/version',
    ]);
    const explored = body.paths['/api/discoveries']?.post;
    expect(explored).toMatchObject({
      requestBody: {
        content: {
          'application/json': {
            schema: { properties: { x: { type: 'integer', minimum: 0, exclusiveMaximum: world.tiles } } },
          },
        },
      },
      security: [{ token: [] }],
    });
    expect(Object.keys(explored?.responses ?? {})).toEqual(['200', '201', '400', '401', '429', '503']);
    // Routes with a limit say so, and no other route does.
    const bounded = Object.entries(body.paths).flatMap(([path, methods]) =>
      Object.entries(methods).flatMap(([method, { responses }]) =>
        '429' in responses ? `${method} ${path}` : [],
      ),
    );
    expect(bounded.sort()).toEqual(
      ['discoveries', 'login', 'logout', 'refresh', 'register', 'session'].map((name) => `post /api/${name}`),
    );
    for (const path of Object.keys(body.paths)) {
      const asked = await fetch(`${server.url}${path.replace('{region}', 'r1-1')}`, { method: 'POST' });
      await asked.text();
      if (body.paths[path]?.post === undefined) expect(asked.status, path).toBe(404);
      else expect(asked.status, path).not.toBe(404);
    }
  });
});

describe('at run time', () => {
  test('the log level is changed on the admin port, also for loggers that exist already, and nowhere else', async () => {
    server = await game.startReady();
    const level = (body: object) =>
      fetch(`${server.adminUrl}/loglevel`, { method: 'POST', body: JSON.stringify(body) });
    const badHello = async () => {
      await expect(joinAs(server.wsUrl, { token: 'bad' })).rejects.toMatchObject({
        closed: { code: closeCode.badToken },
      });
      return server.log();
    };
    expect(await badHello()).not.toContain('token refused');
    expect((await level({ level: 'debug', forMs: 60_000 })).status).toBe(200);
    await until(async () => (await badHello()).includes('token refused'));
    expect((await level({ level: 'loud' })).status).toBe(400);
    expect((await fetch(`${server.url}/loglevel`, { method: 'POST' })).status).toBe(404);
  });
});
