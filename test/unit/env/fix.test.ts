/** `env fix` and `env explain`: repairs that change no value, and where a value comes from without ever showing it. */
import { chmodSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fixEnv } from '../../../src/env/file/fix.ts';
import { readTokens, valuesIn } from '../../../src/env/file/tokens.ts';
import { generateEnv } from '../../../src/env/generate.ts';
import { envCases } from '../../support/env-cases.ts';
import { emptyFolder, gameops } from '../../support/program.ts';

const values = (text: string) =>
  [...valuesIn(readTokens(text))].map(([key, { value }]) => [key, value]).sort();
const canary = 'Qz7Kanarie4Vogel9xW';

describe('env fix', () => {
  it('repairs mechanical mistakes, and keeps comments and order', () => {
    const text =
      '\uFEFF# first\r\nexport A = "x" # why\r\n\r\n  B=\'two words\'  \r\nC=pa#ss\r\nA=y\r\nbroken\r\nD="one\ntwo"';
    expect(fixEnv(text).text).toBe('# first\n\nB=two words\nC=pa#ss\nA=y\nbroken\nD="one\ntwo"\n');
  });

  it('moves a comment above its setting', () => {
    expect(fixEnv('A=1 # why\nB="x"\n').text).toBe('# why\nA=1\nB=x\n');
  });

  it.each(envCases)('changes no value, and repairs nothing the second time: %s', (_, text) => {
    const once = fixEnv(text);
    expect(values(once.text)).toEqual(values(text));
    expect(fixEnv(once.text)).toEqual({ text: once.text, repairs: [] });
  });

  it('changes no value of any text', () => {
    const piece = fc.constantFrom(...'AB= #"\'`$\\\n\r\t', 'A=', 'export ', '\r\n', ' # ');
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 30 }), (parts) => {
        const text = parts.join('');
        expect(values(fixEnv(text).text)).toEqual(values(text));
      }),
      { numRuns: 10_000 },
    );
  });

  it('keeps the mode, leaves no temporary file, and shows no value', async () => {
    const own = emptyFolder();
    const path = own.write('.env', `export A = "${canary}"\n`);
    chmodSync(path, 0o640);
    const dry = await gameops(['env', 'fix', '--dry-run', '--verbose'], { cwd: own.path });
    expect(dry).toMatchObject({ code: 0, out: expect.stringContaining('nothing was changed') });
    expect(readFileSync(path, 'utf8')).toContain('export');
    const { code, out, err } = await gameops(['env', 'fix', '--json'], { cwd: own.path });
    expect(code).toBe(0);
    expect(JSON.parse(out).result).toMatchObject({ file: '.env', written: true });
    expect(readFileSync(path, 'utf8')).toBe(`A=${canary}\n`);
    expect(statSync(path).mode & 0o777).toBe(0o640);
    expect(readdirSync(own.path).filter((name) => name.startsWith('.env'))).toEqual(['.env']);
    expect(dry.out + dry.err + out + err).not.toContain(canary);
    own.remove();
  });

  it('needs a file: exit 3 without one, 4 when the named file does not exist, 2 for stdin', async () => {
    const own = emptyFolder();
    const fix = async (...args: string[]) => (await gameops(['env', 'fix', ...args], { cwd: own.path })).code;
    expect([await fix(), await fix('--env-file', 'nowhere'), await fix('--env-file', '-')]).toEqual([
      3, 4, 2,
    ]);
    own.remove();
  });
});

describe('env explain', () => {
  it('says which source of a setting wins and which lose, its purpose and what it accepts', async () => {
    const own = emptyFolder();
    own.write('.env', `${generateEnv('arena')}DB_PASSWORD_FILE=pw.txt\n`);
    own.write('pw.txt', `${canary}\n`);
    own.write('gameops.yaml', `env: { provider: "echo DB_PASSWORD=${canary}" }\n`);
    const ask = async (env: Record<string, string>, ...args: string[]) =>
      gameops(['env', 'explain', ...args, '--verbose'], { cwd: own.path, env });
    const sourcesIn = async (env: Record<string, string>) => {
      const { out } = await ask(env, 'DB_PASSWORD', '--json');
      const { winner, overridden } = JSON.parse(out).result;
      return [winner, ...overridden].map(({ source }: { source: string }) => source);
    };
    writeFileSync(join(own.path, 'other.txt'), canary);
    const environment = { DB_PASSWORD: `${canary}-env`, DB_PASSWORD_FILE: 'other.txt' };
    expect(await sourcesIn(environment)).toEqual(['process', 'process-file', 'file-file', 'command', 'file']);
    expect(await sourcesIn({})).toEqual(['file-file', 'command', 'file']);
    const runs = [
      await ask(environment, 'DB_PASSWORD'),
      await ask({}, 'LOG_LEVEL'),
      await ask({}, 'LOG_LEVLE'),
    ];
    expect(runs.map(({ code }) => code)).toEqual([0, 0, 0]);
    expect(runs[0]?.out).toMatch(/password of DB_USER[\s\S]*is set by {3}the environment[\s\S]*overridden/);
    expect(runs[1]?.out).toContain('trace, debug, info');
    expect(runs[2]?.out).toContain('did you mean LOG_LEVEL?');
    expect(runs[0]?.out).toMatch(/fingerprint [0-9a-f]{12}/);
    for (const { out, err } of runs) expect(out + err).not.toContain(canary);
    own.remove();
  });

  it('shows a fingerprint that is equal for equal values, on one machine only', async () => {
    const own = emptyFolder();
    own.write('.env', `A=${canary}\nB=${canary}\nC=${canary}x\n`);
    const printOf = async (key: string, env: Record<string, string> = {}) => {
      const { out } = await gameops(['env', 'explain', key, '--json'], { cwd: own.path, env });
      return JSON.parse(out).result.winner.fingerprint as string;
    };
    const a = await printOf('A');
    expect([await printOf('B'), await printOf('A')]).toEqual([a, a]);
    expect(await printOf('C')).not.toBe(a);
    expect(await printOf('A', { XDG_STATE_HOME: join(own.path, 'another-machine') })).not.toBe(a);
    // Where nothing can be kept, it is of use within one answer.
    expect(await printOf('A', { XDG_STATE_HOME: '/proc/none' })).toMatch(/^[0-9a-f]{12}$/);
    own.remove();
  });

  it('names a source that fails, without its output', async () => {
    const own = emptyFolder();
    own.write('gameops.yaml', `env: { provider: "echo ${canary} >&2; echo ${canary}; exit 7" }\n`);
    const { code, out, err } = await gameops(['env', 'explain', 'JWT_SECRET', '--verbose'], {
      cwd: own.path,
    });
    expect([code, out]).toEqual([0, expect.stringContaining('exit 7')]);
    expect(out + err).not.toContain(canary);
    own.remove();
  });
});
