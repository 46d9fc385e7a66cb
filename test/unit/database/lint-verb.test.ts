/** `gameops db lint` as people, CI and code scanning meet it: formats and exit codes. Its rules are in lint.test.ts. */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { lintFolder, ruleTexts } from '../../../src/database/lint/lint.ts';
import { countsOf } from '../../../src/report/findings/model.ts';
import { sarifDocument } from '../../../src/report/findings/sarif.ts';
import { emptyFolder, type Folder, gameops, type Run } from '../../support/program.ts';
import { sarifMistakes } from '../../support/sarif.ts';

const folders: Folder[] = [];
afterAll(() => {
  for (const folder of folders) folder.remove();
});

/** @param ups file name → SQL of its way forward, or the whole text of a file that is no .sql */
function project(ups: Record<string, string>, dir = 'migrations'): Folder {
  const folder = emptyFolder();
  folders.push(folder);
  folder.write(
    'gameops.yaml',
    `server: { image: ghcr.io/arena/server }\ndatabase: { migrations: "${dir}" }\n`,
  );
  mkdirSync(join(folder.path, dir), { recursive: true });
  for (const [name, up] of Object.entries(ups))
    folder.write(
      join(dir, name),
      name.endsWith('.sql') ? `-- Up Migration\n${up};\n-- Down Migration\nSELECT 1;\n` : up,
    );
  return folder;
}

/** Nothing that it reads changes in between, so each question is asked once. */
const answers = new Map<string, Promise<Run>>();

function lint(folder: Folder, args: readonly string[] = [], env: Record<string, string> = {}): Promise<Run> {
  const question = JSON.stringify([folder.path, args, env]);
  const answer = answers.get(question) ?? gameops(['db', 'lint', ...args], { cwd: folder.path, env });
  answers.set(question, answer);
  return answer;
}

const fine = project({ '1_fine.sql': 'CREATE TABLE n (id bigint)' });
const grave = project({ '1_grave.sql': 'CREATE INDEX i ON t (x)' });
const odd = project({ '1_odd.sql': 'DROP INDEX i' });
const noted = project({ '1_code.mjs': 'export const up = () => {};\n' });
const every = project({
  '1_odd.sql': 'DROP INDEX i',
  '2_code.mjs': 'export const up = () => {};\n',
  '3_grave.sql': 'SELECT 1;\n  CREATE INDEX i ON t (x)',
  '4_wrong.sql': 'SELCT 1',
});

describe('exit codes of db lint', () => {
  it('0 without findings, and the output says so', async () => {
    expect(await lint(fine)).toMatchObject({ code: 0, out: '✓ migrations: no problems found\n' });
  });

  it('9 for an error, in every format', async () => {
    for (const format of [[], ['--json'], ...['json', 'github', 'sarif'].map((name) => ['--format', name])])
      expect([format, (await lint(grave, format)).code]).toEqual([format, 9]);
  });

  it('0 for a warning, and 9 with --strict', async () => {
    expect((await lint(odd)).code).toBe(0);
    const { code, out, err } = await lint(odd, ['--strict']);
    expect(code).toBe(9);
    expect(out).toContain('warning drop-index-not-concurrent');
    expect(err).toContain(
      'MIGRATION_UNSAFE: migrations has 0 errors and 1 warning, and --strict takes no warnings',
    );
    expect(JSON.parse((await lint(odd, ['--strict', '--json'])).out)).toMatchObject({
      ok: false,
      error: { code: 'MIGRATION_UNSAFE', facts: { errors: 0, warnings: 1 } },
      result: { errors: 0, warnings: 1, findings: [{ rule: 'drop-index-not-concurrent' }] },
    });
  });

  it('0 for a note, also with --strict', async () => {
    expect(await lint(noted, ['--strict'])).toMatchObject({
      code: 0,
      out: expect.stringContaining('migrations: 0 errors, 0 warnings, 1 note'),
    });
  });

  it('2 without migrations, and no output that a reader of the format would take for "no problems"', async () => {
    for (const format of ['json', 'github', 'sarif'])
      expect(await lint(project({}), ['--format', format])).toMatchObject({
        code: 2,
        out: '',
        err: expect.stringContaining('NO_MIGRATIONS'),
      });
  });

  it('2 for an unknown format', async () => {
    expect(await lint(fine, ['--format', 'xml'])).toMatchObject({
      code: 2,
      err: expect.stringContaining('sarif'),
    });
  });
});

