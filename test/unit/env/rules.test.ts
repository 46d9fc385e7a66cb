/** Every rule of `env check`: a sample that it finds, a sample that it leaves alone, and its section on the page. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { FileFacts } from '../../../src/env/file/facts.ts';
import { readTokens } from '../../../src/env/file/tokens.ts';
import { gatherFor } from '../../../src/env/read.ts';
import { type CheckRequest, checkEnv } from '../../../src/env/rules/check.ts';
import { type Rule, type RuleId, type RuleLevel, rules } from '../../../src/env/rules/rules.ts';
import { winners } from '../../../src/env/sources.ts';
import type { UserKeys } from '../../../src/env/user-keys.ts';

const strong = {
  one: 'Zk3v_9QpXw7Lr2Tn8Ys4Bd6Hf1Jm5Gc0Va-Ue3Ki7Ox',
  two: 'm4Rt8Wq2Ez6Uy0Ip5Al9Sk3Dj7Fh1Gb_Nc-Vx4Bz8Qw2',
  three: 'H7jK2mN9pQ4rS6tV8wX3yZ5aB1cD0eF-gI_lOuR7sT2u',
};
const good = {
  DB_HOST: 'postgres',
  DB_NAME: 'arena',
  DB_USER: 'arena',
  DB_PASSWORD: strong.one,
  REDIS_URL: `redis://:${strong.two}@redis:6379/0`,
  JWT_SECRET: strong.three,
};
const asText = (values: Record<string, string>) =>
  Object.entries(values)
    .map(([key, value]) => `${key}=${value}\n`)
    .join('');
const withOnly = (changes: Record<string, string>) => asText({ ...good, ...changes });
const ownFile: FileFacts = { mode: 0o600, isOwn: true, isLink: false, git: 'ignored' };

interface Sample {
  text: string;
  environment?: Record<string, string>;
  example?: string;
  userKeys?: UserKeys;
  facts?: Partial<FileFacts>;
  isBundled?: boolean;
  levels?: Record<string, RuleLevel>;
  provider?: string;
}

function check({ text, environment = {}, example, userKeys = {}, facts, levels = {}, ...rest }: Sample) {
  const tokens = readTokens(text);
  const gathered = gatherFor(tokens, { userKeys, provider: rest.provider, folder: '/nowhere', environment });
  const request: CheckRequest = {
    file: '.env',
    text: tokens,
    hasFile: true,
    values: winners(gathered),
    problems: gathered.problems,
    isBundled: rest.isBundled ?? true,
    userKeys,
    example: example === undefined ? null : readTokens(example),
    facts: { ...ownFile, ...facts },
    levels,
  };
  return checkEnv(request);
}

const key = (about: Partial<UserKeys[string]>): UserKeys => ({
  EXTRA: { type: 'string', required: false, ...about },
});
const plain = asText(good);
const inOrder: Sample['levels'] = { 'key-order': 'warning' };

/** Rule → found, left alone. */
const samples: Record<RuleId, { bad: Sample[]; good: Sample[] }> = {
  syntax: {
    bad: [
      { text: `hello world\n${plain}` },
      { text: `${plain}# caf\uFFFD\n` },
      { text: `=1\n${plain}` },
      { text: withOnly({ DB_NAME: 'a\0b' }) },
    ],
    good: [{ text: `# hello world\n\n${plain}` }],
  },
  'unclosed-quote': {
    bad: [{ text: withOnly({ DB_NAME: '"arena' }) }, { text: withOnly({ DB_NAME: '"a" b' }) }],
    good: [{ text: withOnly({ DB_NAME: '"arena"' }) }],
  },
  'cut-value': {
    bad: [{ text: withOnly({ DB_PASSWORD: `${strong.one}#x` }) }],
    good: [{ text: withOnly({ DB_NAME: 'arena # name' }) }, { text: withOnly({ DB_NAME: '"are#na"' }) }],
  },
  'duplicate-key': { bad: [{ text: `${plain}DB_NAME=other\n` }], good: [{ text: plain }] },
  'key-name': {
    bad: [{ text: `${plain}MY-KEY=1\n` }, { text: `${plain}1A=1\n` }, { text: `${plain}A.B=1\n` }],
    good: [{ text: `${plain}my_key=1\n` }],
  },
  whitespace: {
    bad: [
      { text: `${plain}PORT = 3000\n` },
      { text: `${plain}PORT= 3000\n` },
      { text: `${plain}PORT=3000 \n` },
    ],
    good: [{ text: `${plain}PORT=3000\n` }],
  },
  'byte-order-mark': { bad: [{ text: `\uFEFF${plain}` }], good: [{ text: plain }] },
  'windows-line-ends': { bad: [{ text: plain.replaceAll('\n', '\r\n') }], good: [{ text: plain }] },
  'key-order': {
    bad: [{ text: 'B=1\nA=2\n', levels: inOrder }],
    good: [
      { text: 'A=2\nB=1\n', levels: inOrder },
      { text: 'B=1\n\nA=2\n', levels: inOrder },
      { text: 'B=1\nA=2\n' },
    ],
  },
  'not-portable': {
    bad: ['"arena"', "'arena'", 'a$b', 'arena # name', '"a\nb"', '"a\\nb"'].map((DB_NAME) => ({
      text: withOnly({ DB_NAME }),
    })),
    good: [{ text: plain }, { text: withOnly({ DB_NAME: 'a b c' }) }],
  },
  'missing-key': {
    bad: [
      { text: plain.replace(/^DB_HOST.*\n/m, '') },
      { text: withOnly({ DB_HOST: '' }) },
      { text: plain, userKeys: key({ required: true }) },
    ],
    good: [
      { text: plain.replace(/^DB_HOST.*\n/m, ''), environment: { DB_HOST: 'postgres' } },
      { text: '', isBundled: false },
    ],
  },
  'missing-from-example': {
    bad: [{ text: plain, example: 'MOTD=\n' }],
    good: [
      { text: `${plain}MOTD=\n`, example: 'MOTD=\n' },
      { text: plain, example: 'DB_PASSWORD_FILE=\n' },
    ],
  },
  'unknown-key': {
    bad: [
      { text: `${plain}LOG_LEVLE=info\n` },
      { text: 'LOG_LEVLE=info\n', isBundled: false },
      { text: 'MOTD=hello\n', isBundled: false, userKeys: key({}) },
    ],
    good: [
      { text: `${plain}MOTD=hello\n`, example: 'MOTD=\n' },
      { text: 'MOTD=hello\n', isBundled: false },
      { text: `${plain}EXTRA=1\n`, userKeys: key({}) },
    ],
  },
  'wrong-value': {
    bad: [
      { text: withOnly({ PORT: 'lots' }) },
      { text: withOnly({ PORT: '70000' }) },
      { text: withOnly({ LOG_LEVEL: 'loud' }) },
      { text: withOnly({ EXTRA: '51' }), userKeys: key({ type: 'integer', min: 1, max: 50 }) },
      { text: withOnly({ EXTRA: 'c' }), userKeys: key({ values: ['a', 'b'] }) },
      { text: withOnly({ EXTRA: 'yes' }), userKeys: key({ type: 'boolean' }) },
      { text: withOnly({ EXTRA: 'nobody' }), userKeys: key({ type: 'email' }) },
      { text: withOnly({ EXTRA: 'no url' }), userKeys: key({ type: 'url' }) },
      { text: withOnly({ EXTRA: 'a b' }), userKeys: key({ type: 'host' }) },
      { text: withOnly({ EXTRA: '0' }), userKeys: key({ type: 'port' }) },
      { text: withOnly({ EXTRA: '1e9' }), userKeys: key({ type: 'number' }) },
      { text: withOnly({ EXTRA: 'abc' }), userKeys: key({ type: 'string', min: 4 }) },
    ],
    good: [
      { text: withOnly({ PORT: '8080', LOG_LEVEL: 'warn' }) },
      { text: withOnly({ EXTRA: '50' }), userKeys: key({ type: 'integer', min: 1, max: 50 }) },
      { text: withOnly({ EXTRA: 'a' }), userKeys: key({ values: ['a', 'b'] }) },
      { text: withOnly({ EXTRA: '-1.5' }), userKeys: key({ type: 'number' }) },
      { text: withOnly({ EXTRA: 'a@b.c' }), userKeys: key({ type: 'email' }) },
    ],
  },
  'bad-url': {
    bad: [
      'https://me:a/b@example.com',
      'https://me:a@b@example.com',
      'https://me:a%zz@example.com',
      'https://',
    ].map((value) => ({ text: withOnly({ API_URL: value }) })),
    good: [
      'https://me:a%2Fb@example.com',
      'https://example.com/?mail=a@b',
      'https://[::1]:80/x@y',
      'file:///x',
    ].map((value) => ({ text: withOnly({ API_URL: value }) })),
  },
  'database-url-differs': {
    bad: [{ text: withOnly({ DATABASE_URL: `postgres://arena:${strong.one}@other/arena` }) }],
    good: [{ text: withOnly({ DATABASE_URL: `postgres://arena:${strong.one}@postgres:5432/arena` }) }],
  },
  'debug-in-production': {
    bad: [{ text: withOnly({ LOG_LEVEL: 'debug' }) }],
    good: [{ text: withOnly({ LOG_LEVEL: 'debug', NODE_ENV: 'development' }) }],
  },
  'loopback-in-production': {
    bad: [
      { text: withOnly({ DB_HOST: 'localhost' }) },
      { text: withOnly({ REDIS_URL: `redis://:${strong.two}@127.0.0.1:6379` }) },
    ],
    good: [{ text: withOnly({ DB_HOST: 'localhost', NODE_ENV: 'test' }) }, { text: plain }],
  },
  'unreadable-source': {
    bad: [
      { text: withOnly({ JWT_SECRET_FILE: 'nowhere.txt' }) },
      { text: plain, provider: 'echo A=1; exit 3' },
      { text: plain, userKeys: key({ command: 'exit 1' }) },
    ],
    good: [
      { text: plain, provider: 'echo LOG_LEVEL=info' },
      { text: plain, userKeys: key({ command: 'echo 1' }) },
    ],
  },
  'placeholder-secret': {
    bad: ['changeme', 'Password123', 'your-secret-here', '<secret>', 'xxxxxxxxxxxxxxxxxxxx', '12345678'].map(
      (value) => ({
        text: withOnly({ DB_PASSWORD: value }),
      }),
    ),
    good: [{ text: plain }],
  },
  'example-secret': {
    bad: [{ text: plain, example: asText({ DB_PASSWORD: strong.one }) }],
    good: [{ text: plain, example: 'DB_PASSWORD=\n' }],
  },
  'short-secret': {
    bad: [{ text: withOnly({ DB_PASSWORD: 'kT9-x2' }) }],
    good: [{ text: plain }, { text: withOnly({ EXTRA: 'x' }), userKeys: key({ secret: false }) }],
  },
  'weak-secret': {
    bad: ['aaaaaaaaaaaaaaaaaaaaaaaab', 'abcdefghijklmnopqrstuvwxyz', 'tree9tree9tree9tree9'].map((value) => ({
      text: withOnly({ DB_PASSWORD: value }),
    })),
    good: [{ text: plain }],
  },
  'weak-jwt-secret': {
    bad: [{ text: withOnly({ JWT_SECRET: '9f86d081884c7d659a2feaa0c55ad015' }) }],
    good: [
      { text: plain },
      { text: withOnly({ JWT_SECRET: '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08' }) },
    ],
  },
  'reused-secret': {
    bad: [
      { text: withOnly({ JWT_SECRET: strong.one }) },
      { text: withOnly({ REDIS_URL: `redis://:${strong.one}@redis:6379` }) },
    ],
    good: [{ text: withOnly({ DATABASE_URL: `postgres://arena:${strong.one}@postgres:5432/arena` }) }],
  },
  'file-mode': {
    bad: [
      { text: plain, facts: { mode: 0o644 } },
      { text: plain, facts: { mode: 0o620 } },
    ],
    good: [
      { text: plain, facts: { mode: 0o600 } },
      { text: plain, facts: { mode: 0o400 } },
    ],
  },
  'file-owner': { bad: [{ text: plain, facts: { isOwn: false } }], good: [{ text: plain }] },
  'file-symlink': { bad: [{ text: plain, facts: { isLink: true } }], good: [{ text: plain }] },
  'tracked-by-git': { bad: [{ text: plain, facts: { git: 'tracked' } }], good: [{ text: plain }] },
  'not-ignored-by-git': { bad: [{ text: plain, facts: { git: 'open' } }], good: [{ text: plain }] },
};

