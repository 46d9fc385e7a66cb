/** The server's side of a handover, ordered through Redis as the CLI does it. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type HandoverOrder, type HandoverProgress, probePlayer } from '../../../src/contract.ts';
import { closeCode, movedReason } from '../../../src/protocol.ts';
import { type GameServer, until } from '../../support/players/game-server.ts';
import { openTestGame, type TestGame } from '../../support/players/test-game.ts';
import type { WirePlayer } from '../../support/players/wire-player.ts';

let game: TestGame;
let release = 10;

beforeAll(async () => {
  game = await openTestGame('handover');
});
afterEach(() => game.clear());
afterAll(() => game?.remove());

/** Two releases for one test alone. */
async function twoReleases(): Promise<{ old: GameServer; next: GameServer; from: number; to: number }> {
  release += 2;
  const [from, to] = [release, release + 1];
  const [old, next] = await Promise.all([
    game.startReady({ release: from }),
    game.startReady({ release: to }),
  ]);
  return { old, next, from, to };
}

/** By default players have all the time they need, so that a slow machine closes nobody. */
async function order(from: number, wish: Partial<HandoverOrder>): Promise<void> {
  const full = { v: 1, order: 'hand-over', replicas: [1], to: null, patienceMs: 3_600_000, ...wish };
  await game.redis.set(game.keys.handover(from), JSON.stringify(full), 'EX', 3_600);
}

async function progress(from: number): Promise<HandoverProgress> {
  const text = await game.redis.hget(game.keys.handoverProgress(from), '1');
  return text === null ? { v: 1, hinted: 0, moved: 0, closed: 0, gone: 0, left: -1 } : JSON.parse(text);
}

const crowdOn = (server: GameServer, name: string, count: number) =>
  Promise.all(Array.from({ length: count }, (_, n) => game.join(server, `${name}-${n}`, { region: 'r5-5' })));

const isHinted = ({ heard }: WirePlayer) => heard.some(({ t }) => t === 'reconnect');

/** Does what a client does at a hint: joins there, then leaves here. */
async function obey(player: WirePlayer, next: GameServer): Promise<WirePlayer> {
  const { afterMs } = await player.next('reconnect');
  await new Promise((resolve) => setTimeout(resolve, afterMs));
  const resume = player.resume();
  const moved = await game.join(next, player.welcome.player.id, { resume });
  player.leave(movedReason);
  return moved;
}

test('every player is told where to go, moves without a loss and is counted, and other players see nobody leave', async () => {
  const { old, next, from, to } = await twoReleases();
  const watcher = await game.join(next, 'watcher', { region: 'r5-5' });
  const crowd = await crowdOn(old, 'mover', 40);
  await until(() => watcher.told().filter(({ t }) => t === 'joined').length >= 40);
  await order(from, { to });
  const talk = setInterval(() => watcher.say(watcher.said().length + 1, 'news'), 200);
  const moved = await Promise.all(crowd.map((player) => obey(player, next)));
  await until(async () => (await progress(from)).left === 0);
  clearInterval(talk);
  expect(await progress(from)).toEqual({ v: 1, hinted: 40, moved: 40, closed: 0, gone: 0, left: 0 });
  for (const [n, player] of moved.entries()) {
    const hint = await (crowd[n] as WirePlayer).next('reconnect');
    expect(hint).toMatchObject({ reason: 'deploy', to });
    expect(hint.afterMs).toBeLessThan(hint.deadlineMs);
    expect(player.welcome).toMatchObject({
      release: to,
      session: crowd[n]?.welcome.session,
      rooms: [{ resumed: true }],
    });
  }
  expect(watcher.told().filter(({ t }) => t === 'left')).toEqual([]);
});

test('hints are spread over time by the pace, not sent all at once', async () => {
  const { old, from, to } = await twoReleases();
  const crowd = await crowdOn(old, 'paced', 100);
  const began = performance.now();
  // A fleet of five replicas: this one's share is 100 a second at first, and grows by a quarter four times a second.
  await order(from, { to, replicas: [1, 2, 3, 4, 5] });
  await until(() => crowd.every(isHinted));
  // The server hears the order within 500 ms. All hints at once would be here by then; a slow machine only takes longer.
  expect(performance.now() - began).toBeGreaterThan(700);
});

