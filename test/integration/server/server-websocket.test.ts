/** WebSocket conformance of the real server, byte by byte. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type GameServer, until } from '../../support/players/game-server.ts';
import { closeFrame, frame, op, openRaw, type RawSocket } from '../../support/players/raw-socket.ts';
import { openTestGame, type TestGame } from '../../support/players/test-game.ts';
import { cases } from '../../support/players/websocket-cases.ts';

let game: TestGame;
let server: GameServer;

beforeAll(async () => {
  game = await openTestGame('websocket');
  server = await game.startReady();
});
afterAll(async () => {
  await game?.clear();
  await game?.remove();
});

let players = 0;

async function welcome(): Promise<RawSocket> {
  players += 1;
  const raw = await openRaw(server.wsUrl);
  const token = game.tokenOf(`case-${players}`);
  const region = `r${players % 20}-${Math.floor(players / 20) % 10}`;
  await raw.write(frame({ opcode: op.text, payload: JSON.stringify({ t: 'hello', v: 1, token, region }) }));
  await until(() => messages(raw, 'snapshot').length > 0);
  return raw;
}

const messages = (raw: RawSocket, type: string) =>
  raw.frames
    .filter(({ opcode }) => opcode === op.text)
    .map(({ payload }) => JSON.parse(payload.toString()) as { t: string; at: number })
    .filter(({ t }) => t === type);
const controlPongs = (raw: RawSocket) =>
  raw.frames.filter(({ opcode }) => opcode === op.pong).map(({ payload }) => payload.toString('latin1'));

/** Side by side, because in some of them the server waits two seconds for the client to close. */
for (const { name, bytes, chop, expected, endsClean } of cases) {
  const outcome = endsClean ? 'is accepted' : 'closes the connection as RFC 6455 says';
  test.concurrent(`${name}: ${outcome}`, async () => {
    const raw = await welcome();
    const { pongs = [], controlPongs: answers = [], close } = expected;
    await raw.write(bytes, chop);
    if (endsClean) {
      await until(
        () =>
          raw.isEnded() ||
          (messages(raw, 'pong').length >= pongs.length && controlPongs(raw).length >= answers.length),
      );
      await raw.write(closeFrame(1000));
    }
    await until(() => raw.isEnded());
    expect(raw.closeCode()).toSatisfy((code: number) => close.includes(code));
    expect(messages(raw, 'pong').map(({ at }) => at)).toEqual(pongs);
    expect(controlPongs(raw)).toEqual(answers);
    // Frames of the server are whole, without reserved bits and not masked; nothing comes after its close.
    expect(raw.frames.every(({ fin, rsv, masked }) => fin && rsv === 0 && !masked)).toBe(true);
    expect(raw.frames.at(-1)?.opcode).toBe(op.close);
  });
}

describe('the handshake', () => {
  test('compression is declined, however it is offered', async () => {
    for (const offer of [
      'permessage-deflate',
      'permessage-deflate; client_max_window_bits; server_no_context_takeover',
      'x-webkit-deflate-frame, permessage-deflate',
    ]) {
      const raw = await openRaw(server.wsUrl, { 'sec-websocket-extensions': offer });
      expect(raw.head).toMatch(/^HTTP\/1\.1 101 /);
      expect(raw.head.toLowerCase()).not.toContain('sec-websocket-extensions');
      raw.destroy();
    }
  });

  test('the accepted key is the example of RFC 6455, and the subprotocol is gameops.v1', async () => {
    const raw = await openRaw(server.wsUrl, { 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==' });
    expect(raw.head).toMatch(/sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=/i);
    expect(raw.head).toMatch(/sec-websocket-protocol: gameops\.v1/i);
    raw.destroy();
  });

  test('another version, another kind of upgrade and a malformed key are answered in HTTP', async () => {
    const answers = await Promise.all([
      openRaw(server.wsUrl, { 'sec-websocket-version': '7' }),
      openRaw(server.wsUrl, { 'sec-websocket-key': 'short' }),
      openRaw(server.wsUrl, { upgrade: 'h2c' }),
    ]);
    for (const raw of answers) {
      expect(raw.head).toMatch(/^HTTP\/1\.1 4\d\d /);
      raw.destroy();
    }
    expect(answers[0]?.head.toLowerCase()).toContain('sec-websocket-version: 13');
  });
});
