/**
 * `gameops --help` by itself: built into one CommonJS file, which Node starts fastest, because people and scripts ask
 * for help far more often than for a deploy. Promises the same text as the program. Every call that does not simply ask
 * for help is left to the program.
 */
import { CommanderError } from 'commander';
import { buildProgram } from './program.ts';

/** null: ask the program. */
export function helpText(argv: readonly string[]): string | null {
  if (argv.some((word) => word === '--json' || word === '--' || word === '-V' || word === '--version'))
    return null;
  const written = { out: '', err: '' };
  try {
    buildProgram({ written, version: '' }, () => undefined).parse([...argv], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return written.out;
  }
  return null;
}
