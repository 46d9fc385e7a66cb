/** Sessions outlive sockets and processes: nothing is lost and nothing comes twice. Real servers on a real Redis. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { closeCode, firstRegion, limits, movedReason } from '../../../src/protocol.ts';
import { commandTimeoutMs } from '../../../src/server/redis/redis.ts';
import { type GameServer, until } from '../../support/players/game-server.ts';
import { openTestGame, type TestGame } from '../../support/players/test-game.ts';

let game: TestGame;
let rooms = 0;
/** A room of its own for every test. */
const freshRoom = () => {
  rooms += 1;
  return `r${rooms % 20}-${1 + Math.floor(rooms / 20)}`;
};

beforeAll(async () => {
  game = await openTestGame('sessions');
});
afterEach(() => game.clear());
afterAll(() => game?.remove());

const rising = (offsets: readonly number[]) =>
  offsets.every((one, n) => n === 0 || one === (offsets[n - 1] ?? 0) + 1);

describe('the messages of a room', () => {
  test('a newcomer begins in the first region, with a snapshot of who is there and what was said last', async () => {
    const server = await game.startReady();
    const host = await game.join(server, 'host');
    host.say(1, 'welcome all');
    // Heard, not only acknowledged: a message that the server has not read from the bus yet comes after the snapshot.
    await host.next('said');
    const guest = await game.join(server, 'guest');
    expect(guest.welcome.rooms).toMatchObject([{ room: firstRegion, resumed: false }]);
    const snapshot = await guest.next('snapshot');
    expect(snapshot.people.map(({ id }) => id).sort()).toEqual(['guest', 'host']);
    expect(snapshot.latest.map((message) => (message.t === 'said' ? message.text : message.t))).toContain(
      'welcome all',
    );
    await host.next('joined', ({ player }) => player.id === 'guest');
  });

  test('offsets of a room rise by one for everybody, whichever server they are on', async () => {
    const [one, two] = [await game.startReady({ replica: 1 }), await game.startReady({ replica: 2 })];
    const region = freshRoom();
    const ada = await game.join(one, 'ada', { region });
    const ben = await game.join(two, 'ben', { region });
    for (let seq = 1; seq <= 20; seq += 1) {
      ada.say(seq, `ada ${seq}`);
      ben.say(seq, `ben ${seq}`);
    }
    await until(() => ada.said().length === 40 && ben.said().length === 40);
    for (const player of [ada, ben]) expect(rising(player.told().map(({ offset }) => offset))).toBe(true);
    const last = (player: typeof ada) => player.told().slice(-20);
    expect(last(ada)).toEqual(last(ben));
  });

  test('a player who enters another region hears that region and no longer the first', async () => {
    const server = await game.startReady();
    const [from, to] = [freshRoom(), freshRoom()];
    const stayer = await game.join(server, 'stayer', { region: from });
    const mover = await game.join(server, 'mover', { region: from });
    const resident = await game.join(server, 'resident', { region: to });
    mover.send({ t: 'enter', region: to });
    expect(await mover.next('entered')).toEqual({ t: 'entered', room: to, left: from });
    const snapshot = await mover.next('snapshot', ({ room }) => room === to);
    expect(snapshot.people.map(({ id }) => id).sort()).toEqual(['mover', 'resident']);
    await stayer.next('left', ({ player }) => player.id === 'mover');
    await resident.next('joined', ({ player }) => player.id === 'mover');
    stayer.say(1, 'who is still here?');
    resident.say(1, 'hello mover');
    await mover.next('said', ({ text }) => text === 'hello mover');
    await stayer.next('said');
    expect(mover.said()).toEqual(['hello mover']);
    mover.send({ t: 'enter', region: 'r77-77' });
    expect(await mover.next('refused')).toMatchObject({ what: 'enter', why: 'unknown-room' });
  });
});