test('a player who does not move in time is closed with 1012 and recorded, until they are back', async () => {
  const { old, next, from, to } = await twoReleases();
  const crowd = await crowdOn(old, 'straggler', 10);
  await order(from, { to, patienceMs: 300 });
  await until(() => crowd.every((player) => player.closed() !== null));
  expect(crowd.every((player) => isHinted(player) && player.closed()?.code === closeCode.restart)).toBe(true);
  await until(async () => (await progress(from)).closed === 10);
  await until(async () => (await game.redis.zcount(game.keys.closed, from, from)) === 10);
  const [first] = crowd;
  await game.join(next, 'straggler-0', { resume: (first as WirePlayer).resume() });
  await until(async () => (await game.redis.zcount(game.keys.closed, from, from)) === 9);
});

test('a player who arrives during a handover is sent on as well', async () => {
  const { old, from, to } = await twoReleases();
  const [early] = await crowdOn(old, 'early', 1);
  await order(from, { to });
  await until(() => early !== undefined && isHinted(early));
  const late = await game.join(old, 'late');
  await late.next('reconnect');
  await until(async () => (await progress(from)).hinted === 2);
});

test('an order that is taken back ends the handover: no other player is sent on, no socket is closed, and all go on playing', async () => {
  const { old, from, to } = await twoReleases();
  // One of twenty replicas: most of the players are still to be told when the order is taken back.
  const replicas = Array.from({ length: 20 }, (_, n) => n + 1);
  const takenBack = () => old.log().split('"isOrdered":false').length - 1;
  let crowd: WirePlayer[] = [];
  let patienceMs = 2_000;
  for (let attempt = 1; ; attempt += 1) {
    crowd = await crowdOn(old, `stayer-${attempt}`, 60);
    const began = performance.now();
    await order(from, { to, replicas, patienceMs });
    await until(() => crowd.some(isHinted));
    await game.redis.del(game.keys.handover(from));
    await until(() => takenBack() === attempt);
    if (performance.now() - began < patienceMs) break;
    // The machine was so slow that players were closed in time: once more, with more patience.
    patienceMs *= 4;
  }
  const hinted = crowd.filter(isHinted).length;
  expect(hinted).toBeLessThan(60);
  // Longer than the patience of any hint that was sent.
  await new Promise((resolve) => setTimeout(resolve, patienceMs + 500));
  expect(crowd.filter(isHinted).length).toBe(hinted);
  expect(crowd.every((player) => player.closed() === null)).toBe(true);
  const [speaker, listener] = crowd as [WirePlayer, WirePlayer];
  speaker.say(1, 'still here');
  await listener.next('said');
  // A later order hands them over.
  await order(from, { to });
  await until(() => crowd.every(isHinted));
});

test('a replica that the order does not name keeps its players', async () => {
  const { old, from, to } = await twoReleases();
  const other = await game.startReady({ release: from, replica: 2 });
  const [named, kept] = [await game.join(old, 'named'), await game.join(other, 'kept')];
  await order(from, { to, replicas: [1] });
  await named.next('reconnect');
  await until(async () => (await progress(from)).hinted === 1);
  expect(isHinted(kept)).toBe(false);
});

test('replicas publish their vitals and how many players they have', async () => {
  const { old, from } = await twoReleases();
  await crowdOn(old, 'counted', 3);
  await until(async () => (await game.redis.get(game.keys.players(from, 1))) === '3');
  await until(async () => {
    const vitals = JSON.parse((await game.redis.get(game.keys.vitals(from, 1))) ?? '{}');
    return vitals.players === 3 && vitals.v === 1 && typeof vitals.lagMs === 'number';
  });
  const metrics = await (await fetch(`${old.adminUrl}/metrics`)).text();
  expect(metrics).toMatch(/gameops_loop_lag_seconds/);
});

test('the player of a gate is not counted as a player to wait for', async () => {
  const { old, from } = await twoReleases();
  const probe = await game.join(old, probePlayer, { region: 'r5-5' });
  const told = async () => JSON.parse((await game.redis.get(game.keys.vitals(from, 1))) ?? '{}');
  await game.redis.del(game.keys.vitals(from, 1), game.keys.players(from, 1));
  await until(async () => (await told()).players !== undefined);
  expect(await told()).toMatchObject({ players: 0 });
  expect(await game.redis.get(game.keys.players(from, 1))).toBe('0');
  probe.leave(movedReason);
});
