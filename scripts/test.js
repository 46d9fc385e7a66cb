/**
 * `npm test`, from a bare clone: installs, builds, has an engine and images, checks, then every suite. Plain
 * JavaScript on Node alone, because at its start nothing else is there. A suite that fails does not keep the next one
 * from being run; what they all need does. The last line sums up, and the exit code says the same.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const gameops = ['node', 'bin/gameops.js', '--config', 'test/support/project.yaml'];
const vitest = ['node', 'node_modules/vitest/vitest.mjs', 'run'];
const tsc = ['node', 'node_modules/typescript/bin/tsc', '--noEmit', '-p'];
const reports = mkdtempSync(join(tmpdir(), 'gameops-test-'));

const grounds = [
  { name: 'install', command: ['npm', 'ci', '--no-fund', '--no-audit'], isNeeded: needsInstall },
  { name: 'build', command: ['node', 'scripts/build.js'] },
  { name: 'engine', command: [...gameops, 'host', 'setup'] },
  { name: 'images', command: [...gameops, 'images', 'prepare'] },
];
const checks = [
  // No ground for the rest: without it only the page's own tests fail, and say the same.
  { name: 'browser', command: ['node', 'scripts/chromium.js'] },
  { name: 'types', command: [...tsc, '.'] },
  { name: 'types of the page', command: [...tsc, 'src/client/web'] },
  { name: 'lint', command: ['node', 'node_modules/@biomejs/biome/bin/biome', 'check', '.'] },
];
// Two files at a time on the engine: more of them, and what is measured is the machine.
const suites = [
  { name: 'unit and simulation', projects: ['unit', 'simulation'], workers: '100%' },
  { name: 'integration', projects: ['integration'], workers: '2' },
];

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`npm test needs Node 20.19 or newer; this is ${process.version}.`);
  process.exit(2);
}

const sum = { passed: 0, failed: 0 };
const done = [];
const ground = grounds.filter(({ isNeeded }) => isNeeded?.() ?? true);
if (ground.every(run)) {
  for (const check of checks) run(check);
  for (const suite of suites) count(suite);
}
rmSync(reports, { recursive: true, force: true });
console.log(`\n${done.join(' · ')}\n${sum.passed} passed, ${sum.failed} failed`);
process.exitCode = sum.failed === 0 ? 0 : 1;

/** A part that fails counts as one failure. */
function run(part) {
  const isGood = attempt(part);
  if (!isGood) sum.failed += 1;
  return isGood;
}

function attempt({ name, command: [program, ...rest] }) {
  console.log(`\n== ${name}: ${[program, ...rest].join(' ')}`);
  const began = Date.now();
  const { status, signal, error } = spawnSync(program, rest, { cwd: root, stdio: 'inherit' });
  const seconds = `${((Date.now() - began) / 1000).toFixed(1)} s`;
  done.push(status === 0 ? `${name} ${seconds}` : `${name} FAILED after ${seconds}`);
  if (status !== 0) console.error(`${name}: ${error?.message ?? signal ?? `exit ${status}`}`);
  return status === 0;
}

function count({ name, projects, workers }) {
  const report = join(reports, `${projects[0]}.json`);
  const command = [
    ...vitest,
    ...projects.flatMap((project) => ['--project', project]),
    `--maxWorkers=${workers}`,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${report}`,
  ];
  const isGood = attempt({ name, command });
  const seen = existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')) : {};
  const failed = seen.numFailedTests ?? 0;
  sum.passed += seen.numPassedTests ?? 0;
  // A file that can't be loaded has no tests that could fail.
  sum.failed += isGood ? failed : Math.max(1, failed);
}

/** node_modules is absent, or older than what the lock file asks for. */
function needsInstall() {
  const installed = join(root, 'node_modules', '.package-lock.json');
  return (
    !existsSync(installed) || statSync(installed).mtimeMs < statSync(join(root, 'package-lock.json')).mtimeMs
  );
}
