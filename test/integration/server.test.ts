/** The bundled game server against real Postgres and Redis. */

import { createHmac } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { Redis } from 'ioredis';
import { Client } from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { joinOnce, type LoadPlayer, startPlayer } from '../../src/client/player.ts';
import { redisKeys, servedByHeader } from '../../src/contract.ts';
import { closeCode, protocolVersion } from '../../src/protocol.ts';
import { mintToken } from '../../src/tokens.ts';
import { type Ground, ground } from '../support/accessories.ts';
import {
  dialledSettings,
  type GameServer,
  type GameServerRequest,
  startGameServer,
  statusOf,
  until,
} from '../support/game-server.ts';

let lab: Ground;
let settings: Record<string, string>;
let redis: Redis;
let database: Client;
const running: GameServer[] = [];
const players: LoadPlayer[] = [];

beforeAll(async () => {
  lab = await ground('server');
  await lab.ensure();
  settings = await dialledSettings(lab);
  redis = new Redis(settings.REDIS_URL ?? '');
  database = new Client({
    host: settings.DB_HOST,
    port: Number(settings.DB_PORT),
    database: settings.DB_NAME,
    user: settings.DB_USER,
    password: settings.DB_PASSWORD,
  });
  await database.connect();
});

afterEach(async () => {
  for (const player of players.splice(0)) player.stop();
  for (const server of running.splice(0)) if (!server.hasEnded()) await server.kill();
});

afterAll(async () => {
  redis?.disconnect();
  await database?.end();
  await lab?.remove();
});

async function migrate(direction: 'up' | 'down'): Promise<void> {
  const folder = new URL('../../migrations/', import.meta.url);
  const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort();
  for (const name of direction === 'up' ? names : names.reverse()) {
    const [up = '', down = ''] = (await readFile(new URL(name, folder), 'utf8')).split('-- Down Migration');
    await database.query(direction === 'up' ? up : down);
  }
}

async function start(over: Partial<GameServerRequest> = {}): Promise<GameServer> {
  const server = await startGameServer({ settings, project: lab.project, ...over });
  running.push(server);
  return server;
}

async function startReady(over: Partial<GameServerRequest> = {}): Promise<GameServer> {
  const server = await start(over);
  await until(async () => {
    if (server.hasEnded()) throw new Error(`the server ended: ${server.log()}`);
    return (await statusOf(`${server.url}/readyz`)) === 200;
  });
  return server;
}

const secret = () => settings.JWT_SECRET ?? '';
const tokenOf = (id: string) => mintToken(secret(), { id, name: id }, 60_000);

function play(server: GameServer, id: string): LoadPlayer {
  const player = startPlayer({ url: server.wsUrl, token: tokenOf(id) });
  players.push(player);
  return player;
}

async function missingOf(server: GameServer): Promise<string[]> {
  const response = await fetch(`${server.url}/readyz`);
  return ((await response.json()) as { missing: string[] }).missing;
}

function postDiscovery(server: GameServer, token: string, key: string): Promise<Response> {
  return fetch(`${server.url}/api/discoveries`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${token}`,
      'idempotency-key': key,
      'content-type': 'application/json',
    },
    body: JSON.stringify({ region: 'Salt Marsh', what: 'a warm spring' }),
  });
}

describe('readiness', () => {
  test('a server whose schema is missing is alive and not ready, and becomes ready without a restart', async () => {
    const server = await start();
    await until(async () => (await statusOf(`${server.url}/healthz`)) === 200);
    await until(async () => (await missingOf(server)).join() === 'schema');
    await migrate('up');
    await until(async () => (await statusOf(`${server.url}/readyz`)) === 200);
    await migrate('down');
    await migrate('up');
  });

  test('a server that starts before Redis waits for it instead of exiting', async () => {
    const deaf = await start({ settings: { ...settings, REDIS_URL: 'redis://127.0.0.1:1' } });
    await until(async () => (await statusOf(`${deaf.url}/healthz`)) === 200);
    await until(async () => (await missingOf(deaf)).join() === 'redis');
    expect(deaf.process.exitCode).toBe(null);
  });

  test('a server that starts before Postgres waits for it instead of exiting', async () => {
    const deaf = await start({ settings: { ...settings, DB_HOST: '127.0.0.1', DB_PORT: '1' } });
    await until(async () => (await statusOf(`${deaf.url}/healthz`)) === 200);
    await until(async () => (await missingOf(deaf)).join() === 'postgres,schema');
    expect(deaf.process.exitCode).toBe(null);
  });

  test('connections that Redis and Postgres cut come back, and nobody is told to go away', async () => {
    const server = await startReady();
    const player = play(server, 'steady');
    await until(() => player.isOn());
    await redis.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await redis.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'gameops-server'`,
    );
    expect(await statusOf(`${server.url}/readyz`)).toBe(200);
    await until(() => player.say('still here'));
    await until(() => {
      player.say('again');
      return player.counts.received > 3;
    });
    expect(await statusOf(`${server.url}/api/discoveries`)).toBe(200);
    expect(player.counts).toMatchObject({ joins: 1, breaks: 0, restarts: 0 });
  });

  test('settings that are not usable end it at once, name every key and show no value', async () => {
    const server = await start({
      settings: { ...settings, JWT_SECRET: 'tiny-secret', REDIS_URL: 'nonsense' },
    });
    await until(() => server.process.exitCode !== null);
    expect(server.process.exitCode).toBe(1);
    expect(server.log()).toContain('JWT_SECRET');
    expect(server.log()).toContain('REDIS_URL');
    expect(server.log()).not.toContain('tiny-secret');
    expect(server.log()).not.toContain('nonsense');
  });
});

