/** The bundled game server against real Postgres and Redis. */

import { execFileSync } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { WebSocket } from 'ws';
import { namesOf, servedByHeader } from '../../../src/contract.ts';
import { closeCode, firstRegion, protocolVersion, retryAfter } from '../../../src/protocol.ts';
import { mintToken } from '../../../src/tokens.ts';
import {
  type GameServer,
  type GameServerRequest,
  statusOf,
  until,
} from '../../support/players/game-server.ts';
import { openTestGame, type TestGame } from '../../support/players/test-game.ts';
import { joinAs, type WirePlayer } from '../../support/players/wire-player.ts';

let game: TestGame;
let settings: Record<string, string>;

beforeAll(async () => {
  game = await openTestGame('server');
  settings = game.settings;
});
afterEach(() => game.clear());
afterAll(() => game?.remove());

const start = (over?: Partial<GameServerRequest>) => game.start(over);
const startReady = (over?: Partial<GameServerRequest>) => game.startReady(over);
const secret = () => settings.JWT_SECRET ?? '';
const tokenOf = (id: string) => game.tokenOf(id);

const crowdOn = (server: GameServer, name: string, count: number): Promise<WirePlayer[]> =>
  Promise.all(Array.from({ length: count }, (_, n) => game.join(server, `${name}-${n}`)));

/** The code that a hello with this token is closed with; null when the player is welcomed. */
async function refusedWith(server: GameServer, token: string): Promise<number | null> {
  try {
    (await joinAs(server.wsUrl, { token })).leave();
    return null;
  } catch (error) {
    return (error as { closed: { code: number } }).closed.code;
  }
}

async function missingOf(server: GameServer): Promise<string[]> {
  const response = await fetch(`${server.url}/readyz`);
  return ((await response.json()) as { missing: string[] }).missing;
}

let tiles = 0;
const freshTile = () => {
  tiles += 1;
  return { region: firstRegion, x: tiles % 32, y: Math.floor(tiles / 32) };
};

function postDiscovery(
  server: GameServer,
  token: string,
  key: string,
  { region, x, y } = freshTile(),
): Promise<Response> {
  return fetch(`${server.url}/api/discoveries`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${token}`,
      'idempotency-key': key,
      'content-type': 'application/json',
    },
    body: JSON.stringify({ region, x, y }),
  });
}

describe('the Unix socket for a proxy on the same machine', () => {
  test('takes requests and players as the port does, replaces a file that a SIGKILL left, and is removed with the server', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'gameops-socket-'));
    const socket = join(folder, '1-1.sock');
    // A server answers on its port a moment before it listens on the socket; ready is only one that does both.
    const killed = await startReady({ unixSocket: socket });
    await killed.kill();
    expect((await stat(socket)).isSocket()).toBe(true);

    const server = await startReady({ unixSocket: socket });
    // Nginx is another user.
    expect((await stat(socket)).mode & 0o777).toBe(0o777);
    const status = await new Promise((resolve, reject) => {
      request({ socketPath: socket, path: '/readyz' }, (answer) => {
        answer.resume();
        resolve(answer.statusCode);
      })
        .on('error', reject)
        .end();
    });
    expect(status).toBe(200);
    const player = await joinAs(`ws+unix://${socket}:/ws`, { token: tokenOf('by-socket') });
    const left = server.leave();
    expect((await left).code).toBe(0);
    await until(() => player.closed() !== null);
    expect(player.closed()?.code).toBe(closeCode.restart);
    await expect(stat(socket)).rejects.toThrow('ENOENT');
    await rm(folder, { recursive: true });
  });
});

