import { describe, expect, test, vi } from 'vitest';
import { isRegion, parseUpward, world } from '../../../src/protocol.ts';
import { levelSetter } from '../../../src/server/admin.ts';
import { body } from '../../../src/server/http/input.ts';
import { percentile99 } from '../../../src/server/loop-lag.ts';
import { readSession, sessionText } from '../../../src/server/players/player.ts';
import { fullBucket, takeFrom } from '../../../src/server/players/token-bucket.ts';
import { isSameOrigin, refusalOf } from '../../../src/server/players/upgrade.ts';
import { compareIds, judgeContinuity } from '../../../src/server/redis/bus-continuity.ts';
import { entryOf } from '../../../src/server/redis/bus-entry.ts';
import { contentOf } from '../../../src/server/world/tile-content.ts';

describe('the continuity of the bus', () => {
  test('is given when nothing was read yet, or when the newest entry that was read is still there', () => {
    expect(judgeContinuity({ read: null, has: false, oldest: null, newest: null })).toBe('same');
    expect(judgeContinuity({ read: '5-0', has: true, oldest: '1-0', newest: '9-0' })).toBe('same');
  });

  test('is lost when the bus is empty, older, or without the entry that was read', () => {
    expect(judgeContinuity({ read: '5-0', has: false, oldest: null, newest: null })).toBe('lost');
    expect(judgeContinuity({ read: '5-0', has: false, oldest: '1-0', newest: '4-9' })).toBe('lost');
    expect(judgeContinuity({ read: '5-0', has: false, oldest: '1-0', newest: '9-0' })).toBe('lost');
  });

  test('has a gap when the bus begins later: it was trimmed, so entries were missed and not lost', () => {
    expect(judgeContinuity({ read: '5-0', has: false, oldest: '6-0', newest: '9-0' })).toBe('missed');
  });

  test('compares ids of entries as numbers', () => {
    expect(compareIds('9-0', '10-0')).toBeLessThan(0);
    expect(compareIds('10-2', '10-10')).toBeLessThan(0);
    expect(compareIds('7-1', '7-1')).toBe(0);
  });
});

describe('entries of the bus', () => {
  test('an entry of this form is read, even with additional fields of a later release', () => {
    const fields = ['v', '1', 'e', 'abc', 'r', 'r1-1', 'o', '7', 'b', '{"t":"x"}', 'later', '?'];
    expect(entryOf(fields)).toEqual({ room: 'r1-1', offset: 7, body: '{"t":"x"}', epoch: 'abc' });
  });

  test('an entry of another form is skipped', () => {
    expect(entryOf(['v', '2', 'r', 'r1-1', 'o', '7', 'b', '{}'])).toBe(null);
    expect(entryOf(['v', '1', 'r', 'r1-1'])).toBe(null);
    expect(entryOf([])).toBe(null);
  });
});

describe('a token bucket', () => {
  const rate = { perSecond: 10, burst: 3 };

  test('allows a burst, then a number per second', () => {
    const bucket = fullBucket(rate, 0);
    expect([0, 0, 0, 0].map((now) => takeFrom(bucket, rate, now))).toEqual([true, true, true, false]);
    expect(takeFrom(bucket, rate, 50)).toBe(false);
    expect(takeFrom(bucket, rate, 100)).toBe(true);
    expect(takeFrom(bucket, rate, 101)).toBe(false);
  });

  test('gives its rate even to a player who asks all the time', () => {
    const bucket = fullBucket(rate, 0);
    const taken = Array.from({ length: 1_000 }, (_, now) => takeFrom(bucket, rate, now)).filter(Boolean);
    expect(taken.length).toBeGreaterThanOrEqual(12);
    expect(taken.length).toBeLessThanOrEqual(13);
  });
});