describe('HTTP', () => {
  test('every answer says which release and replica gave it', async () => {
    const server = await startReady({ release: 41, replica: 2 });
    for (const path of ['/readyz', '/api/version', '/api/discoveries', '/nowhere']) {
      const response = await fetch(`${server.url}${path}`);
      expect(response.headers.get(servedByHeader)).toBe('41/2');
    }
  });

  test('a POST that is repeated with the same key is stored once, also when both come at the same time', async () => {
    const server = await startReady();
    const token = tokenOf('finder');
    const key = `once-${Date.now()}`;
    const answers = await Promise.all(Array.from({ length: 8 }, () => postDiscovery(server, token, key)));
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 200, 200, 200, 200, 200, 200, 201]);
    const { rows } = await database.query(
      'select count(*)::int as n from discoveries where idempotency_key = $1',
      [key],
    );
    expect(rows[0].n).toBe(1);
  });

  test('two players who happen to use the same key both keep their discovery', async () => {
    const server = await startReady();
    const key = `shared-${Date.now()}`;
    for (const player of ['ada', 'ben'])
      expect((await postDiscovery(server, tokenOf(player), key)).status).toBe(201);
  });

  test('what is wrong with a request is answered with 4xx JSON, never with a stack', async () => {
    const server = await startReady();
    const headers = {
      'content-type': 'application/json',
      authorization: `Bearer ${tokenOf('x')}`,
      'idempotency-key': 'key-12345',
    };
    const post = (body: string, more: Record<string, string> = {}) =>
      fetch(`${server.url}/api/discoveries`, { method: 'POST', headers: { ...headers, ...more }, body });
    const answers = [
      [await post('{'), 400],
      [await post('{}'), 400],
      [await post('{"region":"a","what":"b"}', { 'idempotency-key': '' }), 400],
      [await post('{"region":"a","what":"b"}', { authorization: 'Bearer x.y.z' }), 401],
      [await post(JSON.stringify({ region: 'a', what: 'b'.repeat(20_000) })), 413],
      [await fetch(`${server.url}/nowhere`), 404],
    ] as const;
    for (const [answer, status] of answers) {
      const text = await answer.text();
      expect(answer.status).toBe(status);
      expect(JSON.parse(text).error.code).toMatch(/^[A-Z_]+$/);
      expect(text).not.toContain('.ts');
    }
  });

  test('metrics are on the admin port and judge at 0.2 and 0.5 seconds', async () => {
    const server = await startReady();
    expect(await statusOf(`${server.url}/metrics`)).toBe(404);
    const text = await (await fetch(`${server.adminUrl}/metrics`)).text();
    expect(text).toContain('gameops_ws_connections');
    expect(text).toMatch(/http_request_duration_seconds_bucket\{le="0.2"/);
    expect(text).toMatch(/http_request_duration_seconds_bucket\{le="0.5"/);
  });
});

