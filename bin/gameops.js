#!/usr/bin/env -S node --
// argv in, exit code out. Plain JavaScript, so that it can say what to do when nothing is built yet.
// The first line ends in `--` because Node takes an --env-file after the script for its own, and exits 9 when there is
// no such file (https://github.com/nodejs/node/issues/54232).
import { existsSync } from 'node:fs';

const built = new URL('../dist/cli.js', import.meta.url);
if (!existsSync(built)) {
  process.stderr.write('gameops is not built yet.\nNext:\n  npm ci && npm run build\n');
  process.exit(1);
}
const { main } = await import(built.href);
process.exit(await main(process.argv.slice(2)));
