/**
 * The samples of lint, counted: each rule has a test that finds its bad ones and one that is silent on its good ones, and
 * they are run as they are, so that what is counted is what `npm test` asks.
 */
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../src/package-root.ts';

export interface LintSamples {
  /** Rules that find all of their bad samples. */
  found: number;
  misses: string[];
  /** Rules that report nothing for their good samples. */
  silent: number;
  falseAlarms: string[];
}

interface Told {
  title: string;
  status: string;
  failureMessages: string[];
}

export async function lintSamples(): Promise<LintSamples> {
  const folder = await mkdtemp(join(tmpdir(), 'gameops-lint-samples-'));
  const file = join(folder, 'told.json');
  const vitest = join(packageRoot(), 'node_modules', 'vitest', 'vitest.mjs');
  const asked = ['run', '--project', 'unit', '--reporter=json', `--outputFile=${file}`];
  const ran = spawnSync(process.execPath, [vitest, ...asked, 'test/unit/database/lint.test.ts'], {
    cwd: packageRoot(),
    encoding: 'utf8',
  });
  const text = await readFile(file, 'utf8').catch(() => null);
  await rm(folder, { recursive: true });
  if (text === null) throw new Error(`the tests of lint told nothing: ${ran.stdout}${ran.stderr}`);
  const { testResults } = JSON.parse(text) as { testResults: { assertionResults: Told[] }[] };
  const all = testResults.flatMap(({ assertionResults }) => assertionResults);
  const [bad, good] = [/^\S+ is found, /, /^\S+ says nothing /].map((title) =>
    all.filter((one) => title.test(one.title)),
  ) as [Told[], Told[]];
  return {
    found: passed(bad).length,
    misses: failed(bad),
    silent: passed(good).length,
    falseAlarms: failed(good),
  };
}

const passed = (told: readonly Told[]) => told.filter(({ status }) => status === 'passed');

const failed = (told: readonly Told[]): string[] =>
  told
    .filter(({ status }) => status !== 'passed')
    .map(({ title, failureMessages }) => `${title}: ${failureMessages[0]?.split('\n')[0] ?? 'not run'}`);