describe('joining', () => {
  test('a guest gets a token, joins with it and hears what another replica announces', async () => {
    const [one, two] = [await startReady({ replica: 1 }), await startReady({ replica: 2 })];
    const session = await fetch(`${one.url}/api/session`, { method: 'POST' });
    const { token, player } = (await session.json()) as {
      token: string;
      player: { id: string; name: string };
    };
    const heard: string[] = [];
    const listener = startPlayer({
      url: one.wsUrl,
      token,
      onMessage: (message) => {
        if (message.t === 'said') heard.push(`${message.from.id}: ${message.text}`);
        if (message.t === 'discovered') heard.push(`found ${message.discovery.what}`);
      },
    });
    players.push(listener);
    const speaker = play(two, 'speaker');
    await until(() => listener.isOn() && speaker.isOn());
    expect(listener.servedBy()).toBe('1/1');
    expect(player.id).toMatch(/^guest-/);
    speaker.say('hello');
    await until(() => heard.includes('speaker: hello'));
    await postDiscovery(two, tokenOf('speaker'), `heard-${Date.now()}`);
    await until(() => heard.includes('found a warm spring'));
  });

  test('forged, expired and alg-none tokens are refused, each with its code', async () => {
    const server = await startReady();
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const claims = { sub: 'eve', name: 'eve', exp: Math.floor(Date.now() / 1_000) + 60 };
    const signed = (head: object, body: object, hash: string) => {
      const text = `${part(head)}.${part(body)}`;
      return `${text}.${createHmac(hash, secret()).update(text).digest('base64url')}`;
    };
    const refused = {
      forged: [
        mintToken('another-secret-that-is-also-long-enough', { id: 'eve', name: 'eve' }, 60_000),
        closeCode.badToken,
      ],
      'alg none': [`${part({ alg: 'none', typ: 'JWT' })}.${part(claims)}.`, closeCode.badToken],
      'another algorithm': [signed({ alg: 'HS512', typ: 'JWT' }, claims, 'sha512'), closeCode.badToken],
      'without an end': [signed({ alg: 'HS256', typ: 'JWT' }, { sub: 'eve' }, 'sha256'), closeCode.badToken],
      expired: [
        signed({ alg: 'HS256', typ: 'JWT' }, { ...claims, exp: 1_000 }, 'sha256'),
        closeCode.tokenExpired,
      ],
      garbage: ['garbage', closeCode.badToken],
    } as const;
    for (const [name, [token, code]] of Object.entries(refused)) {
      expect(await joinOnce(server.wsUrl, token, 10_000), name).toMatchObject({ ok: false, code });
    }
    expect(await joinOnce(server.wsUrl, tokenOf('ada'), 10_000)).toMatchObject({ ok: true });
    expect(server.log()).not.toContain(refused.expired[0]);
  });

  test('who says nothing, something else first, or too much is closed with its code', async () => {
    const server = await startReady();
    const closedAfter = (first: string | null) =>
      new Promise<number>((resolve) => {
        const socket = new WebSocket(server.wsUrl, protocolVersion);
        socket.on('open', () => first !== null && socket.send(first));
        socket.on('close', resolve);
      });
    const codes = await Promise.all([
      closedAfter(null),
      closedAfter('{"t":"ping","at":1}'),
      closedAfter('not json'),
      closedAfter('x'.repeat(5_000)),
    ]);
    expect(codes).toEqual([
      closeCode.helloTimeout,
      closeCode.badMessage,
      closeCode.badMessage,
      closeCode.tooBig,
    ]);
  });

  test('an upgrade at another path or for another protocol is answered in HTTP', async () => {
    const server = await startReady();
    const refusedWith = (url: string, protocol: string) =>
      new Promise<number | undefined>((resolve) => {
        const socket = new WebSocket(url, protocol);
        socket.on('unexpected-response', (_request, response) => resolve(response.statusCode));
        socket.on('error', () => undefined);
      });
    expect(await refusedWith(`${server.url.replace('http', 'ws')}/else`, protocolVersion)).toBe(404);
    expect(await refusedWith(server.wsUrl, 'gameops.v0')).toBe(400);
  });

  test('one player who floods is told so, and others are still heard', async () => {
    const server = await startReady();
    const refusals: string[] = [];
    const loud = startPlayer({
      url: server.wsUrl,
      token: tokenOf('loud'),
      onMessage: (message) => message.t === 'refused' && refusals.push(message.why),
    });
    players.push(loud);
    const heard: string[] = [];
    const calm = startPlayer({
      url: server.wsUrl,
      token: tokenOf('calm'),
      onMessage: (message) => message.t === 'said' && heard.push(message.from.id),
    });
    players.push(calm);
    await until(() => loud.isOn() && calm.isOn());
    for (let n = 0; n < 200; n += 1) loud.say('!');
    calm.say('anybody?');
    await until(() => heard.includes('calm') && refusals.includes('too-fast'));
    expect(heard.filter((id) => id === 'loud').length).toBeLessThan(60);
  });
});