describe('the messages of a player', () => {
  test('a repeated sequence is acknowledged again, and its message is delivered once', async () => {
    const server = await game.startReady();
    const player = await game.join(server, 'again', { region: freshRoom() });
    for (let n = 0; n < 5; n += 1) player.say(1, 'once');
    player.say(2, 'then');
    await player.next('ack', ({ seq }) => seq === 2);
    await player.next('said', ({ text }) => text === 'then');
    expect(player.said()).toEqual(['once', 'then']);
  });

  test('a repeated message on a server that does not know the session is recognised by Redis', async () => {
    const [one, two] = [await game.startReady({ replica: 1 }), await game.startReady({ replica: 2 })];
    const player = await game.join(one, 'twice', { region: freshRoom() });
    player.say(1, 'a');
    player.say(2, 'b');
    await player.next('ack', ({ seq }) => seq === 2);
    // An acknowledgement may come before the message itself: a message that was not heard yet would be replayed.
    await player.next('said', ({ text }) => text === 'b');
    const again = await game.join(two, 'twice', { resume: player.resume() });
    expect(again.welcome.seq).toBe(2);
    // The old socket says more than the new server knows of.
    player.say(3, 'c');
    await player.next('ack', ({ seq }) => seq === 3);
    again.say(3, 'c');
    again.say(4, 'd');
    await again.next('ack', ({ seq }) => seq === 4);
    await again.next('said', ({ text }) => text === 'd');
    expect(again.said()).toEqual(['c', 'd']);
  });

  test('after Redis lost its last moments, players go on from their newest acknowledged message', async () => {
    const server = await game.startReady();
    const player = await game.join(server, 'goes-on', { region: freshRoom() });
    for (const seq of [1, 2, 3]) player.say(seq, `${seq}`);
    await player.next('ack', ({ seq }) => seq === 3);
    await game.redis.set(game.keys.sequence(player.welcome.session), 1);
    player.say(4, '4');
    await player.next('ack', ({ seq }) => seq === 4);
    await player.next('said', ({ text }) => text === '4');
    expect(player.heard.filter(({ t }) => t === 'refused')).toEqual([]);
  });

  test('a gap is refused with the sequence that is expected next, and later messages are taken after it', async () => {
    const server = await game.startReady();
    const player = await game.join(server, 'gap', { region: freshRoom() });
    player.say(1, 'one');
    await player.next('ack');
    player.say(3, 'three');
    expect(await player.next('refused')).toMatchObject({ what: 'say', why: 'gap', seq: 2 });
    player.say(2, 'two');
    player.say(3, 'three');
    await player.next('ack', ({ seq }) => seq === 3);
    await player.next('said', ({ text }) => text === 'three');
    expect(player.said()).toEqual(['one', 'two', 'three']);
  });

  test('a message to a room where the player is not is delivered to nobody, and the next message is not a gap', async () => {
    const server = await game.startReady();
    const elsewhere = freshRoom();
    const other = await game.join(server, 'other', { region: elsewhere });
    const player = await game.join(server, 'astray', { region: freshRoom() });
    player.say(1, 'psst', elsewhere);
    expect(await player.next('refused')).toEqual({ t: 'refused', what: 'say', why: 'unknown-room' });
    player.say(2, 'here');
    await player.next('said');
    expect(player.said()).toEqual(['here']);
    expect(other.said()).toEqual([]);
  });

  test('while Redis does not answer, messages are refused with their sequence, and are taken in order afterwards', async () => {
    const server = await game.startReady();
    const player = await game.join(server, 'patient', { region: freshRoom() });
    await game.redis.call('CLIENT', 'PAUSE', '3600000', 'WRITE');
    try {
      player.say(1, 'one');
      player.say(2, 'two');
      expect(await player.next('refused')).toMatchObject({ why: 'unavailable', seq: 1 });
    } finally {
      await game.redis.call('CLIENT', 'UNPAUSE');
    }
    player.say(1, 'one');
    player.say(2, 'two');
    await player.next('ack', ({ seq }) => seq === 2);
    await player.next('said', ({ text }) => text === 'two');
    expect(player.said()).toEqual(['one', 'two']);
  });

  test('an answer of Redis that is lost does not mute a player whose later messages were acknowledged', async () => {
    const server = await game.startReady();
    const player = await game.join(server, 'mute', { region: freshRoom() });
    // Redis holds the message when the connection breaks: the server waits for an answer that never comes.
    await game.redis.call('CLIENT', 'PAUSE', '3600000', 'WRITE');
    player.say(1, 'held');
    const isHeld = /name=gameops-commands .*cmd=eval/;
    await until(async () => isHeld.test(String(await game.redis.call('CLIENT', 'LIST'))));
    await game.redis.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await game.redis.call('CLIENT', 'UNPAUSE');
    const isAcknowledged = (seq: number) => player.heard.some((one) => one.t === 'ack' && one.seq === seq);
    while (!isAcknowledged(2)) {
      for (const seq of [1, 2]) player.say(seq, `again ${seq}`);
      await sleep(100);
    }
    // The server gives up waiting.
    await sleep(commandTimeoutMs + 200);
    player.say(3, 'heard');
    await player.next('ack', ({ seq }) => seq === 3);
    expect(player.said()).toEqual(['again 1', 'again 2', 'heard']);
  });
});

