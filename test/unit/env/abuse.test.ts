/** .env as it must never be met and will be: devices, pipes, folders, links, NUL bytes, many hands at once, and every verb with secrets in its way. */
import { execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { verbs } from '../../../src/cli/verbs.ts';
import { replaceFile } from '../../../src/env/file/write.ts';
import { generateEnv } from '../../../src/env/generate.ts';
import { emptyFolder, type Folder, gameops } from '../../support/program.ts';

const plain = generateEnv('arena');

async function inFolder<T>(use: (own: Folder) => Promise<T>): Promise<T> {
  const own = emptyFolder();
  try {
    return await use(own);
  } finally {
    own.remove();
  }
}

const run = (own: Folder, ...args: string[]) => gameops([...args, '--project', 'arena'], { cwd: own.path });

describe('a .env that is no plain text file', () => {
  it.each(['/dev/zero', '/proc/self', '/nowhere/.env'])(
    '%s is refused at once, with an error',
    async (path) => {
      await inFolder(async (own) => {
        for (const verb of [['env', 'check'], ['env', 'fix'], ['env', 'explain', 'PORT'], ['deploy']]) {
          const { code, err } = await run(own, ...verb, '--env-file', path);
          expect([verb, code]).toEqual([verb, verb[0] === 'deploy' && path.startsWith('/nowhere') ? 3 : 4]);
          expect(err).toMatch(/ENV_UNREADABLE|ENV_MISSING/);
        }
      });
    },
  );

  it('a KEY_FILE that never ends is reported as unreadable', async () => {
    await inFolder(async (own) => {
      own.write('.env', `${plain}JWT_SECRET_FILE=/dev/zero\n`);
      const { code, out } = await run(own, 'env', 'check', '--format', 'json');
      expect([code, JSON.parse(out).findings]).toEqual([
        3,
        [expect.objectContaining({ rule: 'unreadable-source' })],
      ]);
    });
  });

  it('a pipe is read to its end, and never replaced by a file', async () => {
    await inFolder(async (own) => {
      const pipe = join(own.path, 'pipe.env');
      execFileSync('mkfifo', ['-m', '600', pipe]);
      for (const [verb, code] of [
        ['check', 0],
        ['fix', 4],
      ] as const) {
        const writer = spawn('sh', ['-c', 'cat > "$0"', pipe], { stdio: ['pipe', 'ignore', 'ignore'] });
        writer.stdin.end(verb === 'fix' ? `${plain}export A=1\n` : plain);
        expect([verb, (await run(own, 'env', verb, '--env-file', pipe)).code]).toEqual([verb, code]);
      }
      expect(statSync(pipe).isFIFO()).toBe(true);
    });
  });

  it('a symbolic link stays and its target is repaired; a link to nothing is refused', async () => {
    await inFolder(async (own) => {
      own.write('real.env', `export A=1\n${plain}`, 0o640);
      symlinkSync('real.env', join(own.path, '.env'));
      expect((await run(own, 'env', 'fix')).code).toBe(0);
      expect(readFileSync(join(own.path, 'real.env'), 'utf8')).toBe(`A=1\n${plain}`);
      expect(statSync(join(own.path, 'real.env')).mode & 0o777).toBe(0o640);
      symlinkSync('nowhere', join(own.path, 'b.env'));
      expect((await run(own, 'env', 'fix', '--env-file', 'b.env')).code).toBe(4);
    });
  });

  it('a NUL byte is reported with its column, and deploy refuses the file', async () => {
    await inFolder(async (own) => {
      own.write('.env', plain.replace('DB_NAME=arena', 'DB_NAME=are\0na'));
      const { out } = await run(own, 'env', 'check', '--format', 'json');
      expect(JSON.parse(out).findings).toContainEqual(
        expect.objectContaining({ rule: 'syntax', column: 12 }),
      );
      expect((await run(own, 'deploy')).code).toBe(3);
    });
  });

  it('lines of 3 million quotes, hashes or dollars are read', async () => {
    await inFolder(async (own) => {
      own.write(
        '.env',
        `${plain}${['"', "'", '#', '$', '\\', '='].map((one, at) => `K${at}=${one.repeat(3_000_000)}\n`).join('')}`,
      );
      for (const verb of ['check', 'fix'])
        expect((await run(own, 'env', verb)).code).toBe(verb === 'fix' ? 0 : 3);
    });
  });
});

describe('several writers of one .env', () => {
  it('twelve repairs at once leave one whole file and nothing beside it', async () => {
    await inFolder(async (own) => {
      own.write('.env', `export A=1\n${plain}`);
      const runs = await Promise.all(Array.from({ length: 12 }, () => run(own, 'env', 'fix')));
      expect(runs.map(({ code }) => code)).toEqual(Array(12).fill(0));
      expect(readFileSync(join(own.path, '.env'), 'utf8')).toBe(`A=1\n${plain}`);
      expect(readdirSync(own.path).filter((name) => name.startsWith('.env'))).toEqual(['.env']);
    });
  });

  it('the temporary file of a killed process is removed by the next write, that of a running process stays', () => {
    const own = emptyFolder();
    own.write('.env', 'A=1\n', 0o600);
    const dead = spawn('true');
    return new Promise<void>((resolve) => {
      dead.on('close', () => {
        writeFileSync(join(own.path, `.env-${dead.pid}.new`), 'A=secret\n');
        writeFileSync(join(own.path, `.env-${process.ppid}.new`), 'A=other\n');
        replaceFile(join(own.path, '.env'), 'A=2\n');
        expect(readdirSync(own.path).sort()).toEqual(['.env', `.env-${process.ppid}.new`]);
        expect(readFileSync(join(own.path, '.env'), 'utf8')).toBe('A=2\n');
        own.remove();
        resolve();
      });
    });
  });
});

describe('a file that a group may read', () => {
  const isRoot = process.getuid?.() === 0;
  const own = process.getegid?.() ?? 0;
  const other = isRoot ? 4_242 : (process.getgroups?.().find((group) => group !== own) ?? own);
  afterEach(() => {
    vi.restoreAllMocks();
  });

  it.each([true, false])('keeps its group and its mode when it is replaced (root: %s)', async (asRoot) => {
    // A user who may not give files away keeps the group all the same.
    vi.spyOn(process, 'getuid').mockReturnValue(asRoot && isRoot ? 0 : 1_000);
    await inFolder(async (folder) => {
      folder.write('.env', 'A=1\n', 0o640);
      const path = join(folder.path, '.env');
      chownSync(path, -1, other);
      chmodSync(path, 0o640);
      replaceFile(path, 'A=2\n');
      const { gid, mode } = statSync(path);
      expect([gid, mode & 0o777, readFileSync(path, 'utf8')]).toEqual([other, 0o640, 'A=2\n']);
    });
  });
});

describe('no verb shows a value', () => {
  const canaries = Array.from({ length: 8 }, (_, at) => `Qz7Kanarie${at}Vogel9xWkYp3LmT5rB8nC2vD6fG1hJ4`);
  const [a, b, c, d, e, f, g, h] = canaries as [string, ...string[]];
  const files: Record<string, string> = {
    whole: `NODE_ENV=production\nDB_HOST=postgres\nDB_NAME=arena\nDB_USER=arena\nDB_PASSWORD=${a}\nREDIS_URL=redis://:${b}@redis:6379/0\nJWT_SECRET=${c}\nJWT_SECRET_NEXT=${d}\nJWT_SECRET_PREVIOUS=${e}\nDATABASE_URL=postgres://arena:${a}@postgres:5432/arena\nSTRIPE_KEY=${f}\n`,
    broken: `DB_PASSWORD="${a}\nJWT_SECRET=${b}#${c}\n${d}\nREDIS_URL=redis://:${e}/x@redis\nexport ${f} ${g}\nPORT=${h}\n`,
  };
  const words: Record<string, string[]> = {
    'env explain': ['DB_PASSWORD'],
    'env rotate': ['jwt'],
    'db create': ['add-guilds'],
    'db restore': ['20260131-040000-1a2b'],
    load: ['--players', '1'],
  };
  const environment = { DB_ADMIN_URL: `postgres://root:${g}@127.0.0.1:1/arena`, DB_PASSWORD_FILE: `/${h}` };
  const cases = Object.keys(files).flatMap((file) => verbs.map(({ name }) => [name, file] as const));

  it.each(cases)('%s, .env is %s', async (name, file) => {
    await inFolder(async (own) => {
      own.write('.env', files[file] ?? '');
      for (const json of [[], ['--json']]) {
        const args = [...name.split(' '), ...(words[name] ?? []), '--project', 'arena', '--verbose', ...json];
        const { out, err } = await gameops(args, { cwd: own.path, env: file === 'whole' ? {} : environment });
        const text = out + err;
        expect(canaries.filter((one) => text.includes(one) || text.includes(one.slice(0, 11)))).toEqual([]);
        expect(text).not.toContain('BUG');
      }
    });
  });
});
