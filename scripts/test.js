/**
 * `npm test`, from a bare clone: installs, builds, has an engine and images, checks, then runs every suite. Plain
 * JavaScript on Node alone, because at its start nothing else is there. A check or suite that fails does not keep the
 * others from running; a part that they all need does. Ends with the slowest files and what failed; the last line sums up,
 * and the exit code says the same.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runPart } from './test/part.js';
import { forgetFailures, printSummary } from './test/summary.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const gameops = ['node', 'bin/gameops.js', '--config', 'test/support/project.yaml'];
const vitest = ['node', 'node_modules/vitest/vitest.mjs', 'run'];
const tsc = ['node', 'node_modules/typescript/bin/tsc', '--noEmit', '-p'];
const reports = mkdtempSync(join(tmpdir(), 'gameops-test-'));

const needed = [
  { name: 'install', command: ['npm', 'ci', '--no-fund', '--no-audit'], isNeeded: needsInstall },
  { name: 'build', command: ['node', 'scripts/build.js'] },
];
/** What the integration suite needs, too. The checks run beside it. */
const engineNeeds = [
  { name: 'engine', command: [...gameops, 'host', 'setup'] },
  { name: 'images', command: [...gameops, 'images', 'prepare'] },
];
// Not before the images, which may need apt, too. Without it only the page's own tests fail, and say the same.
const browser = { name: 'browser', command: ['node', 'scripts/chromium.js'] };
// More files at a time than cores: most of a deploy's time is the wait for Nginx to let old connections go.
const integration = suite({ name: 'integration', projects: ['integration'], workers: '4' });
const checks = [
  { name: 'types', command: [...tsc, '.'] },
  { name: 'types of the page', command: [...tsc, 'src/client/web'] },
  { name: 'lint', command: ['node', 'node_modules/@biomejs/biome/bin/biome', 'check', '.'] },
  suite({ name: 'unit and simulation', projects: ['unit', 'simulation'], workers: '100%' }),
];

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`npm test needs Node 20.19 or newer; this is ${process.version}.`);
  process.exit(2);
}

const sum = { parts: [], files: [], failures: [], passed: 0 };
forgetFailures();
let isReady = true;
for (const part of needed) if (isReady && (part.isNeeded?.() ?? true)) isReady = await run(part);
if (isReady) await Promise.all([runOnEngine(), runChecks()]);
rmSync(reports, { recursive: true, force: true });
printSummary(sum);
process.exitCode = sum.failures.length === 0 ? 0 : 1;

async function runOnEngine() {
  for (const part of engineNeeds) if (!(await run(part))) return;
  await Promise.all([run(browser, { isHeldBack: true }), run(integration)]);
}

async function runChecks() {
  for (const part of checks) await run(part, { isHeldBack: true });
}

/** @returns {Promise<boolean>} whether it succeeded */
async function run(part, how) {
  const done = await runPart(part, how);
  sum.parts.push(done);
  const seen = part.report && existsSync(part.report) ? JSON.parse(readFileSync(part.report, 'utf8')) : null;
  if (seen !== null) {
    sum.passed += seen.passed;
    sum.files.push(...seen.files);
    sum.failures.push(...seen.failures);
  }
  // A suite can fail without a test that does, such as when it is killed.
  if (done.failure !== null && !seen?.failures.length)
    sum.failures.push({ name: `${part.name}: ${done.failure}`, text: done.output.trim() });
  return done.failure === null;
}

function suite({ name, projects, workers }) {
  const report = join(reports, `${projects[0]}.json`);
  const command = [
    ...vitest,
    ...projects.flatMap((project) => ['--project', project]),
    `--maxWorkers=${workers}`,
    '--reporter=default',
    '--reporter=./scripts/test/reporter.js',
  ];
  return { name, command, report, env: { GAMEOPS_TEST_REPORT: report } };
}

/** node_modules is absent, or older than what the lock file asks for. */
function needsInstall() {
  const installed = join(root, 'node_modules', '.package-lock.json');
  return (
    !existsSync(installed) || statSync(installed).mtimeMs < statSync(join(root, 'package-lock.json')).mtimeMs
  );
}
