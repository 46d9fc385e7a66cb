/** Malicious clients: each is closed with its documented code, and no other player feels it. */
import { connect, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { closeCode, limits, protocolVersion, retryAfter } from '../../../src/protocol.ts';
import { rates } from '../../../src/server/players/token-bucket.ts';
import { type GameServer, until } from '../../support/players/game-server.ts';
import { frame, op, openRaw, type RawSocket } from '../../support/players/raw-socket.ts';
import { openTestGame, type TestGame } from '../../support/players/test-game.ts';
import { joinAs, type WirePlayer } from '../../support/players/wire-player.ts';

let game: TestGame;
let server: GameServer;
let speaker: WirePlayer;
let listener: WirePlayer;
const region = 'r3-3';

beforeAll(async () => {
  game = await openTestGame('abuse');
  server = await game.startKept();
});
beforeEach(async () => {
  speaker = await game.join(server, 'speaker', { region });
  listener = await game.join(server, 'listener', { region });
});
/** Whatever a test did: two players were connected all the time, and hear each other in order. */
afterEach(async () => {
  const seq = 1 + Math.max(0, ...speaker.heard.map((message) => (message.t === 'ack' ? message.seq : 0)));
  speaker.say(seq, 'all well');
  await listener.next('said', ({ text }) => text === 'all well');
  expect([speaker.closed(), listener.closed(), server.hasEnded()]).toEqual([null, null, false]);
  const offsets = listener.told().map(({ offset }) => offset);
  expect(offsets.every((one, n) => n === 0 || one === (offsets[n - 1] ?? 0) + 1)).toBe(true);
  expect(server.log()).not.toMatch(/"level":(50|60)/);
  await game.clear();
});
afterAll(() => game?.remove());

async function rawPlayer(name = 'mallory'): Promise<RawSocket> {
  const raw = await openRaw(server.wsUrl);
  await raw.write(text(JSON.stringify({ t: 'hello', v: 1, token: game.tokenOf(name), region })));
  await until(() => raw.frames.length > 0);
  return raw;
}

const text = (payload: string) => frame({ opcode: op.text, payload });
const say = (seq: number, what: string) => JSON.stringify({ t: 'say', seq, room: region, text: what });

async function closedWith(raw: RawSocket, code: number, rule: ReturnType<typeof retryAfter>): Promise<void> {
  await until(() => raw.isEnded());
  expect(raw.closeCode()).toBe(code);
  expect(retryAfter(code)).toBe(rule);
}

test('a frame whose header announces more than is allowed is refused before any of it is kept', async () => {
  const raw = await rawPlayer();
  const head = Buffer.from([0x81, 0xff, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
  await raw.write(head);
  await closedWith(raw, closeCode.tooBig, 'never');
});

test('a message that grows beyond the limit in fragments is refused', async () => {
  const raw = await rawPlayer();
  await raw.write(frame({ opcode: op.text, payload: 'x'.repeat(4_000), fin: false }));
  await raw.write(frame({ opcode: op.next, payload: 'x'.repeat(4_000), fin: false }));
  await closedWith(raw, closeCode.tooBig, 'never');
});

test('a message in endless empty fragments is refused', async () => {
  const raw = await rawPlayer();
  await raw.write(frame({ opcode: op.text, fin: false }));
  const nothing = Buffer.concat(Array.from({ length: 1_000 }, () => frame({ opcode: op.next, fin: false })));
  await raw.write(nothing);
  await closedWith(raw, closeCode.tooManyParts, 'never');
});

test('a text that is not UTF-8 is refused', async () => {
  const raw = await rawPlayer();
  await raw.write(frame({ opcode: op.text, payload: Buffer.from('7b22f88880808022227d', 'hex') }));
  await closedWith(raw, closeCode.badText, 'never');
});

test('JSON that is deep, wide or of a wrong type closes the connection as a bad message', async () => {
  const bombs = [
    '['.repeat(limits.frameBytes),
    `${'{"a":'.repeat(600)}1${'}'.repeat(600)}`,
    `[${'1,'.repeat(2_000)}1]`,
    `{"t":"ping","at":1e999}`,
    '{"t":"say","seq":1e15,"room":"r3-3","text":"x"}',
    '{"t":"say","seq":-1,"room":"r3-3","text":"x"}',
    '{"t":"say","seq":1.5,"room":"r3-3","text":"x"}',
    '{"t":"say","seq":1,"room":"r3-3","text":{"toString":1}}',
    '{"t":"enter","region":"__proto__"}',
    '{"__proto__":{"t":"ping","at":1}}',
    '"ping"',
    'null',
  ];
  for (const bomb of bombs) {
    const raw = await rawPlayer();
    await raw.write(text(bomb));
    // A sequence far ahead is a gap and is answered; all other messages end the connection.
    if (bomb.includes('1e15')) {
      await until(() => raw.frames.some(({ payload }) => payload.toString().includes('"why":"gap"')));
      raw.destroy();
    } else {
      await until(() => raw.closeCode() !== null);
      expect(raw.closeCode(), bomb.slice(0, 60)).toBe(closeCode.badMessage);
      raw.destroy();
    }
  }
  expect(retryAfter(closeCode.badMessage)).toBe('never');
});

test('a player who says too much is refused, and others hear a bounded part of it', async () => {
  const loud = await game.join(server, 'loud', { region });
  const began = performance.now();
  for (let seq = 1; seq <= 200; seq += 1) loud.say(seq, '!');
  const refusal = await loud.next('refused');
  expect(refusal).toMatchObject({ what: 'say', why: 'too-fast' });
  // The player is told once where to go on, and messages are taken from there when they come again.
  const seq = refusal.seq ?? 0;
  await until(() => loud.heard.some((message) => message.t === 'ack' && message.seq === seq - 1));
  expect(loud.heard.filter(({ t }) => t === 'refused')).toHaveLength(1);
  const { burst, perSecond } = rates.saying;
  const allowed = burst + perSecond * ((performance.now() - began) / 1_000);
  expect(listener.said().filter((said) => said === '!').length).toBeLessThanOrEqual(allowed);
  await new Promise((resolve) => setTimeout(resolve, 300));
  loud.say(seq, 'slower');
  await loud.next('ack', (ack) => ack.seq === seq);
});

test('a client that floods with frames is closed, and may come back after a while', async () => {
  const raw = await rawPlayer();
  const pings = Buffer.concat(Array.from({ length: 3_000 }, (_, at) => text(`{"t":"ping","at":${at}}`)));
  await raw.write(pings);
  await closedWith(raw, closeCode.flood, 'retry');
});

test('a client that floods with pings and reads nothing is closed as well', async () => {
  const raw = await rawPlayer();
  raw.socket.pause();
  const pings = Buffer.concat(
    Array.from({ length: 500 }, () => frame({ opcode: op.ping, payload: Buffer.alloc(125) })),
  );
  for (let n = 0; n < 10 && !raw.isEnded(); n += 1) await raw.write(pings);
  raw.socket.resume();
  await closedWith(raw, closeCode.flood, 'retry');
});

test('a message whose sequence is replayed a hundred times is delivered once', async () => {
  const raw = await rawPlayer();
  await raw.write(Buffer.concat(Array.from({ length: 100 }, () => text(say(1, 'only once')))));
  const acks = () => raw.frames.filter(({ payload }) => payload.toString().includes('"t":"ack"')).length;
  await until(() => acks() + raw.frames.filter(({ payload }) => payload.includes('too-fast')).length > 0);
  await raw.write(text('{"t":"ping","at":7}'));
  await until(() => raw.frames.some(({ payload }) => payload.toString().includes('"t":"pong"')));
  await listener.next('said', ({ text: said }) => said === 'only once');
  expect(listener.said().filter((said) => said === 'only once')).toHaveLength(1);
  raw.destroy();
});

test('thousands of clients that open a WebSocket and never say hello are closed, and other players need not wait', async () => {
  const idle = await Promise.all(Array.from({ length: 2_500 }, () => openRaw(server.wsUrl)));
  const player = await game.join(server, 'honest', { region });
  expect(player.welcome.player.id).toBe('honest');
  await until(() => idle.every((raw) => raw.closeCode() !== null));
  expect(new Set(idle.map((raw) => raw.closeCode()))).toEqual(new Set([closeCode.helloTimeout]));
  for (const raw of idle) raw.destroy();
});

test('thousands of clients that never finish their upgrade are cut off, and other players need not wait', async () => {
  const { hostname, port } = new URL(server.url);
  const half = Array.from({ length: 5_000 }, () => {
    const socket = connect({ host: hostname, port: Number(port) });
    socket.on('error', () => undefined);
    socket.write('GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n');
    socket.resume();
    return socket;
  });
  const player = await game.join(server, 'honest', { region });
  expect(player.welcome.player.id).toBe('honest');
  const isOver = (socket: Socket) => socket.destroyed || socket.readableEnded;
  await until(() => half.every(isOver));
});

test('a page of another origin cannot open a WebSocket, a page of this origin can', async () => {
  const { host } = new URL(server.url);
  const statusWith = (origin: string) =>
    new Promise<number>((resolve) => {
      const socket = new WebSocket(server.wsUrl, protocolVersion, { headers: { origin } });
      socket.on('unexpected-response', (_request, response) => resolve(response.statusCode ?? 0));
      socket.on('open', () => {
        resolve(101);
        socket.terminate();
      });
      socket.on('error', () => undefined);
    });
  expect(await statusWith('https://evil.example')).toBe(403);
  expect(await statusWith('null')).toBe(403);
  expect(await statusWith(`http://${host}.evil.example`)).toBe(403);
  expect(await statusWith(`http://${host}`)).toBe(101);
});

test('a forged token does not open a session, even when the hello resumes a real one', async () => {
  const expired = game.tokenOf('x').split('.');
  const claims = Buffer.from(JSON.stringify({ sub: 'speaker', name: 'x', exp: 4_000_000_000 }));
  const forged = [expired[0], claims.toString('base64url'), expired[2]].join('.');
  await expect(joinAs(server.wsUrl, { token: forged, resume: speaker.resume() })).rejects.toMatchObject({
    closed: { code: closeCode.badToken },
  });
});
