/** What scripts may rely on: exit codes, one JSON document, plain text in pipes, verbs that exist. On the real program. */
import { execFileSync } from 'node:child_process';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { groups, verbs } from '../../../src/cli/verbs.ts';
import { exitCode } from '../../../src/errors.ts';
import { packageRoot } from '../../../src/package-root.ts';
import { brokenEngine, emptyFolder, gameops, start } from '../../support/program.ts';

const folder = emptyFolder();
const cwd = folder.path;
afterAll(() => folder.remove());
const ansi = String.fromCharCode(27);

describe('usage', () => {
  it.each([
    ['a verb with a typo', ['deplyo'], 'deploy'],
    ['an option with a typo', ['deploy', '--replcas', '2'], '--replicas'],
    ['a global option with a typo', ['status', '--jsn'], '--json'],
    ['a verb of a group with a typo', ['images', 'prepar'], 'prepare'],
  ])('%s exits 2 and suggests what was meant', async (_, args, meant) => {
    const { code, err, out } = await gameops(args, { cwd });
    expect(code).toBe(2);
    expect(err).toMatch(new RegExp(`Did you mean .*${meant}`));
    expect(err).toContain('Next:');
    expect(out).toBe('');
  });

  it.each([
    ['replicas 0', ['deploy', '--replicas', '0'], 'a whole number, 1 to 50'],
    ['51 replicas', ['deploy', '--replicas', '51'], 'a whole number, 1 to 50'],
    ['an unknown strategy', ['deploy', '--strategy', 'yolo'], 'blue-green or rolling'],
    ['a strategy that is not built yet', ['deploy', '--strategy', 'canary'], 'not built yet'],
    ['a duration without a unit', ['deploy', '--watch', '30'], '30s, 5m'],
    ['a release that is no number', ['rollback', '--to', 'last'], 'a whole number'],
    ['an unknown image source', ['images', 'prepare', '--source', 'ftp'], 'debian'],
    ['an argument where none is taken', ['status', 'please'], 'too many arguments'],
    ['no verb', [], 'No verb'],
    ['a group without a verb', ['images'], 'images --help'],
  ])('%s exits 2 and says what is right', async (_, args, expected) => {
    const { code, err, out } = await gameops(args, { cwd });
    expect(code).toBe(2);
    expect(err).toContain(expected);
    expect(out).toBe('');
  });

  it.each([
    ['before the verb', ['--project', 'arena', '--json', 'init']],
    ['after the verb', ['init', '--project', 'arena', '--json']],
    ['on both sides', ['--json', 'init', '--project=arena']],
  ])('global options work %s', async (_, args) => {
    const own = emptyFolder();
    const { code, out } = await gameops(args, { cwd: own.path });
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ command: 'init', ok: true });
    expect(readFileSync(join(own.path, 'gameops.yaml'), 'utf8')).toContain('project: arena');
    own.remove();
  });
});

it('verbs that only read work when no state folder can be made in the home folder', async () => {
  const { code, err } = await gameops(['status'], { cwd, env: { HOME: '/proc', XDG_STATE_HOME: '' } });
  expect(code).toBe(4);
  expect(err).toContain('ENGINE_UNREACHABLE');
});

