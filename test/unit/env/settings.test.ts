/** .env, the environment and files that hold a value: who wins, what is refused, and that no value is ever shown. */
import { chmodSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parseEnv } from 'node:util';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { generateEnv, generateSecret } from '../../../src/env/generate.ts';
import { looseMode, readEnvFile } from '../../../src/env/read.ts';
import { isSecretKey, serverSettings } from '../../../src/env/settings.ts';
import { OpsError } from '../../../src/errors.ts';
import { emptyFolder, gameops } from '../../support/program.ts';

const folder = emptyFolder();
afterAll(() => folder.remove());

const good = {
  DB_HOST: 'postgres',
  DB_NAME: 'arena',
  DB_USER: 'arena',
  DB_PASSWORD: 'a-password-of-a-test',
  REDIS_URL: 'redis://:a-redis-password@redis:6379/0',
  JWT_SECRET: 'a-secret-that-is-long-enough-for-a-token',
};
const asText = (values: Record<string, string>) =>
  Object.entries(values)
    .map(([key, value]) => `${key}=${value}\n`)
    .join('');

function read(text: string | null, environment: Record<string, string> = {}, isBundled = true) {
  const path = text === null ? join(folder.path, 'nowhere.env') : folder.write('.env', text);
  return readEnvFile({ path, environment, isBundled });
}

function refusal(text: string | null, environment: Record<string, string> = {}, isBundled = true): OpsError {
  try {
    read(text, environment, isBundled);
  } catch (error) {
    if (error instanceof OpsError) return error;
    throw error;
  }
  throw new Error('it was taken');
}

describe('where a value comes from', () => {
  it('the environment wins over .env', () => {
    const env = read(asText(good), { DB_NAME: 'other' });
    expect(env.values.DB_NAME).toBe('other');
    expect(env.sources).toMatchObject({ DB_NAME: 'process', DB_USER: 'file' });
  });

  it('KEY_FILE names a file that holds the value; its last newline is not part of the value', () => {
    folder.write('password.txt', 'from a file\n');
    const { DB_PASSWORD: _, ...rest } = good;
    const env = read(`${asText(rest)}DB_PASSWORD_FILE=password.txt\n`);
    expect(env.settings.database?.DB_PASSWORD).toBe('from a file');
    expect(env.sources.DB_PASSWORD).toBe('file-file');
    expect(env.values).not.toHaveProperty('DB_PASSWORD_FILE');
  });

  it('KEY of the environment wins over every KEY_FILE, and a KEY_FILE over KEY in .env', () => {
    const file = folder.write('other.txt', 'from the environment');
    expect(read(asText(good), { DB_PASSWORD_FILE: file }).values.DB_PASSWORD).toBe('from the environment');
    expect(read(`${asText(good)}DB_PASSWORD_FILE=other.txt\n`).values.DB_PASSWORD).toBe(
      'from the environment',
    );
    const both = { DB_PASSWORD: 'of the environment', DB_PASSWORD_FILE: file };
    expect(read(asText(good), both).values.DB_PASSWORD).toBe('of the environment');
  });

  it('a KEY_FILE that cannot be read is refused, and the error names the key', () => {
    expect(refusal(`${asText(good)}JWT_SECRET_FILE=nowhere.txt\n`).facts.keys).toEqual(['JWT_SECRET_FILE']);
  });

  it('from the environment only known keys are taken, from .env all keys', () => {
    const env = read(`${asText(good)}MOTD=welcome\n`, { EDITOR: 'vi', MOTD: 'hello' });
    expect(env.values).toMatchObject({ MOTD: 'hello' });
    expect(env.values).not.toHaveProperty('EDITOR');
  });

  it('without .env the environment is enough; without both, the error suggests gameops init', () => {
    expect(read(null, good)).toMatchObject({ exists: false, settings: { jwtSecret: good.JWT_SECRET } });
    expect(refusal(null)).toMatchObject({
      code: 'ENV_MISSING',
      exitCode: 3,
      next: ['gameops init', expect.anything()],
    });
  });

  it('a byte order mark and Windows line ends change nothing', () => {
    const env = read(`\uFEFF${asText(good).replaceAll('\n', '\r\n')}`);
    expect(env.settings.database).toMatchObject({ DB_HOST: 'postgres', DB_PASSWORD: good.DB_PASSWORD });
  });
});

