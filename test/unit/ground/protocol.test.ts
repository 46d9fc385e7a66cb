import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  backoffMs,
  closeCode,
  hashOf,
  parseDownward,
  parseUpward,
  retryAfter,
} from '../../../src/protocol.ts';

test('a field that this version does not know is ignored, so that newer clients can talk to older servers', () => {
  const hello = { t: 'hello', v: 1, token: 'a.b.c', offsets: { lobby: 12 } };
  expect(parseUpward(JSON.stringify(hello))).toEqual({ t: 'hello', v: 1, token: 'a.b.c' });
});

test('a type that a client does not know is no error', () => {
  expect(parseDownward('{"t":"weather"}')).toEqual({ t: 'unknown' });
  expect(parseDownward('not json')).toEqual({ t: 'unknown' });
});

test('nothing that a client can send makes the parser throw', () => {
  fc.assert(fc.property(fc.string(), (text) => void parseUpward(text)));
  fc.assert(fc.property(fc.json(), (text) => void expect(parseUpward(text)).toBe(null)));
});

test('what lies on a tile hangs on a hash that never changes: FNV-1a, by its published values', () => {
  expect(['', 'a', 'foobar'].map(hashOf)).toEqual([0x811c9dc5, 0xe40c292c, 0xbf9cf968]);
});

test('a restart or a broken connection is retried, a bad token never, an expired one after a new one', () => {
  expect([closeCode.restart, closeCode.slow, closeCode.helloTimeout, 1001, 1006].map(retryAfter)).toEqual(
    Array(5).fill('retry'),
  );
  expect(retryAfter(closeCode.tokenExpired)).toBe('refresh');
  expect([closeCode.badToken, closeCode.badMessage, closeCode.done].map(retryAfter)).toEqual(
    Array(3).fill('never'),
  );
});

test('waits double from 250 ms, are random over their whole range and stay bounded', () => {
  expect([0, 1, 2].map((n) => backoffMs(n, () => 1))).toEqual([250, 500, 1_000]);
  expect(backoffMs(3, () => 0)).toBe(0);
  expect(backoffMs(50, () => 1)).toBe(8_000);
});
