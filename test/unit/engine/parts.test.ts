import { PassThrough } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Connection } from '../../../src/engine/docker/client.ts';
import { collectOutput, demuxer, linesOf } from '../../../src/engine/docker/demux.ts';
import { portTakenBy, translate } from '../../../src/engine/docker/errors.ts';
import { searchImage } from '../../../src/engine/docker/images/search.ts';
import { inside } from '../../../src/engine/docker/tar.ts';
import { driftBetween, specLabel } from '../../../src/engine/spec.ts';
import {
  divide,
  freeSubnets,
  leaseAddress,
  rangeOf,
  routesOf,
  toAddress,
  toNumber,
} from '../../../src/engine/subnet.ts';

function frame(stream: 1 | 2, text: string): Buffer {
  const payload = Buffer.from(text);
  const header = Buffer.from([stream, 0, 0, 0, 0, 0, 0, 0]);
  header.writeUInt32BE(payload.length, 4);
  return Buffer.concat([header, payload]);
}

describe('the multiplexed stream', () => {
  it('is read the same way however its bytes are cut into chunks', () => {
    const whole = Buffer.concat([
      frame(1, 'one\ntw'),
      frame(2, 'oops\n'),
      frame(1, ''),
      frame(1, 'o\nthree'),
    ]);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: whole.length - 1 })), (cuts) => {
        const output = collectOutput();
        const at = [0, ...new Set(cuts)].sort((a, b) => a - b);
        for (const [index, from] of at.entries())
          output.feed(whole.subarray(from, at[index + 1] ?? whole.length));
        expect([output.stdout(), output.stderr()]).toEqual(['one\ntwo\nthree', 'oops\n']);
      }),
    );
    expect(linesOf(whole)).toEqual(['one', 'oops', 'two', 'three']);
  });

  it('takes a chunk of very many small frames without deep recursion', () => {
    let frames = 0;
    demuxer(() => {
      frames += 1;
    })(Buffer.concat(Array.from({ length: 100_000 }, () => frame(1, 'x'))));
    expect(frames).toBe(100_000);
  });

  it('keeps the end of an output that is longer than its bound', () => {
    const output = collectOutput(10);
    for (let n = 0; n < 100; n += 1) output.feed(frame(1, `line ${n}\n`));
    expect(output.stdout().endsWith('line 99\n')).toBe(true);
    expect(output.stdout().length).toBeLessThan(40);
  });
});

describe('subnets', () => {
  it('a chosen subnet overlaps nothing that is taken, is private, and is the same for the same project', () => {
    const project = fc.string({ minLength: 1 });
    const ranges = fc.array(
      fc.integer({ min: 0, max: 2 ** 24 - 1 }).map((n) => rangeOf(`${toAddress(10 * 2 ** 24 + n)}/12`)),
    );
    fc.assert(
      fc.property(project, ranges, (name, taken) => {
        const [subnet] = freeSubnets(name, taken);
        const { from, to } = rangeOf(subnet ?? '0.0.0.0/0');
        expect(taken.some((range) => range.from <= to && from <= range.to)).toBe(false);
        expect(subnet).toMatch(/^(10|172)\.\d+\.\d+\.0\/22$/);
        expect([...freeSubnets(name, taken)].length).toBeGreaterThan(0);
      }),
      { numRuns: 20 },
    );
  });

  it('leased addresses never repeat, and are never the gateway or in the share of the engine', () => {
    const cidr = '10.212.4.0/22';
    const taken = new Set<string>();
    for (let address = leaseAddress(cidr, taken); address !== null; address = leaseAddress(cidr, taken)) {
      expect(taken.has(address)).toBe(false);
      taken.add(address);
    }
    const dynamic = rangeOf(divide(cidr).dynamic);
    expect(taken.has(divide(cidr).gateway)).toBe(false);
    expect([...taken].every((address) => toNumber(address) < dynamic.from)).toBe(true);
    expect(taken.size).toBeGreaterThan(750);
  });

  it('an address rests before it is leased again', () => {
    expect(leaseAddress('10.0.0.0/22', new Set(['10.0.0.9']))).toBe('10.0.0.10');
    expect(leaseAddress('10.0.0.0/22', new Set(['10.0.2.254']))).toBe('10.0.0.2');
  });

  it("the subnets of the host's routes count as taken, except for its default route", () => {
    const table = [
      'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT',
      'eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0',
      'eth1\t0000800A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0',
    ];
    expect(routesOf(table.join('\n'))).toEqual([rangeOf('10.128.0.0/16')]);
  });
});