describe('invalid settings', () => {
  it('are all refused at once, with their keys', () => {
    const error = refusal(
      'DB_HOST=postgres\nDB_PORT=lots\nJWT_SECRET=short\nREDIS_URL=redis\nLOG_LEVEL=loud\n',
    );
    expect(error).toMatchObject({ code: 'ENV_INVALID', exitCode: 3 });
    expect([...(error.facts.keys as string[])].sort()).toEqual(
      ['DB_NAME', 'DB_PASSWORD', 'DB_PORT', 'DB_USER', 'JWT_SECRET', 'LOG_LEVEL', 'REDIS_URL'].sort(),
    );
  });

  it('are refused without showing their values', () => {
    const wrong = fc.stringMatching(/^[A-Za-z0-9!%&*+:;<>?@^_|~-]{8,31}$/);
    fc.assert(
      fc.property(
        wrong,
        fc.constantFrom('DB_PORT', 'PORT', 'JWT_SECRET', 'REDIS_URL', 'LOG_LEVEL', 'NODE_ENV'),
        (value, key) => {
          const check = serverSettings({ ...good, [key]: value });
          expect(JSON.stringify(check.ok ? [] : check.problems)).not.toContain(value);
        },
      ),
    );
  });

  it.each([
    ['DB_HOST', 'localhost'],
    ['DB_HOST', '127.0.0.1'],
    ['DB_HOST', '::1'],
    ['DB_HOST', '127.1'],
    ['DB_HOST', '0.0.0.0'],
    ['REDIS_URL', 'redis://:pw@localhost:6379'],
    ['REDIS_URL', 'redis://:pw@[::1]:6379'],
  ])('include %s=%s, because loopback in a container is the container itself', (key, value) => {
    const error = refusal(asText({ ...good, [key]: value }));
    expect(error).toMatchObject({ code: 'DB_HOST_LOOPBACK', exitCode: 3, facts: { key } });
    expect(error.message).toContain('in a container, where loopback is the container itself');
    expect(error.next[0]).toContain(key === 'DB_HOST' ? 'DB_HOST=postgres' : '@redis:6379');
  });
});

describe('settings of an image that is not bundled', () => {
  it('may be missing', () => {
    expect(read(null, {}, false).settings).toEqual({ database: null, redis: null, jwtSecret: null });
  });

  it('are checked only if gameops itself uses them', () => {
    expect(
      read('LOG_LEVEL=chatty\nJWT_SECRET=short\nNODE_ENV=staging\n', {}, false).settings.database,
    ).toBeNull();
  });

  it('need all of DB_* if DB_HOST is set, and REDIS_URL must be a URL', () => {
    expect(refusal('DB_HOST=postgres\n', {}, false).facts.keys).toEqual([
      'DB_NAME',
      'DB_USER',
      'DB_PASSWORD',
    ]);
    expect(refusal('REDIS_URL=redis\n', {}, false).facts.keys).toEqual(['REDIS_URL']);
    expect(refusal('REDIS_URL=redis://localhost\n', {}, false).code).toBe('DB_HOST_LOOPBACK');
  });
});

describe('the mode of .env', () => {
  it('is accepted as 0600 or 0400, and reported if group or others have a right', () => {
    const path = folder.write('.env', asText(good));
    for (const [mode, told] of [
      [0o600, null],
      [0o400, null],
      [0o640, '0640'],
      [0o604, '0604'],
    ] as const) {
      chmodSync(path, mode);
      expect(looseMode(path)).toBe(told);
    }
    chmodSync(path, 0o600);
  });

  it('causes one warning in each run, although the file is read more than once', async () => {
    const own = emptyFolder();
    own.write('.env', asText(good), 0o644);
    const { err } = await gameops(['deploy', '--project', 'arena'], { cwd: own.path });
    own.remove();
    expect(err.match(/has mode 0644/g)).toHaveLength(1);
    expect(err).toContain('chmod 600');
  });
});

describe('gameops init', () => {
  it('writes settings that are complete and valid, for any name a project may have', () => {
    for (const project of ['arena', 'my-arena-2']) {
      const check = serverSettings(parseEnv(generateEnv(project)) as Record<string, string>);
      expect(check).toMatchObject({ ok: true, settings: { DB_NAME: project.replaceAll('-', '_') } });
    }
  });

  it('makes a different secret of 256 bits each time, of letters that every reader of .env takes alike', () => {
    const secrets = Array.from({ length: 100 }, generateSecret);
    expect(new Set(secrets).size).toBe(100);
    for (const secret of secrets) expect(secret).toMatch(/^[A-Za-z0-9_-]{43}$/);
  });

  it('writes a .env that only its owner can read', async () => {
    const own = emptyFolder();
    await gameops(['init', '--project', 'arena'], { cwd: own.path });
    expect(statSync(join(own.path, '.env')).mode & 0o777).toBe(0o600);
    own.remove();
  });
});

it('a setting counts as secret unless it is known to be public', () => {
  expect(['DB_PASSWORD', 'JWT_SECRET', 'REDIS_URL', 'STRIPE_KEY'].every(isSecretKey)).toBe(true);
  expect(['PORT', 'DB_HOST', 'LOG_LEVEL'].some(isSecretKey)).toBe(false);
});