describe('--help', () => {
  it('lists every verb that is built, and none that is not', async () => {
    const { code, out } = await gameops(['--help'], { cwd });
    expect(code).toBe(0);
    const listed = [...out.matchAll(/^ {2}([a-z]+)(?: \[options\]| \[command\])? {2,}\S/gm)].map(
      ([, name]) => name,
    );
    const names = new Set(verbs.map(({ name }) => name.split(' ')[0]));
    expect(listed.filter((name) => name !== 'help').sort()).toEqual([...names].sort());
    for (const absent of ['maintenance', 'completion', 'monitor', 'cert'])
      expect(listed).not.toContain(absent);
    const { code: unknown } = await gameops(['maintenance', 'on'], { cwd });
    expect(unknown).toBe(2);
  });

  it('the help of every verb and every group has examples and exit codes', async () => {
    const asked = [...verbs.map(({ name }) => name), ...Object.keys(groups)];
    const runs = await Promise.all(asked.map((name) => gameops([...name.split(' '), '--help'], { cwd })));
    for (const [at, { code, out, err }] of runs.entries()) {
      expect([asked[at], code, err]).toEqual([asked[at], 0, '']);
      if (asked[at] !== undefined && asked[at] in groups) continue;
      expect(out).toContain(`\nExamples:\n  gameops ${asked[at]}`);
      expect(out).toContain('Exit codes:');
      expect(out.split('\n').filter((line) => line.length > 80)).toEqual([]);
    }
  });

  it('the help and docs/json.md each tell what every exit code means', async () => {
    const { out } = await gameops(['--help'], { cwd });
    const page = readFileSync(new URL('../../../docs/json.md', import.meta.url), 'utf8');
    const errors = page.slice(page.indexOf('## Errors'), page.indexOf('## Progress'));
    const inPage = [...errors.matchAll(/^\| ([\d, ]+) \|/gm)].flatMap(([, cell = '']) => cell.split(', '));
    const inHelp = out.slice(out.indexOf('Exit codes:')).match(/\d+/g);
    const codes = Object.values(exitCode).map(String);
    expect(new Set(inHelp)).toEqual(new Set(codes));
    expect(new Set(inPage)).toEqual(new Set(codes));
  });

  it('the program accepts every example in the help', () => {
    for (const { name, examples } of verbs)
      for (const example of examples) expect(example.startsWith(`gameops ${name}`)).toBe(true);
  });

  it('--version prints the version of the package, and nothing else', async () => {
    const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'));
    expect(await gameops(['--version'], { cwd })).toMatchObject({ code: 0, out: `${version}\n`, err: '' });
  });
});

it('the verbs of .env load neither the database driver nor the SQL parser', () => {
  const dist = new URL('../../../dist/', import.meta.url);
  const text = (name: string) => readFileSync(new URL(name, dist), 'utf8');
  const isOfDatabases = /libpg-query|SCRAM-SHA-256|pg_catalog/g;
  expect(new Set(text('cli.cjs').match(isOfDatabases)).size).toBe(3);
  expect(text('env.cjs').match(isOfDatabases)).toBeNull();
});

describe('a start', () => {
  /** What node says of a program that is loaded from a folder. */
  const isRefused = (folder: string, name: string) => {
    const loaded = `require('./bin/program.js').load(${JSON.stringify(folder)}, '${name}')`;
    const asked = ['-p', `String(${loaded}.script.cachedDataRejected)`];
    return execFileSync(process.execPath, asked, { cwd: packageRoot(), encoding: 'utf8' }).trim();
  };

  it('goes on from what V8 compiled when the program was built', () => {
    for (const name of ['cli', 'env']) expect(isRefused(join(packageRoot(), 'dist'), name)).toBe('false');
  });

  it('never runs what was compiled from another text of the same length', () => {
    const own = emptyFolder();
    const program = join(own.path, 'cli.cjs');
    cpSync(join(packageRoot(), 'dist'), own.path, { recursive: true });
    const text = readFileSync(program, 'utf8');
    writeFileSync(program, text.replace('GAMEOPS_', 'GAMEOPZ_'));
    expect(isRefused(own.path, 'cli')).toBe('undefined');
    own.remove();
  });
});