describe('specifications', () => {
  it('drift names the fields that differ, in whatever order they are, and ignores identity', () => {
    const made = specLabel({ project: 'a', name: 'x', image: 'i', env: { A: '1', B: '2' }, user: undefined });
    expect(driftBetween(made, specLabel({ env: { B: '2', A: '1' }, image: 'i' }))).toEqual([]);
    expect(driftBetween(made, specLabel({ env: { A: '1', B: '3' }, image: 'i', cpus: 1 }))).toEqual([
      'cpus',
      'env',
    ]);
  });

  it('a file path that would leave its volume is a bug', () => {
    for (const path of ['../x', '/etc/passwd', 'a/../../x', '', '.']) expect(() => inside(path)).toThrow();
    expect(inside('./a//b/../c')).toBe('a/c');
  });
});

describe('errors of the engine', () => {
  const answered = (message: string) =>
    Object.assign(new Error(message), { statusCode: 500, json: { message } });

  it.each([
    'driver failed programming external connectivity on endpoint a: Bind for 127.0.0.1:8080 failed: port is already allocated',
    'Error starting userland proxy: listen tcp4 127.0.0.1:8080: bind: address already in use',
    'failed to bind host port for 127.0.0.1:8080:10.0.0.2:80/tcp: address already in use',
  ])('a taken port is named: %s', (words) => {
    expect(portTakenBy(answered(words), [8443, 8080])).toMatchObject({
      code: 'PORT_TAKEN',
      facts: { port: 8080 },
    });
    expect(portTakenBy(answered('something else'), [8080])).toBeNull();
  });

  it('every failure has a code, a full disk its own; bugs pass as they are', () => {
    const refused = Object.assign(new Error('connect'), { code: 'ECONNREFUSED', syscall: 'connect' });
    expect(translate(refused, 'unix:///s')).toMatchObject({
      code: 'ENGINE_UNREACHABLE',
      facts: { address: 'unix:///s' },
    });
    expect(translate(answered('weather'), 'x')).toMatchObject({ code: 'ENGINE_FAILED' });
    expect(translate(answered('write /x: no space left on device'), 'x')).toMatchObject({
      code: 'DISK_TOO_FULL',
    });
    const bug = new TypeError('undefined is not a function');
    expect(translate(bug, 'x')).toBe(bug);
  });
});

describe('an image that is searched', () => {
  const needles = new Map([['KEY', ['a-secret-of-eight']]]);
  const nothing = { hits: [], envFiles: [], isWhole: false };

  it('is not even asked for when there is no time left', async () => {
    const connection = { docker: { getImage: () => expect.unreachable() } } as unknown as Connection;
    expect(await searchImage(connection, 'x', needles, AbortSignal.abort())).toEqual(nothing);
  });

  it('is given up when the engine does not begin to answer in time, and a later answer is dropped', async () => {
    const late = new PassThrough();
    let answer: (stream: PassThrough) => void = () => undefined;
    const image = { inspect: async () => ({}), get: () => new Promise((resolve) => (answer = resolve)) };
    const connection = { docker: { getImage: () => image } } as unknown as Connection;
    const given = new AbortController();
    const searched = searchImage(connection, 'x', needles, given.signal);
    await setImmediate();
    given.abort();
    expect(await searched).toEqual(nothing);
    answer(late);
    await setImmediate();
    expect(late.destroyed).toBe(true);
  });
});
