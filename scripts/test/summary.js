/** The end of `npm test`: the slowest files, what failed, where all of it is kept, and the sum as the last line. */
import { rmSync, writeFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stripVTControlCharacters } from 'node:util';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** Of each failure on the terminal; the log has all of it. */
const linesShown = 12;
const slowestShown = 10;

export const failureLog = join(root, 'test-failures.log');

/** The log of an earlier run would be taken for this one's. */
export function forgetFailures() {
  rmSync(failureLog, { force: true });
}

/**
 * @param {{ name: string, seconds: number, failure: string | null }[]} parts in the order in which they ended
 * @param {{ file: string, seconds: number }[]} files
 * @param {{ name: string, text: string }[]} failures
 */
export function printSummary({ parts, files, failures, passed }) {
  const slowest = [...files].sort((a, b) => b.seconds - a.seconds).slice(0, slowestShown);
  if (slowest.length > 0) console.log(`\nThe ${slowest.length} slowest files:`);
  for (const { file, seconds } of slowest) console.log(`${seconds.toFixed(1).padStart(7)} s  ${file}`);
  if (failures.length > 0) {
    const whole = failures.map(({ name, text }) => `FAILED ${name}\n${stripVTControlCharacters(text)}\n`);
    writeFileSync(failureLog, whole.join('\n'));
    console.log(`\nWhat failed (whole messages are in ${relative(process.cwd(), failureLog)}):`);
    for (const { name, text } of failures) console.log(`\nFAILED ${name}\n${excerpt(text)}`);
  }
  const times = parts.map(({ name, seconds, failure }) =>
    failure === null ? `${name} ${seconds.toFixed(1)} s` : `${name} FAILED after ${seconds.toFixed(1)} s`,
  );
  console.log(`\n${times.join(' · ')}\n${passed} passed, ${failures.length} failed`);
}

function excerpt(text) {
  const lines = text.trimEnd().split('\n');
  const rest = lines.length - linesShown;
  const more = rest > 0 ? [`… and ${rest} more lines`] : [];
  return [...lines.slice(0, linesShown), ...more].map((line) => `  ${line}`).join('\n');
}