describe('upgrades', () => {
  const open = { isDraining: false, isFull: false };
  const asked = (url: string, headers: object = {}) => ({
    url,
    headers: { 'sec-websocket-protocol': 'gameops.v1', host: 'play.example', ...headers },
  });

  test('programs and pages of the same origin are accepted, pages of another origin are refused', () => {
    expect(refusalOf(asked('/ws'), open)).toBe(null);
    expect(refusalOf(asked('/ws?to=4', { origin: 'https://play.example' }), open)).toBe(null);
    expect(refusalOf(asked('/ws', { origin: 'https://evil.example' }), open)).toBe('403 Forbidden');
    expect(refusalOf(asked('/ws', { origin: 'null' }), open)).toBe('403 Forbidden');
    expect(isSameOrigin('http://play.example:8080', 'play.example:8080')).toBe(true);
    expect(isSameOrigin('http://play.example:8080', 'play.example:9090')).toBe(false);
    expect(isSameOrigin('http://play.example', undefined)).toBe(false);
  });

  test('another path, another protocol, and a full or draining server are answered in HTTP', () => {
    expect(refusalOf(asked('/else'), open)).toBe('404 Not Found');
    expect(refusalOf(asked('/ws', { 'sec-websocket-protocol': 'gameops.v0' }), open)).toBe('400 Bad Request');
    expect(refusalOf(asked('/ws', { 'sec-websocket-protocol': 'a, gameops.v1' }), open)).toBe(null);
    expect(refusalOf(asked('/ws'), { ...open, isDraining: true })).toBe('503 Service Unavailable');
    expect(refusalOf(asked('/ws'), { ...open, isFull: true })).toBe('503 Service Unavailable');
  });
});

describe('small parts of the server', () => {
  test('a session that Redis keeps is read back, and no other text is taken for one', () => {
    const session = { player: 'ada', region: 'r1-1', before: null };
    expect(readSession(sessionText(session))).toEqual(session);
    for (const text of [null, '', '{', '{}', '{"player":1}']) expect(readSession(text)).toBe(null);
  });

  test('a tile always has the same content, and tiles differ', () => {
    const contents = new Set<string>();
    for (let x = 0; x < world.tiles; x += 1) contents.add(contentOf('r0-0', { x, y: 3 }));
    expect(contentOf('r0-0', { x: 1, y: 3 })).toBe(contentOf('r0-0', { x: 1, y: 3 }));
    expect(contents.size).toBeGreaterThan(5);
    expect([...contents].every((content) => content.length > 3)).toBe(true);
  });

  test('a region has to be one of the grid', () => {
    expect(['r0-0', 'r19-9'].every(isRegion)).toBe(true);
    expect(['r20-0', 'r0-10', 'r-1-0', 'lobby', ''].some(isRegion)).toBe(false);
  });

  test('a region has one name: with a leading zero it is refused everywhere', () => {
    const explored = (region: string) => body.explore.safeParse({ region, x: 1, y: 1 }).success;
    const entered = (region: string) => parseUpward(JSON.stringify({ t: 'enter', region })) !== null;
    for (const isOne of [isRegion, explored, entered]) {
      expect(['r0-0', 'r7-3', 'r10-0', 'r19-9'].every(isOne)).toBe(true);
      expect(['r00-0', 'r0-00', 'r00-00', 'r07-3', 'r7-03'].some(isOne)).toBe(false);
    }
  });

  test('the 99th percentile of samples is one of them', () => {
    expect(percentile99([])).toBe(null);
    expect(percentile99([7])).toBe(7);
    expect(percentile99(Array.from({ length: 200 }, (_, n) => n))).toBe(197);
  });

  test('a log level that was asked for a limited time is taken back, and the last request wins', () => {
    vi.useFakeTimers();
    const log = { level: 'info' };
    const set = levelSetter(log);
    set('debug', 20);
    expect(log.level).toBe('debug');
    set('trace', 40);
    vi.advanceTimersByTime(25);
    expect(log.level).toBe('trace');
    vi.advanceTimersByTime(20);
    expect(log.level).toBe('info');
    set('warn', undefined);
    vi.advanceTimersByTime(1_000);
    expect(log.level).toBe('warn');
    vi.useRealTimers();
  });

  test('a hello may name a session to resume, and is refused when that is malformed', () => {
    const resume = { session: '12345678-abcd', epoch: 'e', offsets: { 'r1-1': 4 } };
    expect(parseUpward(JSON.stringify({ t: 'hello', v: 1, token: 'x', resume }))).toMatchObject({ resume });
    for (const wrong of [
      { ...resume, session: 'a/b' },
      { ...resume, offsets: { nowhere: 1 } },
      { ...resume, offsets: { 'r1-1': -1 } },
    ])
      expect(parseUpward(JSON.stringify({ t: 'hello', v: 1, token: 'x', resume: wrong }))).toBe(null);
  });
});