describe('the rules of env check', () => {
  for (const [id, { bad, good: fine }] of Object.entries(samples)) {
    it.each(bad)(`${id} finds its bad sample %#`, (sample) => {
      expect(check(sample).findings.map(({ rule }) => rule)).toContain(id);
    });
    it.each(fine)(`${id} does not find its good sample %#`, (sample) => {
      expect(check(sample).findings.map(({ rule }) => rule)).not.toContain(id);
    });
  }

  it('find nothing in a good file', () => {
    expect(check({ text: plain })).toEqual({ file: '.env', findings: [], errors: 0, warnings: 0 });
  });

  it('have one section each in docs/env-rules.md, with their severity, and the page has no other sections', () => {
    const page = readFileSync(new URL('../../../docs/env-rules.md', import.meta.url), 'utf8');
    const sections = [...page.matchAll(/^## (.+)\n\n(Error|Warning|Off)\./gm)].map(([, id, level]) => [
      id,
      level,
    ]);
    const expected = Object.entries(rules).map(([id, { severity, isOff }]: [string, Rule]) => [
      id,
      isOff ? 'Off' : severity === 'error' ? 'Error' : 'Warning',
    ]);
    expect(sections).toEqual(expected);
  });

  it('name line and column of every finding, unless its cause is outside of the file', () => {
    for (const { bad } of Object.values(samples))
      for (const sample of bad)
        for (const { line, column, rule } of check(sample).findings)
          if (rule !== 'unreadable-source')
            expect([rule, line, column]).toEqual([rule, expect.any(Number), expect.any(Number)]);
  });

  it('do not judge JWT_SECRET_PREVIOUS, because nobody can change the old key any more', () => {
    const weak = '9f86d081884c7d659a2feaa0c55ad015';
    for (const JWT_SECRET_PREVIOUS of [weak, 'a'.repeat(40), 'changeme-'.repeat(4)]) {
      const example = asText({ JWT_SECRET_PREVIOUS });
      expect(check({ text: withOnly({ JWT_SECRET_PREVIOUS }), example }).findings).toEqual([]);
    }
    expect(check({ text: withOnly({ JWT_SECRET_NEXT: weak }) }).errors).toBe(1);
  });

  it('can be made errors or turned off in gameops.yaml', () => {
    const sample = { text: withOnly({ DB_PASSWORD: 'kT9-x2' }) };
    expect(check(sample)).toMatchObject({ errors: 0, warnings: 1 });
    expect(check({ ...sample, levels: { 'short-secret': 'error' } })).toMatchObject({
      errors: 1,
      warnings: 0,
    });
    expect(check({ ...sample, levels: { 'short-secret': 'off' } })).toMatchObject({ errors: 0, warnings: 0 });
  });

  it('suggest the nearest known key', () => {
    const { findings } = check({ text: `${plain}LOG_LEVLE=info\n` });
    expect(findings[0]?.message).toContain('did you mean LOG_LEVEL?');
  });

  it('point to the exact line and column', () => {
    const at = (text: string, rule: RuleId) => {
      const found = check({ text }).findings.find((one) => one.rule === rule);
      return found && [found.line, found.column];
    };
    expect(at(`${plain}PORT =1\n`, 'whitespace')).toEqual([7, 5]);
    expect(at(`${plain}PORT=1  \n`, 'whitespace')).toEqual([7, 7]);
    expect(at(`${plain}MOTD=pa#ss\n`, 'cut-value')).toEqual([7, 8]);
    expect(at(`${plain}MOTD="a" # b\n`, 'not-portable')).toEqual([7, 10]);
    expect(at(`${plain}  export MOTD=a\n`, 'not-portable')).toEqual([7, 3]);
    expect(at(withOnly({ DB_HOST: 'localhost' }), 'loopback-in-production')).toEqual([1, 9]);
    expect(at(plain.replace(/^DB_HOST.*\n/m, ''), 'missing-key')).toEqual([5, 1]);
  });
});
