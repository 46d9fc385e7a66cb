/** gameops.yaml: an error names the line and what was expected there. */
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { configJsonSchema, defaultConfig, loadConfig, parseConfig } from '../../../src/config.ts';
import { configPart } from '../../../src/env/config-part.ts';
import { OpsError } from '../../../src/errors.ts';
import { formatBytes, formatMs, parseBytes, parseDurationMs } from '../../../src/units.ts';

function refusal(text: string): OpsError {
  try {
    parseConfig(text, 'gameops.yaml');
  } catch (error) {
    if (error instanceof OpsError) return error;
    throw error;
  }
  throw new Error('the configuration was accepted');
}

describe('gameops.yaml is refused', () => {
  it.each([
    [
      'a key with a typo',
      'server:\n  replcas: 3\n',
      'gameops.yaml:2: server.replcas: unknown key; did you mean replicas?',
    ],
    [
      'a top-level key with a typo',
      'deploi: {}\n',
      'gameops.yaml:1: deploi: unknown key; did you mean deploy?',
    ],
    [
      'a key that resembles nothing',
      'web:\n  quux: 1\n',
      'gameops.yaml:2: web.quux: unknown key; known here: dir',
    ],
    ['no replicas', 'server: { replicas: 0 }\n', 'gameops.yaml:1: server.replicas: expected at least 1'],
    [
      '51 replicas',
      'server:\n  port: 3000\n  replicas: 51\n',
      'gameops.yaml:3: server.replicas: expected at most 50',
    ],
    ['half a replica', 'server: { replicas: 1.5 }\n', 'server.replicas: expected a whole number'],
    ['text for a number', 'http: { port: web }\n', 'http.port: expected a number'],
    [
      'a duration without a unit',
      'deploy:\n\n  drain: "300"\n',
      'gameops.yaml:3: deploy.drain: expected a duration such as',
    ],
    ['a duration that is a number', 'deploy: { drain: 300 }\n', 'deploy.drain: expected a duration such as'],
    [
      "a duration beyond Node's timers",
      'deploy: { drain: 501h }\n',
      'deploy.drain: expected a duration such as 500ms, 30s, 5m or 2h, at most 500h',
    ],
    ['a size that is a number', 'server: { memory: 512 }\n', 'server.memory: expected a size such as'],
    ['memory that Docker takes for no limit', 'server: { memory: 0m }\n', 'server.memory: expected a size'],
    ['memory below what Docker allows', 'server: { memory: "512" }\n', 'at least 6m'],
    [
      'a number for text',
      'images: { postgres: 18 }\n',
      'images.postgres: expected text (a number needs quotes)',
    ],
    [
      'a tag that nobody resolves',
      'server: { image: !secret name }\n',
      'gameops.yaml:1: expected YAML: Unresolved tag',
    ],
    [
      'a setting without a value',
      'server:\n  env:\n    MOTD:\n',
      'gameops.yaml:3: server.env.MOTD: expected text',
    ],
    ['a list as a setting', 'server: { env: { MOTD: [a, b] } }\n', 'server.env.MOTD: expected text'],
    ['a merge key among the settings', 'server: { env: { <<: { A: b } } }\n', 'server.env.<<: expected text'],
    ['settings as a list', 'server: { env: [A=b] }\n', 'server.env: expected a group of keys'],
    ['a setting whose name has "="', 'server: { env: { "A=b": c } }\n', 'a name without spaces and "="'],
    ['a size in words', 'server: { memory: much }\n', 'server.memory: expected a size such as 256m or 1g'],
    [
      'an unknown strategy',
      'deploy: { strategy: yolo }\n',
      'deploy.strategy: expected one of blue-green, rolling',
    ],
    [
      'a probe that is not a path',
      'server: { probe: readyz }\n',
      'server.probe: expected a path that starts with /',
    ],
    ['a probe with a space', 'server: { probe: "/a b" }\n', 'server.probe: expected a path without spaces'],
    [
      'a domain that is not a host name',
      'domain: "a b; c"\n',
      'gameops.yaml:1: domain: expected a host name',
    ],
    [
      'a name instead of an address',
      'http: { address: localhost }\n',
      'http.address: expected an IPv4 address',
    ],
    [
      'an address that is not an IPv4 address',
      'http: { address: 300.1.1.1 }\n',
      'http.address: expected an IPv4 address',
    ],
    [
      'the same port twice',
      'http:\n  port: 8080\n  tlsPort: 8080\n',
      'gameops.yaml:3: http.tlsPort: expected another port than http.port',
    ],
    [
      'a user by name instead of uid',
      'server: { security: { user: root } }\n',
      'server.security.user: expected a numeric uid or uid:gid',
    ],
    ['a list', '- a\n', 'gameops.yaml:1: expected a group of keys'],
    [
      'a project with a name that is not allowed',
      'project: "My Arena"\n',
      'project: expected lower-case letters',
    ],
    ['a group that is text', 'server: big\n', 'gameops.yaml:1: server: expected a group of keys'],
    ['a list', '- a\n', 'expected a group of keys'],
    ['broken YAML', 'server: {\n  replicas: 2\n', 'YAML'],
    [
      'a key that is there twice',
      'project: aa\nproject: bb\n',
      'gameops.yaml:2: expected YAML: Map keys must be unique',
    ],
  ])('for %s', (_, text, expected) => {
    const error = refusal(text);
    expect(error).toMatchObject({ code: 'CONFIG_INVALID', exitCode: 3 });
    expect(error.message).toContain(expected);
    expect(error.message).toContain('nothing was changed');
  });

  it('with all its problems at once', () => {
    const { facts } = refusal('server: { replicas: 0, portt: 1 }\nhttpp: {}\n');
    expect(facts.problems).toHaveLength(3);
  });

  it('or accepted, whatever its text is: nothing else is thrown', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.json(),
          fc.string().map((text) => `server:\n  ${text}`),
        ),
        (text) => {
          try {
            parseConfig(text, 'gameops.yaml');
          } catch (error) {
            if (!(error instanceof OpsError)) throw error;
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it('when a file named with --config is missing; the default file may be missing', () => {
    expect(() => loadConfig('/nowhere/gameops.yaml', { mustExist: true })).toThrow('a file at this path');
    expect(loadConfig('/nowhere/gameops.yaml', { mustExist: false })).toEqual(defaultConfig());
  });

  it.each([
    ['a link that leads nowhere', '/nowhere/gameops.yaml', 'ENOENT'],
    ['a device that never ends', '/dev/zero', 'EFBIG'],
    ['a folder', '/tmp', 'EISDIR'],
  ])('when it is %s, and never taken for a missing file', (_, target, reason) => {
    const folder = mkdtempSync(join(tmpdir(), 'gameops-config-'));
    try {
      symlinkSync(target, join(folder, 'gameops.yaml'));
      const load = () => loadConfig(join(folder, 'gameops.yaml'), { mustExist: false });
      expect(load).toThrow(`expected a file that can be read (${reason})`);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('gameops.yaml is accepted', () => {
  it('when it is empty or has only comments: then every key has its default', () => {
    expect(parseConfig('', 'x')).toEqual(defaultConfig());
    expect(parseConfig('# later\n', 'x')).toEqual(defaultConfig());
  });

  it('without keys, with the defaults of the contract', () => {
    expect(defaultConfig()).toMatchObject({
      http: { address: '127.0.0.1', port: 8080, tlsPort: 8443 },
      server: { image: 'bundled', replicas: 2, port: 3000, memoryBytes: 512 * 1024 ** 2, cpus: 1 },
      deploy: { strategy: 'blue-green', readyMs: 60_000, watchMs: 30_000, drainMs: 300_000, keep: 3 },
    });
  });

  it('with durations and sizes, which become numbers when the file is read', () => {
    const config = parseConfig('deploy: { drain: 90s }\nserver: { memory: 1g }\n', 'x');
    expect(config.deploy).toMatchObject({ readyMs: 60_000, drainMs: 90_000 });
    expect(config.server).toMatchObject({ memoryBytes: 1024 ** 3, probe: '/readyz' });
  });

  it('with numbers and booleans in server.env, which stay the text that stands in the file', () => {
    const written = {
      ...{ LIMIT: '5', PIN: '0123', VERSION: '1.10', ID: '12345678901234567890', MODE: '0o17', RATE: '1e3' },
      ...{ ON: 'yes', OFF: 'False', DAY: '2026-12-01', MOTD: 'hi' },
    };
    const lines = Object.entries(written).map(([key, value]) => `    ${key}: ${value}\n`);
    const text = `server:\n  env:\n${lines.join('')}`;
    expect(parseConfig(text, 'x').server.env).toEqual(written);
    expect(configPart(text)?.server.env).toEqual(written);
    expect(parseConfig('server: { replicas: &n 02, env: { N: *n } }', 'x').server).toMatchObject({
      replicas: 2,
      env: { N: '02' },
    });
  });

  it('by editors: the shipped JSON Schema is made from this schema', () => {
    const shipped = new URL('../../../dist/gameops.schema.json', import.meta.url);
    expect(JSON.parse(readFileSync(shipped, 'utf8'))).toEqual(JSON.parse(JSON.stringify(configJsonSchema())));
  });

  it('by editors: the JSON Schema describes what people write, not what the code reads', () => {
    const { properties } = configJsonSchema() as {
      properties: Record<string, { properties: Record<string, object> }>;
    };
    expect(properties.deploy?.properties.drain).toMatchObject({ type: 'string', default: '5m' });
    expect(properties.server?.properties.memory).toMatchObject({ type: 'string', default: '512m' });
  });

  it('by editors: the JSON Schema describes keys in words', () => {
    const { properties } = configJsonSchema() as { properties: Record<string, { properties?: object }> };
    expect(properties.http?.properties).toMatchObject({
      tlsPort: { description: expect.stringContaining('HTTPS') },
    });
  });
});

describe('durations and sizes', () => {
  it.each([
    ['500ms', 500],
    ['30s', 30_000],
    ['1.5m', 90_000],
    ['2h', 7_200_000],
    [' 5s ', 5_000],
    ['30', null],
    ['-5s', null],
    ['5 s', null],
    ['', null],
    ['1d', null],
    ['500h', 1_800_000_000],
    ['501h', null],
  ])('"%s" is %s ms', (text, ms) => {
    expect(parseDurationMs(text)).toBe(ms);
  });

  it.each([
    ['512m', 512 * 1024 ** 2],
    ['1g', 1024 ** 3],
    ['64K', 64 * 1024],
    ['1.5gb', 1.5 * 1024 ** 3],
    ['1000', 1000],
    ['much', null],
    ['1t', null],
    ['9999999999g', null],
  ])('"%s" is %s bytes', (text, bytes) => {
    expect(parseBytes(text)).toBe(bytes);
  });

  it('are shown with units for people', () => {
    expect([0, 999, 1_234, 61_000, 120_000].map(formatMs)).toEqual([
      '0 ms',
      '999 ms',
      '1.2 s',
      '1 min 1 s',
      '2 min',
    ]);
    const sizes = [512 * 1024 ** 2, 1.5 * 1024 ** 3, 2 * 1024 ** 3, 2048, 0];
    expect(sizes.map(formatBytes)).toEqual(['512 MB', '1.5 GB', '2 GB', '2 kB', '0 kB']);
  });
});