describe('--json', () => {
  const cases: [string, string[], number, string][] = [
    ['help', ['--help', '--json'], 0, ''],
    ['help of a verb', ['deploy', '--help', '--json'], 0, 'deploy'],
    ['a version', ['--version', '--json'], 0, ''],
    ['no verb', ['--json'], 2, ''],
    ['a typo', ['deplyo', '--json'], 2, ''],
    ['a bad option', ['deploy', '--replicas', 'x', '--json'], 2, 'deploy'],
    [
      'a bad option of a verb in a group',
      ['images', 'prepare', '--source', 'x', '--json'],
      2,
      'images prepare',
    ],
    ['settings that are missing', ['deploy', '--json'], 3, 'deploy'],
    ['an engine that is away', ['status', '--json'], 4, 'status'],
    ['a diagnosis', ['doctor', '--json'], 4, 'doctor'],
    ['a configuration that is not there', ['status', '--config', 'nowhere.yaml', '--json'], 3, 'status'],
  ];
  it.each(cases)('%s is exactly one document', async (_, args, exit, command) => {
    const own = emptyFolder();
    if (args[0] === 'doctor') await gameops(['init'], { cwd: own.path });
    const { code, out, err } = await gameops(['--project', 'arena', ...args], { cwd: own.path });
    own.remove();
    expect(code).toBe(exit);
    expect(out.trimEnd().split('\n')).toHaveLength(1);
    const document = JSON.parse(out);
    expect(document).toMatchObject({ schema: 'gameops/v1', command, ok: exit === 0 });
    if (exit !== 0) expect(document.error.next.length).toBeGreaterThan(0);
    for (const line of err.split('\n').filter(Boolean)) expect(JSON.parse(line)).toHaveProperty('type');
  });

  it('a verb does not fail when its pipe closes early', async () => {
    const { child, ended } = start(['--help', '--json'], { cwd });
    child.stdout?.destroy();
    expect((await ended).code).toBe(0);
  });

  it('a verb goes on when its progress is written to a full disk', async () => {
    const through = ['sh', '-c', 'exec "$0" "$@" 2>/dev/full'];
    const { code, out } = await gameops(['db', 'lint', '--json'], { cwd, through });
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ ok: true });
  });
});

describe('colour', () => {
  it('a pipe gets no colours, whatever the verb prints', async () => {
    for (const args of [['--help'], ['doctor'], ['deplyo'], ['init']]) {
      const { out, err } = await gameops(['--project', 'arena', ...args], { cwd });
      expect(`${out}${err}`).not.toContain(ansi);
    }
  });

  it('FORCE_COLOR asks for colours, and a refusal overrides it', async () => {
    const asked = { FORCE_COLOR: '1' };
    const coloured = await gameops(['doctor', '--project', 'arena'], { cwd, env: asked });
    expect(coloured.err).toContain(ansi);
    const refused = await gameops(['doctor', '--project', 'arena', '--no-color'], { cwd, env: asked });
    expect(`${refused.out}${refused.err}`).not.toContain(ansi);
    const env = { ...asked, NO_COLOR: '1' };
    const unwanted = await gameops(['doctor', '--project', 'arena'], { cwd, env });
    expect(`${unwanted.out}${unwanted.err}`.replace(/^.*NO_COLOR.*$/gm, '')).not.toContain(ansi);
  });
});

describe('signals', () => {
  let silent: Awaited<ReturnType<typeof brokenEngine>>;
  const asked = join(cwd, 'asked');
  beforeAll(async () => {
    silent = await brokenEngine(cwd, () => writeFileSync(asked, 'yes'));
  });
  afterAll(() => silent.close());

  async function running(args: string[]) {
    const run = start(['--project', 'arena', ...args], { cwd, env: { DOCKER_HOST: silent.host } });
    writeFileSync(asked, '');
    await expect.poll(() => readFileSync(asked, 'utf8'), { timeout: 30_000, interval: 20 }).toBe('yes');
    return run;
  }

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)(
    'the second %s ends at once with exit %i, though the engine never answers',
    async (signal, exit) => {
      const { child, seen, ended } = await running(['status']);
      child.kill(signal);
      await expect.poll(() => seen.err, { timeout: 30_000, interval: 20 }).toContain(signal);
      child.kill(signal);
      expect(await ended).toMatchObject({ code: exit, signal: null });
    },
  );
});

describe('init', () => {
  it('writes secrets that only their owner can read, and keeps files that exist', async () => {
    const own = emptyFolder();
    const first = await gameops(['init', '--project', 'arena', '--json'], { cwd: own.path });
    expect(JSON.parse(first.out).result.files).toEqual([
      { path: join(own.path, '.env'), written: true },
      { path: join(own.path, 'gameops.yaml'), written: true },
    ]);
    const before = readFileSync(join(own.path, '.env'), 'utf8');
    const second = await gameops(['init', '--project', 'arena', '--json'], { cwd: own.path });
    expect(JSON.parse(second.out).result.files.map(({ written }: { written: boolean }) => written)).toEqual([
      false,
      false,
    ]);
    expect(readFileSync(join(own.path, '.env'), 'utf8')).toBe(before);
    own.remove();
  });
});
