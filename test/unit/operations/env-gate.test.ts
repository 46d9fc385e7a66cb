/** What `env check` calls an error, `deploy` refuses before it asks for an engine; and no way back is ever refused for it. */
import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { generateEnv } from '../../../src/env/generate.ts';
import { type Rule, rules } from '../../../src/env/rules/rules.ts';
import type { Context, EnvFile } from '../../../src/operations/context.ts';
import { warnOfLostKey } from '../../../src/operations/release-inputs.ts';
import { fingerprintOfSetting } from '../../../src/record/fingerprints.ts';
import type { ProjectRecord } from '../../../src/record/record.ts';
import { release } from '../../support/memory/worlds.ts';
import { emptyFolder, type Folder, gameops } from '../../support/program.ts';

const plain = generateEnv('arena');
const secretOf = (key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(plain)?.[1] ?? '';
const withOnly = (key: string, value: string) =>
  plain.replace(new RegExp(`^${key}=.*$`, 'm'), `${key}=${value}`);

interface Sample {
  text: string;
  example?: string;
  isTracked?: true;
}

const samples: Record<string, Sample> = {
  syntax: { text: `${plain}hello world\n` },
  'unclosed-quote': { text: withOnly('DB_NAME', '"arena') },
  'cut-value': { text: withOnly('DB_PASSWORD', `${secretOf('JWT_SECRET').slice(1)}#x`) },
  'duplicate-key': { text: `${plain}DB_NAME=other\n` },
  'missing-key': { text: plain.replace(/^DB_HOST.*\n/m, '') },
  'wrong-value': { text: withOnly('PORT', 'many') },
  'bad-url': { text: `${plain}API_URL=https://user:pa/ss@example.com\n` },
  'database-url-differs': { text: `${plain}DATABASE_URL=postgres://arena@elsewhere/arena\n` },
  'loopback-in-production': { text: `${plain}CACHE_HOST=127.0.0.1\n` },
  'unreadable-source': { text: `${plain}JWT_SECRET_FILE=nowhere.txt\n` },
  'placeholder-secret': { text: withOnly('DB_PASSWORD', 'changeme') },
  'example-secret': { text: plain, example: `DB_PASSWORD=${secretOf('DB_PASSWORD')}\n` },
  'weak-jwt-secret': { text: withOnly('JWT_SECRET', '0a1b2c3d4e5f60718293a4b5c6d7e8f9') },
  'tracked-by-git': { text: plain, isTracked: true },
};

const errors = Object.entries(rules).flatMap(([id, rule]) =>
  (rule as Rule).severity === 'error' ? [id] : [],
);

async function inFolder<T>(
  { text, example, isTracked }: Sample,
  use: (own: Folder) => Promise<T>,
): Promise<T> {
  const own = emptyFolder();
  try {
    own.write('.env', text);
    if (example !== undefined) own.write('.env.example', example);
    if (isTracked)
      for (const args of [['init'], ['add', '.env']])
        execFileSync('git', ['-C', own.path, ...args], { stdio: 'ignore' });
    return await use(own);
  } finally {
    own.remove();
  }
}

const deploy = async (own: Folder, ...more: string[]) => {
  const { code, out } = await gameops(['deploy', '--project', 'arena', '--json', ...more], { cwd: own.path });
  return { code, error: JSON.parse(out).error as { code: string; message: string; next: string[] } };
};

describe('deploy', () => {
  it('is tested with a sample for every rule that is an error', () => {
    expect(Object.keys(samples).sort()).toEqual([...errors].sort());
  });

  it('accepts a .env without errors, and then connects to the engine', async () => {
    expect(await inFolder({ text: plain }, deploy)).toMatchObject({ code: 4 });
  });

  it.each(errors)('refuses a .env in which %s finds an error, also with --plan', async (rule) => {
    await inFolder(samples[rule] as Sample, async (own) => {
      const check = await gameops(['env', 'check', '--json'], { cwd: own.path });
      const found = (JSON.parse(check.out).result?.findings ?? []) as { rule: string }[];
      expect(found).toContainEqual(expect.objectContaining({ rule }));
      for (const more of [[], ['--plan']])
        expect(await deploy(own, ...more)).toMatchObject({ code: 3, error: { code: 'ENV_INVALID' } });
    });
  });

  it('names rule, line and key of an error, never the value', async () => {
    await inFolder(samples['cut-value'] as Sample, async (own) => {
      const { error } = await deploy(own);
      expect(error.message).toMatch(/cut-value on line \d+ \(DB_PASSWORD\)/);
      expect(JSON.stringify(error)).not.toContain(secretOf('JWT_SECRET').slice(1, 12));
    });
  });

  it('accepts an error that gameops.yaml turns into a warning', async () => {
    await inFolder(samples['placeholder-secret'] as Sample, async (own) => {
      own.write('gameops.yaml', 'env: { rules: { placeholder-secret: warning } }\n');
      expect((await deploy(own)).code).toBe(4);
    });
  });

  it('rollback, resume and rotation are not refused for errors in .env, because they are the ways out', async () => {
    await inFolder(samples['weak-jwt-secret'] as Sample, async (own) => {
      for (const verb of [['rollback'], ['resume'], ['env', 'rotate', 'jwt']]) {
        const { code } = await gameops([...verb, '--project', 'arena', '--json'], { cwd: own.path });
        expect([verb, code]).toEqual([verb, 4]);
      }
      expect((await deploy(own)).error.next.join()).toContain('gameops env rotate jwt');
    });
  });
});

describe('a signing key that .env does not hold', () => {
  const fingerprintKey = 'a key of fingerprints';
  const warned = (values: Record<string, string>, signs: string | undefined) => {
    const told: string[] = [];
    const emit = (event: { message: string }) => told.push(event.message);
    const context = { config: { server: { env: {} } }, emit } as unknown as Context;
    const fingerprints =
      signs === undefined ? {} : { JWT_SECRET: fingerprintOfSetting(fingerprintKey, 'JWT_SECRET', signs) };
    const record = { fingerprintKey } as ProjectRecord;
    warnOfLostKey(context, { values } as EnvFile, record, release(41, 'live', 2, { fingerprints }));
    return told;
  };

  it('causes a warning that players will have to log in again, which names the live release', () => {
    const [message = '', ...more] = warned({ JWT_SECRET: 'b', JWT_SECRET_NEXT: 'c' }, 'a');
    expect(more).toEqual([]);
    expect(message).toMatch(/log in again.*release 41.*gameops env rotate jwt/);
  });

  it('causes no warning when .env holds it under another name, or the live release signs no tokens', () => {
    for (const key of ['JWT_SECRET', 'JWT_SECRET_NEXT', 'JWT_SECRET_PREVIOUS'])
      expect(warned({ JWT_SECRET: 'b', [key]: 'a' }, 'a')).toEqual([]);
    expect(warned({ JWT_SECRET: 'b' }, undefined)).toEqual([]);
  });
});
