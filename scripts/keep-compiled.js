/**
 * `node keep-compiled.js <folder> <program> <command>...`: runs a program of the folder through commands, then keeps what
 * V8 compiled of it for its next start. What the commands say and how they end does not matter.
 */
import program from '../bin/program.js';

const [folder, name, ...commands] = process.argv.slice(2);
const { script, exports, keptFile } = program.load(folder, name);
for (const command of ['init', ...commands]) await exports.main(command.split(' '));
program.keep(script, keptFile);
process.exit(0);