describe('readiness', () => {
  test('a server without a schema is alive but not ready, and becomes ready without a restart', async () => {
    let isMigrated = false;
    const migrate = async () => {
      if (!isMigrated) await game.migrate('up');
      isMigrated = true;
    };
    await game.migrate('down');
    onTestFinished(migrate);
    const server = await start();
    await until(async () => (await statusOf(`${server.url}/healthz`)) === 200);
    await until(async () => (await missingOf(server)).join() === 'schema');
    await migrate();
    await until(async () => (await statusOf(`${server.url}/readyz`)) === 200);
  });
  test('a server runs on a schema with newer expand migrations, and refuses to start on one with a newer contract migration', async () => {
    onTestFinished(async () => {
      await game.database.query(
        `DROP SCHEMA IF EXISTS gameops CASCADE; DELETE FROM pgmigrations WHERE name = '29990101000000000_later'`,
      );
    });
    await game.database.query(
      `INSERT INTO pgmigrations (name, run_on) VALUES ('29990101000000000_later', now());
       CREATE SCHEMA gameops; CREATE TABLE gameops.state (floor text); INSERT INTO gameops.state VALUES (NULL)`,
    );
    const playing = await startReady();
    await game.database.query(`UPDATE gameops.state SET floor = '29990101000000000_later'`);
    const tooOld = await start();
    await until(async () => tooOld.hasEnded());
    expect(tooOld.log()).toContain('29990101000000000_later');
    expect(tooOld.process.exitCode).toBe(1);
    // A server that runs already keeps its players.
    expect(playing.hasEnded()).toBe(false);
  });

  test('a server that starts before Redis waits for it instead of exiting', async () => {
    const deaf = await start({ settings: { ...settings, REDIS_URL: 'redis://127.0.0.1:1' } });
    await until(async () => (await statusOf(`${deaf.url}/healthz`)) === 200);
    await until(async () => (await missingOf(deaf)).join() === 'redis,bus');
    expect(deaf.process.exitCode).toBe(null);
  });

  test('a server that starts before Postgres waits for it instead of exiting', async () => {
    const deaf = await start({ settings: { ...settings, DB_HOST: '127.0.0.1', DB_PORT: '1' } });
    await until(async () => (await statusOf(`${deaf.url}/healthz`)) === 200);
    await until(async () => (await missingOf(deaf)).join() === 'postgres,schema');
    expect(deaf.process.exitCode).toBe(null);
  });

  test('while Postgres is frozen requests end with 503 and the server is not ready; afterwards all is well again', async () => {
    const server = await startReady();
    const container = namesOf(game.project).postgres;
    const listed = () =>
      fetch(`${server.url}/api/discoveries`).then(async (answer) => {
        await answer.text();
        return answer.status;
      });
    // More requests than there are connections: some are open when it happens, the others have to wait for one.
    expect(await Promise.all(Array.from({ length: 8 }, listed))).toEqual(Array(8).fill(200));
    execFileSync('docker', ['pause', container]);
    try {
      const held = Array.from({ length: 8 }, listed);
      await until(async () => (await missingOf(server)).includes('postgres'));
      expect(await Promise.all(held)).toEqual(Array(8).fill(503));
      expect(await statusOf(`${server.url}/healthz`)).toBe(200);
    } finally {
      execFileSync('docker', ['unpause', container]);
    }
    await until(async () => (await statusOf(`${server.url}/readyz`)) === 200);
    expect(await listed()).toBe(200);
  });

  test('connections that Redis and Postgres cut come back, and no player is disconnected', async () => {
    const server = await startReady();
    const player = await game.join(server, 'steady');
    await game.redis.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await game.database.query(
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'gameops-server'`,
    );
    expect(await statusOf(`${server.url}/readyz`)).toBe(200);
    let heard = 0;
    while (player.said().length === 0) {
      player.say(1, 'still here');
      await until(() => player.heard.length > heard);
      heard = player.heard.length;
    }
    // The pool may hand out any of its five connections before the server has heard that it was cut.
    let asked = 0;
    await until(async () => {
      asked += 1;
      return (await statusOf(`${server.url}/api/discoveries`)) === 200;
    });
    expect(asked).toBeLessThanOrEqual(6);
    expect(player.closed()).toBe(null);
  });

  test('a server with invalid settings exits at once, names every key and shows no value', async () => {
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
  test('every answer names the release and replica that gave it', async () => {
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
    const tile = freshTile();
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => postDiscovery(server, token, key, tile)),
    );
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 200, 200, 200, 200, 200, 200, 201]);
    const { rows } = await game.database.query(
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

  test('an invalid request is answered with a 4xx and JSON, never with a stack', async () => {
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
      [await post('{"region":"r99-99","x":1,"y":1}'), 400],
      [await post('{"region":"r0-0","x":32,"y":1}'), 400],
      [await post('{"region":"r0-0","x":1,"y":1}', { 'idempotency-key': '' }), 400],
      [await post('{"region":"r0-0","x":1,"y":1}', { authorization: 'Bearer x.y.z' }), 401],
      [await post(JSON.stringify({ region: 'r'.repeat(20_000) })), 413],
      [await fetch(`${server.url}/nowhere`), 404],
    ] as const;
    for (const [answer, status] of answers) {
      const text = await answer.text();
      expect(answer.status).toBe(status);
      expect(JSON.parse(text).error.code).toMatch(/^[A-Z_]+$/);
      expect(text).not.toContain('.ts');
    }
  });

  test('metrics are on the admin port only, with histogram edges at 0.2 and 0.5 seconds', async () => {
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
    const listener = await joinAs(one.wsUrl, { token });
    const speaker = await game.join(two, 'speaker');
    expect(listener.welcome).toMatchObject({ release: 1, replica: 1, player });
    expect(player.id).toMatch(/^guest-/);
    speaker.say(1, 'hello');
    expect(await listener.next('said')).toMatchObject({ from: { id: 'speaker' }, text: 'hello' });
    const tile = freshTile();
    await postDiscovery(two, tokenOf('speaker'), `heard-${Date.now()}`, tile);
    const { discovery } = await listener.next('discovered');
    expect(discovery).toMatchObject({ player: { id: 'speaker' }, tile: { x: tile.x, y: tile.y } });
    listener.leave();
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
      expect(await refusedWith(server, token), name).toBe(code);
      expect(retryAfter(code)).toBe(code === closeCode.tokenExpired ? 'refresh' : 'never');
    }
    expect(await refusedWith(server, tokenOf('ada'))).toBe(null);
    expect(server.log()).not.toContain(refused.expired[0]);
  });

  test('a client that says nothing, something else first, or too much is closed with its code', async () => {
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
});

describe('leaving', () => {
  test('a drain closes every player with 1012, spread over a second instead of all at once', async () => {
    const server = await startReady();
    const crowd = await crowdOn(server, 'crowd', 100);
    const { code } = await server.leave();
    await until(() => crowd.every((player) => player.closed() !== null));
    expect(code).toBe(0);
    expect(crowd.map((player) => player.closed()?.code)).toEqual(crowd.map(() => closeCode.restart));
    // By the server's own clock. All at once, the drain would take 0.3 s; a slow machine only takes longer.
    const [, drainedMs] = /"ms":(\d+),"msg":"drained"/.exec(server.log()) ?? [];
    expect(Number(drainedMs)).toBeGreaterThan(900);
  });

  test('requests that arrive during a drain are all answered, and the connection is not kept', async () => {
    const server = await startReady();
    const crowd = await crowdOn(server, 'busy', 60);
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
    // The server stays as long as there are requests, however many this machine sends in that time.
    while (answers.length < 3 || crowd.some((player) => player.closed() === null)) answers.push(await ask());
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]));
    expect(new Set(answers.map(({ connection }) => connection))).toEqual(new Set(['close']));
    expect((await left).code).toBe(0);
    agent.destroy();
  });

  test('a server that drains refuses a new player over HTTP, so that they can join another server', async () => {
    const old = await startReady({ release: 1 });
    await crowdOn(old, 'held', 60);
    const left = old.leave();
    await until(async () => (await statusOf(`${old.url}/readyz`)) !== 200);
    // Answered in HTTP: there is no WebSocket that could be closed.
    expect(await refusedWith(old, tokenOf('late'))).toBe(1006);
    await left;
  });

  test('players whom a drain closed are recorded, and removed from the record when they come back to another release', async () => {
    const { keys, redis } = game;
    await redis.del(keys.closed, keys.closedCount(7), keys.closedCount(8));
    const old = await startReady({ release: 7 });
    const next = await startReady({ release: 8 });
    await crowdOn(old, 'mover', 20);
    await until(async () => (await redis.get(keys.players(7, 1))) === '20');
    await old.leave();
    expect(await redis.get(keys.closedCount(7))).toBe('20');
    expect(await redis.zcount(keys.closed, 7, 7)).toBe(20);
    expect(await redis.exists(keys.players(7, 1))).toBe(0);
    await crowdOn(next, 'mover', 15);
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

  test('a second SIGTERM does not shorten a drain', async () => {
    const server = await startReady();
    const crowd = await crowdOn(server, 'twice', 60);
    const left = server.leave();
    await until(() => crowd.some((player) => player.closed() !== null));
    server.process.kill('SIGTERM');
    expect((await left).code).toBe(0);
    await until(() => crowd.every((player) => player.closed() !== null));
    expect(crowd.every((player) => player.closed()?.code === closeCode.restart)).toBe(true);
  });
});