describe('formats of db lint', () => {
  it('pretty puts a caret under the statement, then says what, why, and the safe way', async () => {
    const { out } = await lint(project({ '1_a.sql': 'SELECT 1;\n\tCREATE INDEX i ON t (x)' }));
    expect(out.split('\n')).toEqual([
      'error index-not-concurrent migrations/1_a.sql:3:2',
      '  3 |  CREATE INDEX i ON t (x);',
      '    |  ^',
      '  builds an index on t while writers wait',
      '  Every write to the table waits until the index is built.',
      '    -- gameops: transaction=off',
      '    CREATE INDEX CONCURRENTLY i ON t (x);',
      '',
      'migrations: 1 error, 0 warnings',
      '',
    ]);
  });

  it('pretty puts the caret where the SQL cannot be parsed, also after letters of several bytes', async () => {
    const { out } = await lint(project({ '1_a.sql': "SELECT 'ü€'; SELCT 1" }));
    const lines = out.split('\n');
    expect(lines[0]).toBe('error syntax migrations/1_a.sql:2:14');
    expect(lines[2]).toBe(`    | ${' '.repeat(13)}^`);
  });

  it('pretty shows a part of a long line, with the caret under the finding', async () => {
    const { out } = await lint(project({ '1_a.sql': `SELECT '${'x'.repeat(300)}'; DROP INDEX i` }));
    const [, line = '', caret = ''] = out.split('\n');
    expect(line.length).toBeLessThan(120);
    expect(line.slice(caret.indexOf('^'))).toMatch(/^DROP INDEX i/);
  });

  it('pretty lets no control character and no text direction mark of a migration reach the terminal', async () => {
    const { out } = await lint(project({ '1_a.sql': 'DROP INDEX "i\u001B[2J\u202Ej\u0085"' }));
    expect(out).toContain('drop-index-not-concurrent');
    expect(out.replaceAll('\n', '')).not.toMatch(/[\p{Cc}\p{Cf}]/u);
  });

  it('json prints the same result as --json', async () => {
    const bare = JSON.parse((await lint(every, ['--format', 'json'])).out);
    const { result } = JSON.parse((await lint(every, ['--json'])).out);
    expect(bare).toEqual(result);
    expect(bare).toMatchObject({ folder: 'migrations', errors: 2, warnings: 1, skipped: 0, sized: false });
    expect(bare.findings[2]).toEqual({
      rule: 'index-not-concurrent',
      severity: 'error',
      file: 'migrations/3_grave.sql',
      key: 't',
      line: 3,
      column: 3,
      message: 'builds an index on t while writers wait',
      why: 'Every write to the table waits until the index is built.',
      rewrite: '-- gameops: transaction=off\nCREATE INDEX CONCURRENTLY i ON t (x);',
    });
  });

  it('github is escaped and sorted, errors first and then by file, and includes the reason and the safe way', async () => {
    const own = project(
      { '1_odd.sql': 'DROP INDEX "50%"', '2_a.sql': 'SELCT', '3_b.sql': 'CREATE INDEX i ON t (x)' },
      'a,b:c',
    );
    const lines = (await lint(own, ['--format', 'github'])).out.trimEnd().split('\n');
    expect(lines.map((line) => line.split('::', 2)[1])).toEqual([
      'error file=a%2Cb%3Ac/2_a.sql,line=2,col=1,title=syntax',
      'error file=a%2Cb%3Ac/3_b.sql,line=2,col=1,title=index-not-concurrent',
      'warning file=a%2Cb%3Ac/1_odd.sql,line=2,col=1,title=drop-index-not-concurrent',
    ]);
    expect(lines[1]).toMatch(
      /::builds an index on t .+%0AEvery write .+%0ASafe way:%0A-- gameops: transaction=off%0ACREATE INDEX CONCURRENTLY/,
    );
    expect(lines[2]).toContain('drops the index 50%25 with');
  });

  it('github writes a summary only when there are more findings than the service shows', async () => {
    const of = async (count: number) => {
      const own = project({
        '1_a.sql': Array.from({ length: count }, (_, at) => `DROP INDEX i${at}`).join(';\n'),
      });
      const summary = own.write('summary.md', '');
      await lint(own, ['--format', 'github'], { GITHUB_STEP_SUMMARY: summary });
      return readFileSync(summary, 'utf8');
    };
    expect(await of(10)).toBe('');
    const rows = (await of(11)).match(
      /\| warning \| drop-index-not-concurrent \| migrations\/1\\_a\.sql:\d+:1 \|/g,
    );
    expect(rows).toHaveLength(11);
  });

  it('sarif is valid SARIF 2.1.0, and lists every rule that has a finding', async () => {
    for (const folder of [fine, every]) {
      const document = JSON.parse((await lint(folder, ['--format', 'sarif'])).out);
      expect(sarifMistakes(document)).toEqual([]);
      expect(document.runs[0].tool.driver.name).toBe('gameops db lint');
    }
  });

  it('sarif gives the path of a file from the folder in which lint was called', async () => {
    const { results } = JSON.parse((await lint(every, ['--format', 'sarif'])).out).runs[0];
    expect(results[2].locations[0].physicalLocation).toEqual({
      artifactLocation: { uri: 'migrations/3_grave.sql' },
      region: { startLine: 3, startColumn: 3 },
    });
  });

  it('sarif gives a finding the same fingerprint when lines move and the table grows', async () => {
    const of = async (up: string, rows: number) => {
      const dir = join(project({ '1_a.sql': up }).path, 'migrations');
      const sizes = new Map([['t', rows]]);
      const findings = await lintFolder({ dir, shownDir: '', applied: new Set(), sizes });
      const report = { tool: '', subject: '', findings, ...countsOf(findings) };
      const { level, partialFingerprints } = JSON.parse(sarifDocument(report, ruleTexts())).runs[0]
        .results[0];
      return { level, prints: partialFingerprints };
    };
    const before = await of('CREATE INDEX i ON t (x)', 10);
    const after = await of('SELECT 1;\n\nCREATE INDEX i ON t (x)', 5_000_000);
    const other = await of('CREATE INDEX i ON u (x)', 10);
    expect([before.level, after.level]).toEqual(['note', 'error']);
    expect(after.prints).toEqual(before.prints);
    expect(other.prints).not.toEqual(before.prints);
  });

  it('every format shows the same findings', async () => {
    const of = async (format: string) => (await lint(every, ['--format', format])).out;
    const expected = [
      ['warning', 'drop-index-not-concurrent'],
      ['info', 'opaque-code'],
      ['error', 'index-not-concurrent'],
      ['error', 'syntax'],
    ];
    const { findings } = JSON.parse(await of('json')) as { findings: { severity: string; rule: string }[] };
    expect(findings.map(({ severity, rule }) => [severity, rule])).toEqual(expected);
    const pretty = [...(await of('pretty')).matchAll(/^(error|warning|info) ([a-z-]+) /gm)];
    expect(pretty.map(([, severity, rule]) => [severity, rule])).toEqual(expected);
    const { results } = JSON.parse(await of('sarif')).runs[0] as {
      results: { level: string; ruleId: string }[];
    };
    expect(results.map(({ level, ruleId }) => [level === 'note' ? 'info' : level, ruleId])).toEqual(expected);
    const github = [...(await of('github')).matchAll(/^::(\w+) .*?title=([a-z-]+)/gm)];
    expect(github.map(([, kind, rule]) => [kind === 'notice' ? 'info' : kind, rule]).sort()).toEqual(
      [...expected].sort(),
    );
  });
});
