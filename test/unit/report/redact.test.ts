/** No secret leaves the process, whoever wrote the message it is in. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { keepSecret, keepSecretsOf, keepSetting, redact, redactedJson } from '../../../src/report/redact.ts';
import { brokenEngine, emptyFolder, gameops, type Run } from '../../support/program.ts';

describe('redaction', () => {
  it('finds a password as it is, percent-encoded in a URL, and with the escapes of JSON', () => {
    keepSecret('p@ss "quoted" word');
    expect(redact('the password is p@ss "quoted" word')).toBe('the password is [secret]');
    expect(redact('redis://:p%40ss%20%22quoted%22%20word@redis')).toBe('redis://:[secret]@redis');
    expect(redact(String.raw`{"x":"p@ss \"quoted\" word"}`)).toBe('{"x":"[secret]"}');
  });

  it('treats the password inside a URL as a secret of its own', () => {
    keepSecret('redis://:s3cr%40t-inside@redis:6379/0');
    expect(redact('AUTH s3cr@t-inside failed')).toBe('AUTH [secret] failed');
  });

  it('finds a private key by any of its lines', () => {
    keepSecret('-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----\n');
    expect(redact('bad line: MIIEvQIBADANBg')).toBe('bad line: [secret]');
  });

  it('leaves no remainder of a secret that contains another one', () => {
    keepSecret('abcdef-inner');
    keepSecret('abcdef-inner-and-outer');
    expect(redact('x abcdef-inner-and-outer x')).toBe('x [secret] x');
  });

  it('hides environment variables whose names sound like secrets, but not a path in KEY_FILE', () => {
    keepSecretsOf({
      GITHUB_TOKEN: 'tok-from-environment',
      DB_PASSWORD_FILE: '/run/pw-file',
      EDITOR: 'my-editor',
    });
    expect(redact('tok-from-environment /run/pw-file my-editor')).toBe('[secret] /run/pw-file my-editor');
  });

  it('hides unknown settings with a long value, but not a short switch', () => {
    keepSetting('STRIPE_KEY', 'sk_live_0123456789abcdef', true);
    keepSetting('FEATURE_CHAT', 'enabled', true);
    expect(redact('sk_live_0123456789abcdef enabled')).toBe('[secret] enabled');
  });

  it('does not hide the host "postgres" because of a password "postgres"', () => {
    keepSetting('DB_PASSWORD', 'postgres', true);
    expect(redact('start-accessories postgres')).toBe('start-accessories postgres');
  });

  it('leaves JSON valid, however deep the secret is', () => {
    keepSecret('deep"secret');
    expect(JSON.parse(redactedJson({ a: [{ b: 'x deep"secret' }], n: 1, z: null }))).toEqual({
      a: [{ b: 'x [secret]' }],
      n: 1,
      z: null,
    });
  });
});

describe('secrets of .env, of a named file and of the environment', () => {
  const canaries = {
    password: 'canary-database-password',
    redis: 'canary-redis-password',
    jwt: 'canary-jwt-secret-that-is-long-enough-for-it',
    other: 'canary-of-a-key-nobody-knows',
    token: 'canary-token-of-the-environment',
  };
  const folder = emptyFolder();
  afterAll(() => folder.remove());
  folder.write('password.txt', `${canaries.password}\n`);
  folder.write(
    '.env',
    `DB_HOST=postgres\nDB_NAME=arena\nDB_USER=arena\nDB_PASSWORD_FILE=password.txt\nJWT_SECRET=${canaries.jwt}\n` +
      `REDIS_URL=redis://:${canaries.redis}@redis:6379/0\nSOMETHING=${canaries.other}\n`,
  );
  const scoped = ['--project', 'canaries'];
  const environment = { REGISTRY_TOKEN: canaries.token };

  function expectNone({ out, err }: Run): void {
    for (const canary of Object.values(canaries)) expect(`${out}${err}`).not.toContain(canary);
    expect(`${out}${err}`).toContain('[secret]');
  }

  for (const flags of [[], ['--verbose'], ['--json'], ['--json', '--verbose'], ['--quiet']]) {
    const named = flags.join(' ') || 'plain text';

    it(`are not in the message of an engine that repeats them (${named})`, async () => {
      const message = `refused: ${Object.values(canaries).join(' ')}`;
      const engine = await brokenEngine(folder.path, (_, response) => {
        response.writeHead(500, { 'content-type': 'application/json' }).end(JSON.stringify({ message }));
      });
      const run = await gameops(['deploy', ...scoped, ...flags], {
        cwd: folder.path,
        env: { ...environment, DOCKER_HOST: engine.host },
      });
      engine.close();
      expect(run.code).toBe(4);
      expectNone(run);
    });

    it(`are not in the report and stack of a bug (${named})`, async () => {
      // Only when the engine was asked has the verb read its settings: before that there is nothing to know.
      const asked = join(folder.path, `asked${flags.join('')}`);
      const engine = await brokenEngine(folder.path, () => writeFileSync(asked, ''));
      const bug = `import { existsSync } from 'node:fs';
        setInterval(() => {
          if (existsSync(${JSON.stringify(asked)})) throw new Error(${JSON.stringify(Object.values(canaries).join(' '))});
        }, 20).unref();`;
      const run = await gameops(['deploy', ...scoped, ...flags], {
        cwd: folder.path,
        env: { ...environment, DOCKER_HOST: engine.host },
        node: ['--import', `data:text/javascript,${encodeURIComponent(bug)}`],
      });
      engine.close();
      expect(run.code).toBe(1);
      expectNone(run);
      if (flags.includes('--json')) {
        expect(JSON.parse(run.out)).toMatchObject({ ok: false, command: 'deploy', error: { code: 'BUG' } });
      }
    });
  }

  it('are not in the error about wrong settings', async () => {
    const broken = folder.write(
      'broken.env',
      `DB_PASSWORD=${canaries.password}\nJWT_SECRET=${canaries.jwt.slice(0, 31)}\nREDIS_URL=${canaries.redis}\n`,
    );
    const run = await gameops(['deploy', ...scoped, '--env-file', broken, '--verbose'], { cwd: folder.path });
    expect(run.code).toBe(3);
    expect(run.err).toContain('ENV_INVALID');
    expect(run.err).not.toMatch(/canary/);
  });
});
