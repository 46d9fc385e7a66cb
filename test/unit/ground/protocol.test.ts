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

test('the protocol ignores fields that it does not know, so that newer clients can talk to older servers', () => {
  const hello = { t: 'hello', v: 1, token: 'a.b.c', offsets: { lobby: 12 } };
  expect(parseUpward(JSON.stringify(hello))).toEqual({ t: 'hello', v: 1, token: 'a.b.c' });
});

test('a client ignores a message of a type that it does not know', () => {
  expect(parseDownward('{"t":"weather"}')).toEqual({ t: 'unknown' });
  expect(parseDownward('not json')).toEqual({ t: 'unknown' });
});

test('the parser of client messages never throws, whatever it gets', () => {
  fc.assert(fc.property(fc.string(), (text) => void parseUpward(text)));
  fc.assert(fc.property(fc.json(), (text) => void expect(parseUpward(text)).toBe(null)));
});

test('the content of a tile depends on FNV-1a, with its published values, which never change', () => {
  expect(['', 'a', 'foobar'].map(hashOf)).toEqual([0x811c9dc5, 0xe40c292c, 0xbf9cf968]);
});

test('a client retries after a restart or a broken connection, never with a bad token, and with a new token after an expired one', () => {
  expect([closeCode.restart, closeCode.slow, closeCode.helloTimeout, 1001, 1006].map(retryAfter)).toEqual(
    Array(5).fill('retry'),
  );
  expect(retryAfter(closeCode.tokenExpired)).toBe('refresh');
  expect([closeCode.badToken, closeCode.badMessage, closeCode.done].map(retryAfter)).toEqual(
    Array(3).fill('never'),
  );
});

test('the waits of a client double from 250 ms, are random over their whole range and have a limit', () => {
  expect([0, 1, 2].map((n) => backoffMs(n, () => 1))).toEqual([250, 500, 1_000]);
  expect(backoffMs(3, () => 0)).toBe(0);
  expect(backoffMs(50, () => 1)).toBe(8_000);
});
