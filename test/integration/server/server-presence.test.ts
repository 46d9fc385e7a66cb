/** Which players are present when servers die and players move. The real scripts on a real Redis, with short times. */
import { pino } from 'pino';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import type { RoomEvent } from '../../../src/protocol.ts';
import { createReadiness } from '../../../src/server/readiness.ts';
import { type Bus, openBus } from '../../../src/server/redis/bus.ts';
import { type Here, openPresence, type Presence } from '../../../src/server/redis/presence.ts';
import { until } from '../../support/players/game-server.ts';
import { openTestGame, type TestGame } from '../../support/players/test-game.ts';

type Told = RoomEvent & { room: string };

/** Nobody's time is up by itself while a test stalls. A player whose time is to be up is made due, or joins `brief`. */
const times = { goneMs: 3_600_000, graceMs: 200, sweepMs: 100, provenMs: 300 };
let game: TestGame;
let bus: Bus;
let presence: Presence;
let brief: Presence;
const told: Told[] = [];
const timers: NodeJS.Timeout[] = [];

beforeAll(async () => {
  game = await openTestGame('presence', { isMigrated: false });
  bus = openBus({
    url: game.settings.REDIS_URL ?? '',
    identity: { project: game.project, release: 1, replica: 1, drainMs: 1_000, unixSocket: null },
    readiness: createReadiness(5_000),
    log: pino({ level: 'silent' }),
    onEntries(entries) {
      for (const { room, body } of entries) told.push({ ...(JSON.parse(body) as RoomEvent), room });
    },
    onBreak: () => undefined,
  });
  presence = openPresence(bus, game.project, times);
  brief = openPresence(bus, game.project, { ...times, goneMs: 700 });
  expect(await bus.whenUp(600_000)).toBe(true);
});
afterEach(async () => {
  for (const timer of timers.splice(0)) clearInterval(timer);
  await until(async () => {
    // Repeated, because a refresh may still have been on its way.
    for (const id of await game.redis.zrange(game.keys.present, '0', '-1'))
      await game.redis.zadd(game.keys.present, 'XX', 0, id);
    return (await presence.sweep()) === 0 && (await game.redis.zcard(game.keys.present)) === 0;
  });
  await marked();
  told.length = 0;
});
afterAll(async () => {
  bus?.close();
  await game?.remove();
});

const at = (id: string, region: string, owner: string): Here => ({
  person: { id, name: `${id} "the" Brave 🜁` },
  region,
  owner,
  session: `session-${id}`,
});
const join = (here: Here) => presence.join(here, '{}');
const sweeping = () => timers.push(setInterval(() => void presence.sweep(), times.sweepMs));
const stories = (id: string) =>
  told.flatMap((event) =>
    (event.t === 'joined' || event.t === 'left') && event.player.id === id
      ? [`${event.t} ${event.room}`]
      : [],
  );

let marks = 0;
/** Everything that was announced so far has been read. */
async function marked(): Promise<void> {
  marks += 1;
  const text = `mark ${marks}`;
  await bus.announce('r19-9', { t: 'said', from: { id: 'm', name: 'm' }, text, at: '' });
  await until(() => told.some((event) => event.t === 'said' && event.text === text));
}

test('a player who joins is announced once, and listed with their name', async () => {
  await join(at('ada', 'r1-1', '1/1/1'));
  await join(at('ada', 'r1-1', '1/1/1'));
  expect(await presence.people('r1-1', 10)).toEqual([{ id: 'ada', name: 'ada "the" Brave 🜁' }]);
  await marked();
  expect(stories('ada')).toEqual(['joined r1-1']);
});

test('a player who leaves is announced at once', async () => {
  const here = at('ben', 'r1-1', '1/1/2');
  await join(here);
  await presence.leave(here, true);
  await marked();
  expect(stories('ben')).toEqual(['joined r1-1', 'left r1-1']);
  expect(await presence.people('r1-1', 10)).toEqual([]);
});

test('the late close of an old connection never logs out a player who is on a new one', async () => {
  sweeping();
  const old = at('cyd', 'r1-2', '1/1/3');
  const now = at('cyd', 'r1-2', '2/1/1');
  await join(old);
  await join(now);
  await presence.leave(old, false);
  await presence.leave(old, true);
  // Longer than the grace, while the new connection is refreshed.
  for (let n = 0; n < 5; n += 1) {
    await new Promise((resolve) => setTimeout(resolve, times.graceMs / 2));
    expect(await presence.refresh([now])).toEqual([]);
  }
  expect(await presence.people('r1-2', 10)).toHaveLength(1);
  await marked();
  expect(stories('cyd')).toEqual(['joined r1-2']);
});

test('a connection that broke shows nothing to others when the session is resumed in time', async () => {
  const old = at('dan', 'r1-3', '1/1/4');
  await join(old);
  await presence.leave(old, false);
  await join(at('dan', 'r1-3', '1/2/1'));
  sweeping();
  await new Promise((resolve) => setTimeout(resolve, 2 * times.graceMs));
  await marked();
  expect(stories('dan')).toEqual(['joined r1-3']);
});

test('a player whose connection broke and who does not come back is gone after the grace', async () => {
  sweeping();
  const here = at('eli', 'r1-4', '1/1/5');
  await join(here);
  await presence.leave(here, false);
  await until(() => stories('eli').length === 2);
  expect(stories('eli')).toEqual(['joined r1-4', 'left r1-4']);
});

