/** The client with real servers on a real Redis: nothing is lost and nothing comes twice, whatever happens to servers. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type LoadPlayer, newTimes, startPlayer } from '../../../src/client/player.ts';
import type { HandoverOrder } from '../../../src/contract.ts';
import type { LoadReport } from '../../../src/load/load.ts';
import { closeCode } from '../../../src/protocol.ts';
import { mintToken } from '../../../src/tokens.ts';
import { type Front, openFront } from '../../support/players/front.ts';
import { type GameServer, until } from '../../support/players/game-server.ts';
import { openTestGame, type TestGame } from '../../support/players/test-game.ts';
import { emptyFolder, gameops, start } from '../../support/program.ts';

let game: TestGame;
let front: Front;
let crowds = 0;
const crowd: LoadPlayer[] = [];
let talking: NodeJS.Timeout | undefined;

beforeAll(async () => {
  game = await openTestGame('client');
});
afterEach(async () => {
  clearInterval(talking);
  for (const player of crowd.splice(0)) player.stop();
  await front?.close();
  await game.clear();
});
afterAll(() => game?.remove());

/** Players in a room of their own who talk until `quiet`. */
async function gather(size: number, everyMs = 5): Promise<LoadPlayer[]> {
  crowds += 1;
  const region = `r${crowds % 20}-9`;
  const run = `crowd-${crowds}x`;
  for (let n = 0; n < size; n += 1)
    crowd.push(
      startPlayer({ url: front.wsUrl, token: game.tokenOf(`${run}-${n}`), name: `${run}-${n}`, region }),
    );
  await until(() => crowd.every((player) => player.isOn() && player.place() !== null));
  let turn = 0;
  talking = setInterval(() => crowd[turn++ % size]?.count(), everyMs);
  return crowd;
}

/** Resolves when everything that was said is acknowledged and heard by everybody. */
async function quiet(): Promise<void> {
  clearInterval(talking);
  await until(() => crowd.every((player) => player.waiting() === 0));
  const room = crowd[0]?.place()?.room ?? '';
  await until(async () => {
    const newest = Number(await game.redis.hget(game.keys.offsets, room));
    return crowd.every((player) => player.place()?.offset === newest);
  });
}

const sum = (of: (player: LoadPlayer) => number) => crowd.reduce((total, player) => total + of(player), 0);

function expectNothingLost(): void {
  expect(sum(({ counts }) => counts.lost)).toBe(0);
  expect(sum(({ counts }) => counts.duplicated)).toBe(0);
  expect(sum(({ counts }) => counts.acknowledged)).toBe(sum(({ counts }) => counts.sent));
}

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function order(release: number, what: HandoverOrder['order'], to: number): Promise<void> {
  const value: HandoverOrder = { v: 1, order: what, replicas: [1], to, patienceMs: 3_600_000 };
  await game.redis.set(game.keys.handover(release), JSON.stringify(value), 'EX', 3_600);
}

/** Until the server has seen that there is no order any more. */
async function takeBack(server: GameServer, release: number): Promise<void> {
  await game.redis.del(game.keys.handover(release));
  await until(() => server.log().includes('"isOrdered":false'));
}

describe('a handover', () => {
  test('moves players while they talk: no gap, no loss, no duplicate, and no player seems to leave', async () => {
    front = await openFront();
    const [old, next] = [await game.startReady({ release: 1 }), await game.startReady({ release: 2 })];
    front.route(1, old.url);
    await gather(60);
    const watcher = await game.join(next, 'watcher', { region: crowd[0]?.place()?.room ?? '' });
    // The watcher's server may still be reading who joined before: that is over when the watcher hears their own message.
    watcher.say(1, 'mark');
    await watcher.next('said', ({ text }) => text === 'mark');
    const from = watcher.told().length;
    front.route(2, next.url);
    await order(1, 'hand-over', 2);
    await until(() => crowd.every((player) => player.servedBy() === '2/1'));
    await old.leave();
    await wait(200);
    await quiet();
    expectNothingLost();
    expect(crowd.map(({ counts }) => [counts.moves, counts.joins, counts.longestGapMs])).toEqual(
      crowd.map(() => [1, 2, 0]),
    );
    const news = watcher.told().slice(from);
    expect(news.filter(({ t }) => t === 'left' || t === 'joined')).toEqual([]);
  });

  test('that is reversed, as when a deploy is backed out, loses no message and leaves no gap', async () => {
    front = await openFront();
    const [old, next] = [await game.startReady({ release: 3 }), await game.startReady({ release: 4 })];
    front.route(3, old.url);
    await gather(20);
    front.route(4, next.url);
    await order(3, 'hand-over', 4);
    await until(() => crowd.every((player) => player.servedBy() === '4/1'));
    await takeBack(old, 3);
    front.route(3, old.url);
    await order(4, 'hand-over', 3);
    await until(() => crowd.every((player) => player.servedBy() === '3/1'));
    await quiet();
    expectNothingLost();
    expect(crowd.map(({ counts }) => [counts.moves, counts.longestGapMs])).toEqual(crowd.map(() => [2, 0]));
  });
});