describe('leaving', () => {
  test('a drain lets every player go with 1012, over many moments instead of one', async () => {
    const server = await startReady();
    const crowd = Array.from({ length: 100 }, (_, n) => play(server, `crowd-${n}`));
    await until(() => crowd.every((player) => player.isOn()));
    const seen = new Set<number>();
    const watching = setInterval(() => seen.add(crowd.filter((player) => player.isOn()).length), 5);
    const { code } = await server.leave();
    await until(() => crowd.every((player) => !player.isOn()));
    clearInterval(watching);
    expect(code).toBe(0);
    expect(crowd.map((player) => player.counts.restarts)).toEqual(crowd.map(() => 1));
    expect(seen.size).toBeGreaterThan(10);
  });

  test('requests that still arrive while it drains are all answered, and the connection is not kept', async () => {
    const server = await startReady();
    const crowd = Array.from({ length: 60 }, (_, n) => play(server, `busy-${n}`));
    await until(() => crowd.every((player) => player.isOn()));
    const agent = new Agent({ keepAlive: true, maxSockets: 4 });
    const ask = () =>
      new Promise<{ status: number | undefined; connection: string | undefined }>((resolve, reject) => {
        request(`${server.url}/api/discoveries`, { agent }, (response) => {
          response.resume();
          response.on('end', () =>
            resolve({ status: response.statusCode, connection: response.headers.connection }),
          );
        })
          .on('error', reject)
          .end();
      });
    expect(await ask()).toEqual({ status: 200, connection: 'keep-alive' });
    const left = server.leave();
    await until(async () => (await statusOf(`${server.url}/readyz`)) === 503);
    const answers = [];
    while (crowd.some((player) => player.counts.restarts === 0)) answers.push(await ask());
    expect(answers.length).toBeGreaterThan(20);
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(new Set(answers.map(({ connection }) => connection))).toEqual(new Set(['close']));
    expect((await left).code).toBe(0);
    agent.destroy();
  });

  test('a new player is not taken by a server that drains, and finds another one', async () => {
    const old = await startReady({ release: 1 });
    const crowd = Array.from({ length: 60 }, (_, n) => play(old, `held-${n}`));
    await until(() => crowd.every((player) => player.isOn()));
    const left = old.leave();
    await until(async () => (await statusOf(`${old.url}/readyz`)) === 503);
    expect(await joinOnce(old.wsUrl, tokenOf('late'), 5_000)).toMatchObject({ ok: false, code: null });
    await left;
  });

  test('the players a drain closed are counted, and struck off as they come back to another release', async () => {
    const keys = redisKeys(lab.project);
    await redis.del(keys.closed, keys.closedCount(7), keys.closedCount(8));
    const old = await startReady({ release: 7 });
    const next = await startReady({ release: 8 });
    const crowd = Array.from({ length: 20 }, (_, n) => play(old, `mover-${n}`));
    await until(() => crowd.every((player) => player.isOn()));
    await until(async () => (await redis.get(keys.players(7, 1))) === '20');
    await old.leave();
    expect(await redis.get(keys.closedCount(7))).toBe('20');
    expect(await redis.zcount(keys.closed, 7, 7)).toBe(20);
    expect(await redis.exists(keys.players(7, 1))).toBe(0);
    const back = Array.from({ length: 15 }, (_, n) => play(next, `mover-${n}`));
    await until(() => back.every((player) => player.isOn()));
    await until(async () => (await redis.zcount(keys.closed, 7, 7)) === 5);
  });

  test('a player who does not answer the close does not hold the server past its drain', async () => {
    const server = await startReady({ drainMs: 1_500 });
    const stubborn = new WebSocket(server.wsUrl, protocolVersion);
    stubborn.on('error', () => undefined);
    await new Promise<void>((resolve) => {
      stubborn.on('open', () =>
        stubborn.send(JSON.stringify({ t: 'hello', v: 1, token: tokenOf('stubborn') })),
      );
      stubborn.on('message', () => resolve());
    });
    stubborn.pause();
    expect((await server.leave()).code).toBe(0);
    stubborn.terminate();
  });

  test('a second SIGTERM does not cut a drain short', async () => {
    const server = await startReady();
    const crowd = Array.from({ length: 60 }, (_, n) => play(server, `twice-${n}`));
    await until(() => crowd.every((player) => player.isOn()));
    const left = server.leave();
    await until(() => crowd.some((player) => player.counts.restarts > 0));
    server.process.kill('SIGTERM');
    expect((await left).code).toBe(0);
    expect(crowd.every((player) => player.counts.restarts === 1)).toBe(true);
  });
});
