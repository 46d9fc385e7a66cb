/**
 * Runs a TypeScript program of this repository on Node 20, which knows no types: `node scripts/run.js test/bench/cli.ts`.
 */
import { mkdir } from 'node:fs/promises';
import { basename } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const [program, ...rest] = process.argv.slice(2);
if (!program) {
  process.stderr.write('Usage: node scripts/run.js <program.ts> [arguments]\n');
  process.exit(2);
}
// Inside node_modules, so that packages are found from there and nobody takes it for a source.
const outdir = `${root}node_modules/.cache/gameops-run/${process.pid}`;
await mkdir(outdir, { recursive: true });
await build({
  absWorkingDir: root,
  entryPoints: [program],
  outdir,
  bundle: true,
  packages: 'external',
  platform: 'node',
  target: 'node20',
  format: 'esm',
  sourcemap: 'inline',
  logLevel: 'warning',
});
process.argv = [process.argv[0], program, ...rest];
await import(pathToFileURL(`${outdir}/${basename(program).replace(/\.ts$/, '.js')}`).href);