test('a session whose sequence has expired in a long silence continues with the sequence that the client knows', async () => {
  front = await openFront();
  const [old, next] = [await game.startReady({ release: 20 }), await game.startReady({ release: 21 })];
  front.route(20, old.url);
  const [player] = (await gather(2)) as [LoadPlayer, LoadPlayer];
  await until(() => player.counts.acknowledged > 3);
  await quiet();
  const sequences = await game.redis.keys(`${game.keys.sequence('')}*`);
  await game.redis.del(...sequences);
  front.route(21, next.url);
  await order(20, 'hand-over', 21);
  await until(() => crowd.every((one) => one.servedBy() === '21/1'));
  for (let n = 0; n < 10; n += 1) player.count();
  await quiet();
  expectNothingLost();
});

describe('without a handover', () => {
  test('players of a server that is killed come back on another server and hear all they missed', async () => {
    front = await openFront();
    const [one, two] = [await game.startReady({ release: 5 }), await game.startReady({ release: 6 })];
    front.route(5, one.url);
    await gather(40);
    front.route(6, two.url);
    await one.kill();
    await until(() => crowd.every((player) => player.servedBy() === '6/1'));
    await quiet();
    expectNothingLost();
    expect(crowd.every(({ counts }) => counts.moves === 0 && counts.anew === 0 && counts.joins === 2)).toBe(
      true,
    );
  });

  test('a drain loses no message', async () => {
    front = await openFront();
    const [one, two] = [await game.startReady({ release: 7 }), await game.startReady({ release: 8 })];
    front.route(7, one.url);
    await gather(40);
    front.route(8, two.url);
    await one.leave();
    await until(() => crowd.every((player) => player.servedBy() === '8/1'));
    await quiet();
    expectNothingLost();
  });

  test('no message is lost when Redis cuts its connections while players talk', async () => {
    front = await openFront();
    const server = await game.startReady({ release: 9 });
    front.route(9, server.url);
    await gather(20);
    for (let n = 0; n < 5; n += 1) {
      await game.redis.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
      await wait(200);
    }
    await quiet();
    expectNothingLost();
    expect(crowd.every((player) => player.isOn())).toBe(true);
  });
});

describe('a player', () => {
  test('whose token has expired joins with a fresh one', async () => {
    front = await openFront();
    front.route(10, (await game.startReady({ release: 10 })).url);
    const person = { id: 'late', name: 'late' };
    const expired = mintToken(game.settings.JWT_SECRET ?? '', person, -60_000);
    crowd.push(startPlayer({ url: front.wsUrl, token: expired, refresh: () => game.tokenOf('late') }));
    await until(() => crowd[0]?.isOn() === true);
  });

  test('with a forged token gives up at once', async () => {
    front = await openFront();
    front.route(11, (await game.startReady({ release: 11 })).url);
    const forged = mintToken('another-secret-that-is-long-enough-too', { id: 'eve', name: 'eve' }, 60_000);
    crowd.push(startPlayer({ url: front.wsUrl, token: forged }));
    await until(() => crowd[0]?.hasGivenUp() === true);
    expect(crowd[0]?.counts.lastCode).toBe(closeCode.badToken);
  });

  test('notices messages of a room mate that never reach them', async () => {
    front = await openFront();
    front.route(12, (await game.startReady({ release: 12 })).url);
    const region = 'r0-9';
    const times = newTimes();
    const join = (name: string) =>
      startPlayer({ url: front.wsUrl, token: game.tokenOf(name), name, region, times });
    crowd.push(join('mate-0'), join('mate-1'));
    const [speaker, listener] = crowd as [LoadPlayer, LoadPlayer];
    await until(() => crowd.every((player) => player.isOn() && player.place() !== null));
    for (const text of ['mate-0:1:0', 'mate-0:2:0', 'mate-0:5:0', 'mate-0:5:0']) speaker.say(text);
    await quiet();
    expect(listener.counts).toMatchObject({ lost: 2, duplicated: 1 });
    expect(times.delivery.count).toBeGreaterThan(0);
  });
});

