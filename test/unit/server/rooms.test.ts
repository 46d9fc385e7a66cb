import type { Duplex } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { limits } from '../../../src/protocol.ts';
import { tellWithAcknowledgements } from '../../../src/server/players/acknowledge.ts';
import type { Player } from '../../../src/server/players/player.ts';
import { type Listener, messageText, openRooms } from '../../../src/server/players/rooms.ts';
import { close, frameOf, openLink, send, textOf } from '../../../src/server/players/wire.ts';
import type { BusEntry } from '../../../src/server/redis/bus-entry.ts';

/** A connection that takes what it is given, until it is told not to. */
function connection() {
  const taken: string[] = [];
  const closed: number[] = [];
  const counted: string[] = [];
  let corked: Buffer[] | null = null;
  const stream = {
    takes: true,
    writes: 0,
    write(piece: Buffer) {
      if (corked !== null) corked.push(piece);
      else {
        stream.writes += 1;
        if (piece[0] === 0x88) closed.push(piece.readUInt16BE(2));
        else taken.push(...framesIn(piece));
      }
      return stream.takes;
    },
    cork() {
      corked = [];
    },
    uncork() {
      const pieces = corked ?? [];
      corked = null;
      if (pieces.length > 0) stream.write(Buffer.concat(pieces));
    },
    on(_event: 'drain', flush: () => void) {
      stream.drain = flush;
    },
    drain: () => {},
  };
  const socket = {
    readyState: WebSocket.OPEN as number,
    close: (code: number) => closed.push(code),
    terminate: () => {},
  };
  const link = openLink(socket as unknown as WebSocket, stream as unknown as Duplex, (why) =>
    counted.push(why),
  );
  return { link, taken, closed, counted, socket, stream };
}

function listener() {
  const { link, taken, stream, closed } = connection();
  const offsets = () => taken.map((text) => (JSON.parse(text) as { offset: number }).offset);
  return { link, room: '', sent: 0, offsets, stream, closed };
}

const body = '{"t":"said","text":"x"}';
const entry = (offset: number, room = 'a'): BusEntry => ({ room, offset, body });
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, n) => from + n);

/** textOf needs whole frames: here they are cut out of what came in one piece. */
function framesIn(piece: Buffer): string[] {
  const texts: string[] = [];
  for (let rest = piece; rest.length > 0; ) {
    const marked = rest[1] ?? 0;
    const start = marked < 126 ? 2 : marked === 126 ? 4 : 10;
    const length =
      marked < 126 ? marked : marked === 126 ? rest.readUInt16BE(2) : Number(rest.readBigUInt64BE(2));
    texts.push(rest.toString('utf8', start, start + length));
    rest = rest.subarray(start + length);
  }
  return texts;
}

const offsetsIn = (piece: Buffer | null) =>
  framesIn(piece ?? Buffer.alloc(0)).map((text) => (JSON.parse(text) as { offset: number }).offset);

const opened = (over: { ringLength?: number; perTick?: number } = {}) =>
  openRooms<Listener>({ ringLength: 5, perTick: 500, onDelivered: () => undefined, ...over });

/** What was put off to later ticks is done. */
const settled = async () => {
  for (let n = 0; n < 200; n += 1) await new Promise((resolve) => setImmediate(resolve));
};

describe('frames', () => {
  test('a frame has the bytes that ws itself would write, for every size of its length field', () => {
    for (const length of [0, 1, 125, 126, 127, 65_535, 65_536, 70_000]) {
      const text = 'ä'.repeat(Math.floor(length / 2)) + 'x'.repeat(length % 2);
      const frame = frameOf(text);
      expect(textOf(frame)).toBe(text);
      expect(frame[0]).toBe(0x81);
      expect((frame[1] ?? 0) & 0x80).toBe(0);
      expect(frame.length).toBe(length + (length < 126 ? 2 : length < 65_536 ? 4 : 10));
    }
    expect([...frameOf(Buffer.from('hi'), 'pong')]).toEqual([0x8a, 2, 0x68, 0x69]);
  });

  test('a message is the event with room and offset in front', () => {
    const made: unknown = JSON.parse(messageText({ room: 'r1-1', offset: 7, body }));
    expect(made).toEqual({ room: 'r1-1', offset: 7, t: 'said', text: 'x' });
  });
});

describe('the queue of a slow reader', () => {
  test('is bounded in messages; one more closes the connection, and the player may come back', () => {
    const { link, stream, closed } = connection();
    stream.takes = false;
    const piece = frameOf('x');
    send(link, piece);
    for (let n = 0; n < limits.queuedMessages; n += 1) send(link, piece);
    expect(closed).toEqual([]);
    send(link, piece);
    expect(closed).toEqual([4008]);
    expect(link.waiting).toEqual([]);
  });

  test('is bounded in bytes', () => {
    const { link, stream, closed } = connection();
    stream.takes = false;
    const piece = frameOf('x'.repeat(limits.queuedBytes / 4));
    send(link, piece);
    for (let n = 0; n < 3; n += 1) send(link, piece);
    expect(closed).toEqual([]);
    send(link, piece);
    expect(closed).toEqual([4008]);
  });
});

