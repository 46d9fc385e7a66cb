/** Which hosts are the machine or the container itself. */
import { describe, expect, it } from 'vitest';
import { isLoopback } from '../../../src/hosts.ts';

describe('isLoopback', () => {
  it.each([
    ...['localhost', 'LOCALHOST', 'localhost.', 'db.localhost'],
    ...[
      '127.0.0.1',
      '127.8.9.10',
      '127.255.255.255',
      '127.1',
      '127.0.1',
      '0x7f.1',
      '2130706433',
      '0177.0.0.1',
    ],
    ...['::1', '[::1]', '0:0:0:0:0:0:0:1', '::ffff:127.0.0.1', '[::ffff:7f00:1]'],
    ...['0.0.0.0', '0', '::', '[::]'],
  ])('%s is loopback', (host) => {
    expect(isLoopback(host)).toBe(true);
  });

  it.each([
    ...['postgres', 'db.example.com', 'localhost.example.com', 'notlocalhost', '127.example.com'],
    ...['10.0.0.1', '128.0.0.1', '126.255.255.255', '1.0.0.127', '::2', 'fe80::1', '::ffff:10.0.0.1'],
    ...['', ' ', 'a b', '127.0.0.256', '127.0.0.1/8', 'user@localhost', '/var/run/postgresql', '[', '...'],
  ])('"%s" is not loopback', (host) => {
    expect(isLoopback(host)).toBe(false);
  });
});