/** The program wants a complete .env, though load players need the secret only. */
const settingsOfNoUse = [
  'DB_HOST=postgres',
  'DB_NAME=arena',
  'DB_USER=arena',
  'DB_PASSWORD=not-asked-for',
  'REDIS_URL=redis://:not-asked-for@redis:6379/0',
].join('\n');

describe('gameops load', () => {
  const folder = emptyFolder();
  afterAll(() => folder.remove());
  const load = (...more: string[]) => ['load', '--players', '60', '--url', front.wsUrl, '--json', ...more];
  const resultOf = (out: string) => JSON.parse(out) as { ok: boolean; result: LoadReport; error?: object };

  async function ready(release: number, secret = game.settings.JWT_SECRET): Promise<void> {
    front = await openFront();
    front.route(release, (await game.startReady({ release })).url);
    folder.write('.env', `${settingsOfNoUse}\nJWT_SECRET=${secret}\n`);
  }

  test.each([1, 2])(
    'counts what its players said and heard in rooms of fifty (threads: %i)',
    async (threads) => {
      await ready(12 + threads * 10);
      const args = load('--for', '3s', '--rate', '10', '--threads', String(threads));
      const { code, out, err } = await gameops(args, { cwd: folder.path });
      expect([code, err]).toEqual([0, err]);
      const { result } = resultOf(out);
      expect(result).toMatchObject({
        players: 60,
        rooms: 2,
        lost: 0,
        duplicated: 0,
        failed: 0,
        unacknowledged: 0,
      });
      expect(result).toMatchObject({
        gapMs: { p50: 0, p99: 0, max: 0 },
        servedBy: { [`${12 + threads * 10}/1`]: 60 },
      });
      expect(result.sent).toBeGreaterThan(0);
      // Every message is heard by the fifty or the ten players of its room.
      expect(result.received).toBeGreaterThan(result.sent * 5);
      for (const share of ['p50', 'p95', 'p99'] as const) expect(result.rttMs[share]).toBeGreaterThan(0);
      expect(err).toContain('in the game');
      expect(out + err).not.toContain(game.settings.JWT_SECRET);
    },
  );

  test.each([1, 2])('reports what was seen when it is interrupted (threads: %i)', async (threads) => {
    await ready(13 + threads * 10);
    const { child, seen, ended } = start(load('--for', '10m', '--threads', String(threads)), {
      cwd: folder.path,
    });
    await until(() => seen.err.includes('"playing"') || child.exitCode !== null);
    child.kill('SIGINT');
    const { code, out } = await ended;
    expect(code).toBe(130);
    expect(resultOf(out)).toMatchObject({
      error: { code: 'INTERRUPTED' },
      result: { players: 60, failed: 0 },
    });
  });

  test('names the close code when no player could join, and shows no player in the game', async () => {
    await ready(15, 'another-secret-that-is-long-enough-too');
    const { code, out, err } = await gameops(load('--for', '1s'), { cwd: folder.path });
    expect(code).toBe(4);
    const error = { code: 'GAME_UNREACHABLE', facts: { lastCode: closeCode.badToken } };
    expect(resultOf(out)).toMatchObject({ error, result: { failed: 60 } });
    const shown = [...err.matchAll(/"in the game","done":(\d+)/g)].map(([, done]) => Number(done));
    expect(new Set(shown)).toEqual(new Set([0]));
  });
});