describe('resume', () => {
  test('a session goes on at another server without a loss or a duplicate, and other players notice nothing', async () => {
    const [old, next] = [await game.startReady({ release: 1 }), await game.startReady({ release: 2 })];
    const region = freshRoom();
    const watcher = await game.join(old, 'watcher', { region });
    const first = await game.join(old, 'traveller', { region });
    await watcher.next('joined', ({ player }) => player.id === 'traveller');
    watcher.say(1, 'heard before');
    await first.next('said');
    const resume = first.resume();
    for (let seq = 2; seq <= 9; seq += 1) watcher.say(seq, `missed ${seq}`);
    await watcher.next('ack', ({ seq }) => seq === 9);
    const second = await game.join(next, 'traveller', { resume });
    expect(second.welcome).toMatchObject({
      session: first.welcome.session,
      release: 2,
      rooms: [{ room: region, resumed: true }],
    });
    await until(() => second.said().length >= 8);
    first.leave(movedReason);
    watcher.say(10, 'and on');
    await second.next('said', ({ text }) => text === 'and on');
    expect(second.said()).toEqual([...Array.from({ length: 8 }, (_, n) => `missed ${n + 2}`), 'and on']);
    const [begin] = second.told();
    expect(begin?.offset).toBe((resume.offsets[region] ?? 0) + 1);
    expect(rising(second.told().map(({ offset }) => offset))).toBe(true);
    const news = watcher.told().filter((message) => message.t === 'left' || message.t === 'joined');
    expect(news.map((message) => [message.t, message.player.id])).toEqual([['joined', 'traveller']]);
  });

  test('a server whose memory does not go back far enough replays from Redis', async () => {
    const old = await game.startReady({ release: 1 });
    const region = freshRoom();
    const speaker = await game.join(old, 'speaker', { region });
    const first = await game.join(old, 'sleeper', { region });
    await first.next('snapshot');
    const resume = first.resume();
    speaker.say(1, 'one');
    speaker.say(2, 'two');
    await speaker.next('ack', ({ seq }) => seq === 2);
    // The bus is trimmed: a server that starts now has not seen them, but the room's own stream has.
    await game.redis.xtrim(game.keys.bus, 'MAXLEN', 0);
    const cold = await game.startReady({ release: 2 });
    const second = await game.join(cold, 'sleeper', { resume });
    expect(second.welcome.rooms).toMatchObject([{ resumed: true }]);
    await until(() => second.said().length === 2);
    expect(rising(second.told().map(({ offset }) => offset))).toBe(true);
    const metrics = await (await fetch(`${cold.adminUrl}/metrics`)).text();
    expect(metrics).toMatch(/gameops_ws_hellos_total\{how="cold"[^}]*\} 1/);
  });

  test('when neither a server nor Redis has the missed messages any more, the room is not resumed and a snapshot comes', async () => {
    const old = await game.startReady({ release: 1 });
    const region = freshRoom();
    const speaker = await game.join(old, 'crier', { region });
    const first = await game.join(old, 'dozer', { region });
    await first.next('snapshot');
    const resume = first.resume();
    speaker.say(1, 'lost for ever');
    await speaker.next('ack');
    await game.redis.xtrim(game.keys.bus, 'MAXLEN', 0);
    await game.redis.del(game.keys.room(region));
    const cold = await game.startReady({ release: 2 });
    const second = await game.join(cold, 'dozer', { resume });
    expect(second.welcome.session).toBe(first.welcome.session);
    expect(second.welcome.rooms).toMatchObject([{ room: region, resumed: false }]);
    const snapshot = await second.next('snapshot');
    speaker.say(2, 'still here');
    const { offset } = await second.next('said');
    expect(offset).toBe(snapshot.offset + 1);
  });

  test('another player cannot resume a session by its id', async () => {
    const server = await game.startReady();
    const owner = await game.join(server, 'owner', { region: freshRoom() });
    owner.say(1, 'mine');
    await owner.next('ack');
    const thief = await game.join(server, 'thief', { resume: owner.resume() });
    expect(thief.welcome.session).not.toBe(owner.welcome.session);
    expect(thief.welcome).toMatchObject({ seq: 0, rooms: [{ room: firstRegion, resumed: false }] });
  });

  test('a client that sees a hole asks for a resync and gets the missing messages', async () => {
    const server = await game.startReady();
    const region = freshRoom();
    const player = await game.join(server, 'holey', { region });
    for (let seq = 1; seq <= 5; seq += 1) player.say(seq, `m${seq}`);
    await player.next('said', ({ text }) => text === 'm5');
    const first = player.told().find((message) => message.t === 'said');
    player.send({ t: 'resync', room: region, offset: first?.offset ?? 0 });
    await until(() => player.said().length === 9);
    expect(player.said().slice(5)).toEqual(['m2', 'm3', 'm4', 'm5']);
    player.say(6, 'm6');
    await player.next('said', ({ text }) => text === 'm6');
    expect(player.said().length).toBe(10);
  });

  test('the same session on a second socket ends the first socket, when its client does not', async () => {
    const server = await game.startReady();
    const first = await game.join(server, 'double');
    await game.join(server, 'double', { resume: first.resume() });
    await until(() => first.closed() !== null);
    expect(first.closed()?.code).toBe(closeCode.replaced);
  });
});