describe('a close', () => {
  test('is counted once, when it is decided, and not when the connection is closed already', () => {
    const [open, gone] = [connection(), connection()];
    close(open.link, 'replaced');
    close(open.link, 'restart');
    gone.socket.readyState = WebSocket.CLOSED;
    close(gone.link, 'replaced');
    expect([open.counted, open.closed]).toEqual([['replaced'], [4509]]);
    expect([gone.counted, gone.closed]).toEqual([[], []]);
  });

  test('of a slow reader leaves them time to read, until the server itself leaves', () => {
    const { link, closed, counted, taken } = connection();
    close(link, 'slow');
    expect(closed).toEqual([4008]);
    send(link, frameOf('too late'));
    expect(taken).toEqual([]);
    close(link, 'restart');
    expect(closed).toEqual([4008, 1012]);
    expect(counted).toEqual(['slow']);
  });
});

describe('an acknowledgement', () => {
  const speaker = (n: number) => {
    const { link, taken, stream } = connection();
    return { link, taken, stream, seq: n, room: '', sent: 0 };
  };
  const asPlayers = (some: ReturnType<typeof speaker>[]) => new Set(some as unknown as Player[]);

  test('leaves in one write with messages of the room, and by itself when the room has no message', () => {
    const rooms = opened();
    const [here, elsewhere] = [speaker(7), speaker(8)];
    rooms.enter(here, 'a', 0);
    rooms.enter(elsewhere, 'b', 0);
    const unacknowledged = asPlayers([here, elsewhere]);
    tellWithAcknowledgements(unacknowledged, () => void rooms.take([entry(1)]));
    expect(here.taken.map((one) => (JSON.parse(one) as { t: string }).t)).toEqual(['ack', 'said']);
    expect(elsewhere.taken).toEqual(['{"t":"ack","seq":8}']);
    expect([here, elsewhere].map(({ stream }) => stream.writes)).toEqual([1, 1]);
    expect(unacknowledged.size).toBe(0);
  });

  test('for a crowd takes several ticks, and reaches everybody', async () => {
    const crowd = Array.from({ length: 1_200 }, (_, n) => speaker(n));
    tellWithAcknowledgements(asPlayers(crowd), () => undefined);
    expect(crowd.filter(({ taken }) => taken.length > 0)).toHaveLength(500);
    await settled();
    expect(crowd.every(({ taken }) => taken.length === 1)).toBe(true);
  });
});

describe('a connection that is full', () => {
  test('gets nothing more until it has drained, and then the waiting frames in order', () => {
    const { link, stream, taken } = connection();
    stream.takes = false;
    for (const text of ['1', '2', '3']) send(link, frameOf(text));
    expect(taken).toEqual(['1']);
    stream.drain();
    expect(taken).toEqual(['1', '2']);
    stream.takes = true;
    stream.drain();
    send(link, frameOf('4'));
    expect(taken).toEqual(['1', '2', '3', '4']);
  });
});

