#!/usr/bin/env -S node --
// argv in, exit code out. Plain JavaScript, so that it can say what to do when nothing is built yet; CommonJS, because
// Node starts that faster, and help is asked for often.
// The first line ends in `--` because Node takes an --env-file after the script for its own, and exits 9 when there is
// no such file (https://github.com/nodejs/node/issues/54232).
const { existsSync } = require('node:fs');
const { join } = require('node:path');

const argv = process.argv.slice(2);
const dist = join(__dirname, '..', 'dist');

if (!existsSync(join(dist, 'cli.cjs'))) {
  process.stderr.write('gameops is not built yet.\nNext:\n  npm ci && npm run build\n');
  process.exit(1);
}
const asksHelp = argv.includes('--help') || argv.includes('-h');
const help = asksHelp ? require(join(dist, 'help.cjs')).helpText(argv) : null;
// The first words that are no option, and do not belong to one.
const taking = ['--project', '--config', '--env-file'];
const [group, verb] = argv.filter((word, at) => !word.startsWith('-') && !taking.includes(argv[at - 1]));
// A rotation deploys: it needs all that the others do without.
const name = group === 'env' && verb !== 'rotate' ? 'env' : 'cli';
if (help === null) {
  require('./program.js')
    .load(dist, name)
    .exports.main(argv)
    .then((code) => process.exit(code));
} else {
  // `gameops --help | head` closes our pipe early.
  process.stdout.on('error', () => undefined).write(help);
}