describe('a Redis that lost data', () => {
  test('after a flush all players are disconnected to begin anew, and no old message is taken for a new one', async () => {
    const servers = [await game.startReady({ replica: 1 }), await game.startReady({ replica: 2 })] as const;
    const region = freshRoom();
    const players = [
      await game.join(servers[0], 'eve', { region }),
      await game.join(servers[1], 'fay', { region }),
    ];
    for (let seq = 1; seq <= 10; seq += 1) players[0]?.say(seq, `before ${seq}`);
    await until(() => players.every((player) => player.said().length === 10));
    const epoch = players[0]?.welcome.epoch;
    await game.redis.flushall();
    await until(() => players.every((player) => player.closed() !== null));
    expect(players.map((player) => player.closed()?.code)).toEqual([closeCode.resync, closeCode.resync]);
    const back = await game.join(servers[0], 'eve', { resume: players[0]?.resume() as never });
    expect(back.welcome.epoch).not.toBe(epoch);
    expect(back.welcome).toMatchObject({ seq: 0, rooms: [{ room: firstRegion, resumed: false }] });
    back.say(1, 'after');
    await back.next('said', ({ text }) => text === 'after');
    for (const player of players) expect(player.said().length).toBe(10);
  });

  test('a bus that lost entries which were read begins a new epoch, though Redis still has the old one', async () => {
    const server = await game.startReady();
    const player = await game.join(server, 'gil', { region: freshRoom() });
    player.say(1, 'read');
    await player.next('said');
    await game.redis.del(game.keys.bus);
    await game.redis.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await until(() => player.closed() !== null);
    expect(player.closed()?.code).toBe(closeCode.resync);
    const back = await game.join(server, 'gil');
    expect(back.welcome.epoch).not.toBe(player.welcome.epoch);
  });

  test('when connections to Redis break nothing is lost: the bus is read on from the last entry', async () => {
    const [one, two] = [await game.startReady({ replica: 1 }), await game.startReady({ replica: 2 })];
    const region = freshRoom();
    const listener = await game.join(one, 'listener', { region });
    const speaker = await game.join(two, 'speaking', { region });
    let acked = 0;
    for (let round = 0; round < 5; round += 1) {
      await game.redis.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
      // Repeats the message until it is taken, as a client does.
      while (acked <= round) {
        speaker.say(round + 1, `round ${round + 1}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
        const acks = speaker.heard.flatMap((message) => (message.t === 'ack' ? [message.seq] : []));
        acked = Math.max(acked, ...acks);
      }
    }
    await until(() => listener.said().length === 5);
    expect(listener.said()).toEqual([1, 2, 3, 4, 5].map((n) => `round ${n}`));
    expect(rising(listener.told().map(({ offset }) => offset))).toBe(true);
    expect(listener.closed()).toBe(null);
  });
});

describe('a slow reader', () => {
  test('is closed to resume later, and other players hear everything in the meantime', async () => {
    const server = await game.startReady();
    const [region, elsewhere] = [freshRoom(), freshRoom()];
    const slow = await game.join(server, 'slow', { region });
    await slow.next('snapshot');
    const quick = await game.join(server, 'quick', { region });
    const text = 'x'.repeat(limits.chatLength);
    // Speakers may still say something in the room that they came from, and need not hear it there.
    const speakers = await Promise.all(
      Array.from({ length: 100 }, async (_, n) => {
        const speaker = await game.join(server, `loud-${n}`, { region });
        speaker.send({ t: 'enter', region: elsewhere });
        await speaker.next('entered');
        return speaker;
      }),
    );
    let seq = 0;
    const everybodySays = async () => {
      seq += 1;
      for (const speaker of speakers) speaker.say(seq, text);
      await until(() => quick.said().length === seq * speakers.length);
    };
    for (let n = 0; n < 3; n += 1) await everybodySays();
    await until(() => slow.said().length === seq * speakers.length);
    // The slow player goes on asking for everything again, and reads nothing of it.
    slow.socket.pause();
    while (!(await isOneSlow(server))) {
      slow.send({ t: 'resync', room: region, offset: (quick.told().at(-1)?.offset ?? 0) - 240 });
      // No faster than a player may speak.
      await Promise.all([everybodySays(), new Promise((resolve) => setTimeout(resolve, 100))]);
    }
    expect(rising(quick.told().map(({ offset }) => offset))).toBe(true);
    expect(quick.closed()).toBe(null);
    slow.socket.resume();
    await until(() => slow.closed() !== null);
    // The slow player reads everything that was on its way, and the reason last.
    expect(slow.closed()).toEqual({ code: closeCode.slow, reason: 'slow' });
    const resume = slow.resume();
    const back = await game.join(server, 'slow', { resume });
    expect(back.welcome).toMatchObject({ session: resume.session, rooms: [{ resumed: true }] });
    await until(() => back.told().at(-1)?.offset === quick.told().at(-1)?.offset);
    expect(back.told()[0]?.offset).toBe((resume.offsets[region] ?? 0) + 1);
    expect(rising(back.told().map(({ offset }) => offset))).toBe(true);
  });
});

async function isOneSlow({ adminUrl }: GameServer): Promise<boolean> {
  const metrics = await (await fetch(`${adminUrl}/metrics`)).text();
  return /gameops_ws_closed_total\{reason="slow"[^}]*\} 1/.test(metrics);
}
