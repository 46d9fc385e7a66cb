/** `npm run bench:cli`: what `gameops --help` costs beside Node's own start, interleaved, by medians. Limit: 1.25 ×. */
import { spawnSync } from 'node:child_process';

const rounds = 25;
const programs = { node: ['-e', '0'], gameops: ['--', 'bin/gameops.js', '--help'] };

function onceMs(args: readonly string[]): number {
  const begun = performance.now();
  const { status } = spawnSync(process.execPath, args, { stdio: 'ignore' });
  if (status !== 0) throw new Error(`node ${args.join(' ')} ended with ${status}; is it built?`);
  return performance.now() - begun;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

const ms: Record<keyof typeof programs, number[]> = { node: [], gameops: [] };
for (const args of Object.values(programs)) onceMs(args);
for (let round = 0; round < rounds; round++) {
  ms.node.push(onceMs(programs.node));
  ms.gameops.push(onceMs(programs.gameops));
}
const [node, gameops] = [median(ms.node), median(ms.gameops)];
process.stdout.write(
  `node -e 0: ${node.toFixed(1)} ms · gameops --help: ${gameops.toFixed(1)} ms · ratio ${(gameops / node).toFixed(2)} (limit 1.25, medians of ${rounds}, interleaved)\n`,
);
