#!/usr/bin/env node
/**
 * `npm run test:soak -- deploy [key=value …]`: the full counts of what `npm test` runs a few of. Bounded to an hour an
 * area. GAMEOPS_SOAK_SCALE=0.25 shrinks every count; `deploys=5 kills=15` sets single ones. Exit 1: a number was missed.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const areas = { deploy: 'test/chaos/soak-deploy.ts', database: 'test/chaos/soak-database.ts' };
const hourMs = 3_600_000;

const [area = 'deploy', ...settings] = process.argv.slice(2);
if (!(area in areas)) {
  console.error(`There is no area "${area}"; there is: ${Object.keys(areas).join(', ')}.`);
  process.exit(2);
}

function run(program, args, timeout) {
  const { status, signal, error } = spawnSync(program, args, { cwd: root, stdio: 'inherit', timeout });
  if (error?.code === 'ETIMEDOUT') console.error('The hour is over: stopped.');
  return status ?? (signal ? 1 : 0);
}

// The same preparations as `npm test` makes; they change nothing that is there already.
const project = ['--project', 'gameops-test', '--config', 'test/support/project.yaml'];
const before = [
  ...(existsSync(`${root}node_modules`) ? [] : [['npm', ['ci', '--no-fund', '--no-audit']]]),
  ['npm', ['run', '--silent', 'build']],
  ['node', ['bin/gameops.js', 'host', 'setup', ...project]],
  ['node', ['bin/gameops.js', 'images', 'prepare', ...project]],
];
for (const [program, args] of before) {
  const code = run(program, args, 900_000);
  if (code !== 0) process.exit(code);
}
process.exit(run('node', ['scripts/run.js', areas[area], ...settings], hourMs));
