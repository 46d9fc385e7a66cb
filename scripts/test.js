/**
 * `npm test`, from a bare clone: installs, builds, checks, then every suite, the real engine last. Plain JavaScript on
 * Node alone, because at its start nothing else is there. Stops at the first part that fails and says which.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const gameops = [
  'node',
  'bin/gameops.js',
  '--project',
  'gameops-test',
  '--config',
  'test/support/project.yaml',
];

const parts = [
  { name: 'install', command: ['npm', 'ci', '--no-fund', '--no-audit'], isNeeded: needsInstall },
  { name: 'build', command: ['npm', 'run', '--silent', 'build'] },
  { name: 'check', command: ['npm', 'run', '--silent', 'check'] },
  { name: 'unit and simulation', command: ['npm', 'run', '--silent', 'test:unit'] },
  { name: 'engine', command: [...gameops, 'host', 'setup'] },
  { name: 'images', command: [...gameops, 'images', 'prepare'] },
  { name: 'integration', command: ['npm', 'run', '--silent', 'test:integration'] },
];

const done = [];
for (const { name, command, isNeeded } of parts) {
  if (isNeeded && !isNeeded()) continue;
  process.stdout.write(`\n== ${name}: ${command.join(' ')}\n`);
  const begun = Date.now();
  const [program, ...rest] = command;
  const { status, signal, error } = spawnSync(program, rest, { cwd: root, stdio: 'inherit' });
  const seconds = ((Date.now() - begun) / 1000).toFixed(1);
  if (status !== 0) {
    process.stdout.write(
      `\nFAILED: ${name} after ${seconds} s (${error?.message ?? signal ?? `exit ${status}`}); done before: ${done.join(', ') || 'nothing'}\n`,
    );
    process.exit(1);
  }
  done.push(`${name} ${seconds} s`);
}
process.stdout.write(`\nPASSED: ${done.join(' · ')}\n`);

/** node_modules is absent, or older than what the lock file asks for. */
function needsInstall() {
  const installed = `${root}node_modules/.package-lock.json`;
  return !existsSync(installed) || statSync(installed).mtimeMs < statSync(`${root}package-lock.json`).mtimeMs;
}