describe('rooms', () => {
  test('players in the room hear it, nobody else does', () => {
    const rooms = opened();
    const [inside, outside] = [listener(), listener()];
    rooms.enter(inside, 'a', 0);
    rooms.enter(outside, 'b', 0);
    expect(rooms.take([entry(1), entry(2)])).toBe('good');
    expect(inside.offsets()).toEqual([1, 2]);
    expect(outside.offsets()).toEqual([]);
    rooms.leave(inside);
    rooms.take([entry(3)]);
    expect(inside.offsets()).toEqual([1, 2]);
  });

  test('several messages at once are one write to each player; a player who has some of them gets the others', () => {
    let delivered = 0;
    const rooms = openRooms<Listener>({
      ringLength: 2,
      onDelivered: (count) => {
        delivered += count;
      },
    });
    const [first, second, ahead] = [listener(), listener(), listener()];
    rooms.enter(first, 'a', 0);
    rooms.enter(second, 'a', 0);
    rooms.enter(ahead, 'a', 3);
    rooms.take(range(1, 5).flatMap((n) => [entry(n), entry(n, 'b')]));
    for (const one of [first, second]) expect(one.offsets()).toEqual([1, 2, 3, 4, 5]);
    expect(ahead.offsets()).toEqual([4, 5]);
    expect([first, second, ahead].map(({ stream }) => stream.writes)).toEqual([1, 1, 1]);
    expect(delivered).toBe(12);
  });

  test('several messages at once count one by one in the queue of a slow reader', () => {
    const rooms = opened({ ringLength: 1_000 });
    const slow = listener();
    slow.stream.takes = false;
    rooms.enter(slow, 'a', 0);
    rooms.take([entry(1)]);
    rooms.take(range(2, 1 + limits.queuedMessages).map((n) => entry(n)));
    expect(slow.closed).toEqual([]);
    rooms.take([entry(2 + limits.queuedMessages), entry(3 + limits.queuedMessages)]);
    expect(slow.closed).toEqual([4008]);
  });

  test('after a hole nobody is told messages from before the hole together with later ones', () => {
    const rooms = opened();
    const one = listener();
    rooms.enter(one, 'a', 0);
    rooms.take([entry(1)]);
    expect(rooms.take([entry(2), entry(5)])).toBe('hole');
    expect(one.offsets()).toEqual([1, 5]);
  });

  test('a player who enters is given what they have not heard, as long as the ring has it', () => {
    const rooms = opened();
    rooms.take(range(1, 8).map((n) => entry(n)));
    expect([0, 2, 3, 8, 9].map((offset) => rooms.covers('a', offset))).toEqual([
      false,
      false,
      true,
      true,
      true,
    ]);
    expect(offsetsIn(rooms.enter(listener(), 'a', 5))).toEqual([6, 7, 8]);
    expect(offsetsIn(rooms.enter(listener(), 'a', 8))).toEqual([]);
    const tooOld = listener();
    expect(rooms.enter(tooOld, 'a', 2)).toBe(null);
    rooms.take([entry(9)]);
    expect(tooOld.offsets()).toEqual([]);
  });

  test('a player who is ahead of this server is sent nothing that they have heard already', () => {
    const rooms = opened();
    rooms.take([entry(1)]);
    const ahead = listener();
    rooms.enter(ahead, 'a', 3);
    rooms.take([entry(2), entry(3), entry(4)]);
    expect(ahead.offsets()).toEqual([4]);
  });

  test('a repeated offset and a hole are reported', () => {
    const rooms = opened();
    expect(rooms.take([entry(7), entry(8)])).toBe('good');
    expect(rooms.take([entry(8)])).toBe('again');
    expect(rooms.take([entry(10)])).toBe('hole');
    expect(rooms.covers('a', 8)).toBe(false);
  });

  test('messages that came before a repeated offset are delivered', () => {
    const rooms = opened();
    const one = listener();
    rooms.enter(one, 'a', 0);
    rooms.take([entry(1), entry(1, 'b')]);
    expect(rooms.take([entry(2), entry(1, 'b'), entry(3)])).toBe('again');
    expect(one.offsets()).toEqual([1, 2]);
  });

  test('forgotten messages are not replayed, and their listeners do not hear messages of the new epoch', () => {
    const rooms = opened();
    const old = listener();
    rooms.enter(old, 'a', 0);
    rooms.take([entry(1), entry(2)]);
    rooms.forget();
    expect(rooms.take([entry(1), entry(2), entry(3)])).toBe('good');
    expect(old.offsets()).toEqual([1, 2]);
    const fresh = listener();
    expect(offsetsIn(rooms.enter(fresh, 'a', 1))).toEqual([2, 3]);
  });

  test('a full room takes many ticks, and every player hears everything in order', async () => {
    const rooms = opened({ perTick: 10 });
    const crowd = Array.from({ length: 95 }, listener);
    for (const one of crowd) rooms.enter(one, 'a', 0);
    rooms.take([entry(1), entry(2)]);
    expect(crowd.filter((one) => one.offsets().length > 0)).toHaveLength(10);
    const late = listener();
    expect(offsetsIn(rooms.enter(late, 'a', 0))).toEqual([1, 2]);
    rooms.leave(crowd[50] as Listener);
    rooms.take([entry(3)]);
    await settled();
    expect(late.offsets()).toEqual([3]);
    for (const [n, one] of crowd.entries()) expect(one.offsets()).toEqual(n === 50 ? [] : [1, 2, 3]);
  });

  test('whenever players enter, leave and resume, each hears every message once and in order', async () => {
    const step = fc.oneof(
      {
        weight: 4,
        arbitrary: fc.record({ act: fc.constant('tell' as const), count: fc.integer({ min: 1, max: 3 }) }),
      },
      { weight: 3, arbitrary: fc.record({ act: fc.constant('toggle' as const), who: fc.nat(3) }) },
      { weight: 1, arbitrary: fc.record({ act: fc.constant('wait' as const) }) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
        const rooms = opened({ perTick: 2, ringLength: 1_000 });
        const people = Array.from({ length: 4 }, () => ({
          ...listener(),
          isIn: false,
          heard: [] as number[],
        }));
        let last = 0;
        const hearAll = (one: (typeof people)[number]) => {
          one.heard.push(...one.offsets().slice(one.heard.length));
        };
        for (const one of steps) {
          if (one.act === 'tell') {
            rooms.take(range(last + 1, last + one.count).map((n) => entry(n)));
            last += one.count;
          } else if (one.act === 'toggle') {
            const person = people[one.who] as (typeof people)[number];
            if (person.isIn) rooms.leave(person);
            else {
              hearAll(person);
              const replay = rooms.enter(person, 'a', person.heard.at(-1) ?? 0);
              if (replay !== null && replay.length > 0)
                for (const text of framesIn(replay)) send(person.link, frameOf(text));
            }
            person.isIn = !person.isIn;
          } else await new Promise((resolve) => setImmediate(resolve));
        }
        await settled();
        for (const person of people) {
          hearAll(person);
          expect(person.heard).toEqual(range(1, person.heard.length));
          if (person.isIn) expect(person.heard.length).toBe(last);
        }
      }),
      { numRuns: 60 },
    );
  });
});
