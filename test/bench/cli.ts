/**
 * `npm run bench:cli`: what a start of the program costs compared with a start of Node, interleaved, by medians. Limits:
 * `--help` 1.2 ×, `env check` with a gameops.yaml 2 ×. Then the time for a .env of 10,000 lines; limit: 1 s. Exits 1
 * when a limit was missed.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateEnv } from '../../src/env/generate.ts';
import { judge, median, missed, say, table } from './table.ts';

const rounds = 25;
const folder = mkdtempSync(join(tmpdir(), 'gameops-bench-'));
const file = (name: string, text: string) => {
  writeFileSync(join(folder, name), text, { mode: 0o600 });
  return join(folder, name);
};
const env = file('.env', generateEnv('arena'));
const config = file('gameops.yaml', 'project: arena\nserver: { image: bundled, replicas: 2 }\n');
const lines = Array.from(
  { length: 10_000 },
  (_, at) => `SETTING_${at}="a value of some length ${at}" # with a comment`,
);
const large = file('large.env', `${generateEnv('arena')}${lines.join('\n')}\n`);
const check = ['--', 'bin/gameops.js', 'env', 'check', '--config', config, '--env-file'];

const programs = {
  node: { args: ['-e', '0'], called: 'node -e 0' },
  help: { args: ['--', 'bin/gameops.js', '--help'], called: 'gameops --help' },
  check: { args: [...check, env], called: 'gameops env check' },
} as const;
type Name = keyof typeof programs;

function onceMs(args: readonly string[]): number {
  const begun = performance.now();
  const { status } = spawnSync(process.execPath, args, { stdio: 'ignore' });
  if (status !== 0) throw new Error(`node ${args.join(' ')} ended with ${status}; is it built?`);
  return performance.now() - begun;
}

const ms: Record<Name, number[]> = { node: [], help: [], check: [] };
for (const { args } of Object.values(programs)) onceMs(args);
for (let round = 0; round < rounds; round++)
  for (const [name, { args }] of Object.entries(programs)) ms[name as Name].push(onceMs(args));
const node = median(ms.node);
const told = (name: Name) => `${programs[name].called} ${median(ms[name]).toFixed(1)} ms`;
say(`node -e 0 ${node.toFixed(1)} ms, ${told('help')}, ${told('check')}; medians of ${rounds}, interleaved`);
for (const [name, limit] of [['help', 1.2] as const, ['check', 2] as const])
  judge(`${programs[name].called}, × node -e 0`, [median(ms[name]) / node], limit, median);
const largeMs = Array.from({ length: 5 }, () => onceMs([...check, large]));
judge(
  `gameops env check of ${lines.length + 17} lines, a warning or two on each, ms`,
  largeMs,
  1_000,
  median,
);
rmSync(folder, { recursive: true });
table();
process.exitCode = missed() ? 1 : 0;