test('the players of a server that died are gone when their time is up, swept by any other server', async () => {
  const ghosts = Array.from({ length: 250 }, (_, n) => at(`ghost-${n}`, `r2-${n % 10}`, `1/9/${n}`));
  const alive = at('fay', 'r2-0', '1/1/6');
  await Promise.all([...ghosts, alive].map((here) => brief.join(here, '{}')));
  // Only the server of Fay goes on. Without the refresh her time would be up with the others'.
  await presence.refresh([alive]);
  timers.push(setInterval(() => void presence.refresh([alive]), times.sweepMs));
  sweeping();
  const isGhostly = ({ t }: Told) => t === 'left';
  await until(() => told.filter(isGhostly).length === 250);
  expect(await game.redis.zcard(game.keys.present)).toBe(1);
  expect(await game.redis.hlen(game.keys.owners)).toBe(1);
  expect(await presence.people('r2-0', 10)).toHaveLength(1);
  await marked();
  expect(told.filter(isGhostly)).toHaveLength(250);
});

test('a player who goes to another region leaves the first region and joins the second', async () => {
  await join(at('gil', 'r3-1', '1/1/7'));
  await join(at('gil', 'r3-2', '1/1/7'));
  expect(await presence.people('r3-1', 10)).toEqual([]);
  expect(await presence.people('r3-2', 10)).toHaveLength(1);
  await marked();
  expect(stories('gil')).toEqual(['joined r3-1', 'left r3-1', 'joined r3-2']);
});

test('a refresh names players whom another connection owns, and brings back a player who was swept by mistake', async () => {
  const [mine, theirs] = [at('hal', 'r4-1', '1/1/8'), at('ivy', 'r4-1', '1/1/9')];
  await join(mine);
  await join(theirs);
  const newer = { ...theirs, owner: '2/2/2' };
  await join(newer);
  expect(await presence.refresh([newer])).toEqual([]);
  await presence.leave(mine, true);
  expect(await presence.refresh([mine, theirs])).toEqual([theirs.owner]);
  expect((await presence.people('r4-1', 10)).map(({ id }) => id).sort()).toEqual(['hal', 'ivy']);
  await marked();
  expect(stories('hal')).toEqual(['joined r4-1', 'left r4-1', 'joined r4-1']);
});

test('a connection that breaks before its player has heard of it gives them back, and nobody sees them leave', async () => {
  sweeping();
  const [first, second] = [at('kim', 'r4-2', '1/1/11'), at('kim', 'r4-2', '2/1/1')];
  await join(first);
  await join(second);
  await presence.leave(second, false);
  expect(await presence.refresh([first])).toEqual([]);
  await new Promise((resolve) => setTimeout(resolve, times.graceMs * 2));
  expect(await presence.refresh([first])).toEqual([]);
  await marked();
  expect(stories('kim')).toEqual(['joined r4-2']);
});

test('a player whose newer connection died with its server goes on with the older one, once that is sure', async () => {
  sweeping();
  const [first, second] = [at('lea', 'r4-3', '1/1/12'), at('lea', 'r4-3', '2/1/2')];
  const due = () =>
    Promise.all(
      [game.keys.present, game.keys.here('r4-3')].map(async (key) =>
        Number(await game.redis.zscore(key, 'lea')),
      ),
    );
  await join(first);
  await join(second);
  expect(await presence.refresh([first])).toEqual([]);
  const before = await due();
  await new Promise((resolve) => setTimeout(resolve, times.provenMs * 1.2));
  expect(await presence.refresh([first])).toEqual([]);
  // The time that the newer connection had set counts no more, neither for a sweep nor for a list.
  for (const [n, time] of (await due()).entries()) expect(time).toBeGreaterThan(before[n] ?? Number.NaN);
  expect(await presence.refresh([second])).toEqual([second.owner]);
  expect(await presence.people('r4-3', 10)).toHaveLength(1);
  await marked();
  expect(stories('lea')).toEqual(['joined r4-3']);
});

test('a player who left and came back for a moment is gone after the grace, not given back to their first connection', async () => {
  const [first, second] = [at('mia', 'r4-4', '1/1/13'), at('mia', 'r4-4', '2/1/3')];
  await join(first);
  await presence.leave(first, false);
  await join(second);
  await presence.leave(second, false);
  await new Promise((resolve) => setTimeout(resolve, times.graceMs * 1.5));
  expect(await presence.sweep()).toBe(1);
});

test('an old connection cannot take its player back by walking to another region', async () => {
  const [first, second] = [at('noa', 'r4-5', '1/1/14'), at('noa', 'r4-5', '2/1/4')];
  await join(first);
  await join(second);
  expect(await presence.move({ ...first, region: 'r4-6' }, '{}')).toBe(null);
  expect(await presence.people('r4-6', 10)).toEqual([]);
  expect(await presence.move({ ...second, region: 'r4-6' }, '{}')).toBeGreaterThanOrEqual(0);
  expect((await presence.people('r4-6', 10)).map(({ id }) => id)).toEqual(['noa']);
});

test('a session and its sequence live as long as their player is refreshed', async () => {
  const here = at('jon', 'r5-1', '1/1/10');
  await join(here);
  await bus.publish({
    session: here.session,
    seq: 1,
    known: 0,
    room: here.region,
    event: { t: 'said', from: here.person, text: 'hi', at: '' },
  });
  const keys = [game.keys.session(here.session), game.keys.sequence(here.session)];
  for (const key of keys) await game.redis.pexpire(key, 5_000);
  await presence.refresh([here]);
  for (const key of keys) expect(await game.redis.pttl(key)).toBeGreaterThan(10_000);
});
