/** `gameops env check` as people, CI and code scanning meet it: formats, exit codes, and that no value is ever shown. */
import { execFileSync } from 'node:child_process';
import { chmodSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { generateEnv } from '../../../src/env/generate.ts';
import { emptyFolder, type Folder, gameops } from '../../support/program.ts';
import { sarifMistakes } from '../../support/sarif.ts';

const folder = emptyFolder();
afterAll(() => folder.remove());

const complete = generateEnv('arena');
const written = (key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(complete)?.[1] ?? '';

function check(
  args: readonly string[] = [],
  env: Record<string, string> = {},
  stdin?: string,
  at: Folder = folder,
) {
  return gameops(['env', 'check', ...args], { cwd: at.path, env, ...(stdin !== undefined && { stdin }) });
}

describe('exit codes of env check', () => {
  it('0 without findings, and the output says so', async () => {
    folder.write('.env', complete);
    expect(await check()).toMatchObject({ code: 0, out: '✓ .env: no problems found\n', err: '' });
  });

  it('0 for a server of your own without a .env, and the output says what was checked', async () => {
    const own = emptyFolder();
    own.write('gameops.yaml', 'server: { image: "a/server:1" }\n');
    const { code, out } = await check([], {}, undefined, own);
    expect([code, out]).toEqual([0, '✓ the environment (there is no .env): no problems found\n']);
    own.remove();
  });

  it('3 for an error; 0 for a warning, and 3 with --strict', async () => {
    folder.write('bad.env', `${complete}hello world\n`);
    folder.write('odd.env', `${complete}MOTD=a\n`);
    expect((await check(['--env-file', 'bad.env'])).code).toBe(3);
    expect((await check(['--env-file', 'odd.env'])).code).toBe(0);
    const strict = await check(['--env-file', 'odd.env', '--strict', '--json']);
    expect(strict.code).toBe(3);
    expect(JSON.parse(strict.out)).toMatchObject({
      ok: false,
      error: { code: 'ENV_INVALID', next: expect.arrayContaining(['gameops env check --env-file odd.env']) },
      result: { file: 'odd.env', errors: 0, warnings: 1, findings: [{ rule: 'unknown-key', key: 'MOTD' }] },
    });
  });

  it('4 for a named file that does not exist or is a folder', async () => {
    for (const name of ['nowhere.env', '.']) {
      const { code, err } = await check(['--env-file', name]);
      expect([name, code]).toEqual([name, 4]);
      expect(err).toContain('ENV_UNREADABLE');
    }
    expect((await check(['--example', 'nowhere.example'])).code).toBe(4);
  });

  it('3 without a file and without settings; 0 when the environment has all settings, as in CI', async () => {
    const empty = emptyFolder();
    const bare = await check([], {}, undefined, empty);
    expect(bare.code).toBe(3);
    expect(bare.err).toContain('ENV_MISSING');
    const environment = Object.fromEntries(
      [...complete.matchAll(/^([A-Z_]+)=(.*)$/gm)].map(([, key, value]) => [key, value]),
    );
    expect(await check([], environment, undefined, empty)).toMatchObject({ code: 0 });
    const { JWT_SECRET: _, ...partly } = environment;
    const { code, out } = await check(['--format', 'json'], partly, undefined, empty);
    expect([code, JSON.parse(out).findings]).toEqual([
      3,
      [expect.objectContaining({ rule: 'missing-key', key: 'JWT_SECRET', line: null })],
    ]);
    empty.remove();
  });

  it('stdin is read for --env-file -', async () => {
    const { code, out } = await check(['--env-file', '-'], {}, `${complete}oops\n`);
    expect(code).toBe(3);
    expect(out).toContain('error syntax stdin:17:1');
  });

  it('gameops.yaml says what an image of your own needs, and which rules hold', async () => {
    const own = emptyFolder();
    own.write(
      'gameops.yaml',
      'server: { image: "ghcr.io/a/b" }\nenv:\n  keys: { ROOMS: { type: integer, required: true } }\n  rules: { file-mode: off }\n',
    );
    own.write('.env', 'ROOMS=many\n', 0o644);
    const { out } = await check(['--format', 'json'], {}, undefined, own);
    expect(JSON.parse(out).findings).toMatchObject([
      { rule: 'wrong-value', key: 'ROOMS', line: 1, column: 7 },
    ]);
    own.write('gameops.yaml', 'env: { rules: { no-such-rule: off } }\n');
    expect(await check([], {}, undefined, own)).toMatchObject({
      code: 3,
      err: expect.stringContaining('CONFIG_INVALID'),
    });
    own.write('gameops.yaml', 'env: { keys: { A: { type: colour } } }\n');
    expect(await check([], {}, undefined, own)).toMatchObject({
      code: 3,
      err: expect.stringContaining('gameops.yaml:1: env.keys.A.type'),
    });
    own.remove();
  });
});

describe('the file .env itself', () => {
  it('has a finding for its mode, for a link, when git tracks it, and when git does not ignore it', async () => {
    const own = emptyFolder();
    const git = (...args: string[]) => execFileSync('git', ['-C', own.path, ...args], { stdio: 'ignore' });
    const found = async () => {
      const { out } = await check(['--format', 'json'], {}, undefined, own);
      return (JSON.parse(out).findings as { rule: string }[]).map(({ rule }) => rule).sort();
    };
    own.write('.env', complete);
    expect(await found()).toEqual([]);
    git('init');
    expect(await found()).toEqual(['not-ignored-by-git']);
    git('add', '.env');
    expect(await found()).toEqual(['tracked-by-git']);
    git('rm', '--cached', '.env');
    own.write('.gitignore', '.env*\n');
    expect(await found()).toEqual([]);
    chmodSync(join(own.path, '.env'), 0o640);
    expect(await found()).toEqual(['file-mode']);
    symlinkSync('.env', join(own.path, '.env.link'));
    const { out } = await check(['--format', 'json', '--env-file', '.env.link'], {}, undefined, own);
    expect(JSON.parse(out).findings).toContainEqual(expect.objectContaining({ rule: 'file-symlink' }));
    own.remove();
  });
});

describe('formats of env check', () => {
  it('pretty puts a caret under the finding, and shows dots for the value', async () => {
    folder.write('spot.env', `${complete}PORT=30#00\n`);
    const { out } = await check(['--env-file', 'spot.env']);
    const lines = out.split('\n');
    const at = lines.findIndex((line) => line.includes('cut-value'));
    expect(lines[at]).toBe('error cut-value spot.env:17:8');
    expect(lines[at + 1]).toBe('  17 | PORT=•••••');
    expect(lines[at + 2]).toBe('     |        ^');
  });

  it('github is escaped and sorted, errors first and then by line', async () => {
    folder.write('a,b:c%.env', 'DB_PASSWORD=a#b\nhello\nPORT = 1\n');
    const { out } = await check(['--env-file', 'a,b:c%.env', '--format', 'github']);
    const lines = out.trimEnd().split('\n');
    expect(
      lines.every((line) =>
        /^::(error|warning) file=a%2Cb%3Ac%25\.env,line=\d+,col=\d+,title=[a-z-]+::.+$/.test(line),
      ),
    ).toBe(true);
    const kinds = lines.map((line) => (line.startsWith('::error') ? 0 : 1));
    expect(kinds).toEqual([...kinds].sort());
    expect(lines.filter((line) => line.includes('%0A') || line.includes('%25'))).not.toEqual([]);
  });

  it('github writes a summary only when there are more findings than the service shows', async () => {
    const summary = folder.write('summary.md', '');
    folder.write('few.env', `${complete}oops\n`);
    await check(['--env-file', 'few.env', '--format', 'github'], { GITHUB_STEP_SUMMARY: summary });
    expect(readFileSync(summary, 'utf8')).toBe('');
    folder.write('many.env', `${complete}${'oops\n'.repeat(30)}`);
    await check(['--env-file', 'many.env', '--format', 'github'], { GITHUB_STEP_SUMMARY: summary });
    expect(readFileSync(summary, 'utf8').match(/\| error \| syntax \|/g)).toHaveLength(30);
  });

  it('sarif is valid SARIF 2.1.0', async () => {
    folder.write('bad.env', 'DB_PASSWORD=a#b\nhello\nPORT = 1\nPORT=2\n', 0o644);
    folder.write('fine.env', complete);
    for (const name of ['bad.env', 'fine.env', '-']) {
      const { out } = await check(['--env-file', name, '--format', 'sarif'], {}, 'A="\n');
      expect(sarifMistakes(JSON.parse(out))).toEqual([]);
    }
  });

  it('every format shows the same findings', async () => {
    folder.write('same.env', 'DB_PASSWORD=a#b\nhello\nPORT = 1\nPORT=2\n', 0o644);
    const of = async (format: string) => (await check(['--env-file', 'same.env', '--format', format])).out;
    const rules = (JSON.parse(await of('json')).findings as { rule: string }[]).map(({ rule }) => rule);
    const sarif = (JSON.parse(await of('sarif')).runs[0].results as { ruleId: string }[]).map(
      ({ ruleId }) => ruleId,
    );
    const github = [...(await of('github')).matchAll(/title=([a-z-]+)/g)].map(([, rule]) => rule);
    const pretty = [...(await of('pretty')).matchAll(/^(?:error|warning) ([a-z-]+) /gm)].map(
      ([, rule]) => rule,
    );
    expect(sarif).toEqual(rules);
    expect(github).toEqual(rules);
    expect(pretty).toEqual(rules);
  });
});

describe('a value is never shown', () => {
  /** Every one of these stands for a secret; none is a word of ours. */
  const canary = (at: number) => `Qz7Kanarie${at}Vogel9xW`;
  const canaries = Array.from({ length: 24 }, (_, at) => canary(at));
  const [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = canaries as [string, ...string[]];
  const files: Record<string, string> = {
    structure: `export A=${a}\nB = ${b}\nDB_PASSWORD=${c}#${d}\n${e} ${f}\n${g}\nA=${h}\nU="${i}\nV='${j}' ${k}\nW=$${l} # ${m}\n# ${n}\n${o}: ${p}\n`,
    encoded: `KEY=-----BEGIN\n${a}${b}=\n${c}${d}==\n=${e}\n`,
    values: `PORT=${a}\nDB_PORT=${b}\nNODE_ENV=${c}\nLOG_LEVEL=${d}\nREDIS_URL=redis://:${e}/x@${f}\nJWT_SECRET=${g}\nDATABASE_URL=postgres://${h}:${i}@${j}:1/${k}\nDB_PASSWORD=${l}\nAPI_URL=https://u:${m}/${n}@h\n`,
    secrets: `${complete}DB_PASSWORD=${a}\nOTHER_SECRET=${a}\nTOKEN=${b}${b}${b}\nSHORT_KEY=${c}\n`,
    pointers: `JWT_SECRET_FILE=${a}\nDB_PASSWORD_FILE=/${b}/${c}\nREDIS_URL_FILE=.\n`,
    odd: `\uFEFFA=${a}\r\nB=${b}\rC=${c}\u2028${d}\nD=\`${e}\n${f}\`\n`,
  };
  const environment = Object.fromEntries([
    ...['JWT_SECRET', 'PORT', 'REDIS_URL', 'LOG_LEVEL'].map((key, at) => [key, canary(16 + at)]),
    ['DB_PASSWORD_FILE', `/${canary(20)}`],
  ]);
  const yaml = `env:\n  provider: "echo ${canary(21)}; echo ${canary(22)} >&2; exit 1"\n  keys: { X: { type: integer, command: "echo ${canary(23)}" } }\n`;
  const leaked = (text: string) =>
    canaries.filter((one) => text.includes(one) || text.includes(one.slice(0, 9)));

  const formats = [
    [],
    ['--json'],
    ...['pretty', 'json', 'github', 'sarif'].map((name) => ['--format', name]),
  ];
  const cases = Object.keys(files).flatMap((file) =>
    formats.flatMap((format) => [[file, format, {}] as const, [file, format, environment] as const]),
  );

  it.each(cases)('by env check of the file "%s" with %j', async (file, format, env) => {
    const own = emptyFolder();
    const summary = own.write('summary.md', '');
    const name = own.write('x.env', files[file] ?? '');
    own.write('.env.example', files[file] ?? '');
    if (env === environment) own.write('gameops.yaml', yaml);
    const args = ['--env-file', name, '--strict', '--verbose', ...format];
    const { code, out, err } = await check(args, { ...env, GITHUB_STEP_SUMMARY: summary }, undefined, own);
    expect(leaked(`${out}${err}${readFileSync(summary, 'utf8')}`)).toEqual([]);
    expect(code).toBe(3);
    own.remove();
  });

  it.each(Object.keys(files))('by env fix, env explain or init with the file "%s"', async (file) => {
    const own = emptyFolder();
    own.write('.env', files[file] ?? '');
    own.write('gameops.yaml', yaml);
    for (const verb of [
      ['env', 'fix', '--dry-run'],
      ['env', 'explain', 'JWT_SECRET'],
      ['env', 'explain', 'X'],
      ['init'],
      ['env', 'fix'],
    ])
      for (const json of [[], ['--json']]) {
        const run = await gameops([...verb, '--project', 'arena', '--verbose', ...json], {
          cwd: own.path,
          env: environment,
        });
        expect([verb, leaked(run.out + run.err)]).toEqual([verb, []]);
        expect([verb, run.code]).toEqual([verb, 0]);
      }
    own.remove();
  });

  it('by a deploy that refuses the file', async () => {
    for (const text of Object.values(files)) {
      const own = emptyFolder();
      own.write('.env', text);
      const { code, out, err } = await gameops(['deploy', '--verbose', '--json'], {
        cwd: own.path,
        env: environment,
      });
      expect(leaked(out + err)).toEqual([]);
      expect(code).toBe(3);
      own.remove();
    }
  });

  it('and this test would notice a canary that is printed', () => {
    expect(leaked(`x${canary(3)}y`)).toContain(canary(3));
    expect(written('JWT_SECRET').length).toBe(43);
  });
});
