/**
 * An error for people: what happened, the facts that show it, what to do next. Decides nothing, adds nothing.
 */
import type { ReportedError } from './json.ts';
import { redact } from './redact.ts';
import type { Style } from './style.ts';

export function errorText(error: ReportedError, style: Style, stack: string): string {
  const facts = Object.entries(error.facts).filter(([key]) => key !== 'problems');
  const lines = [
    `${style.red('✗')} ${style.bold(error.code)}: ${error.message}`,
    ...facts.map(([key, value]) => style.dim(`  ${key}: ${shownFact(value)}`)),
    'Next:',
    ...error.next.map((step) => `  ${style.cyan(step)}`),
    ...(stack === '' ? [] : ['', style.dim(stack)]),
  ];
  return `${redact(lines.join('\n'))}\n`;
}

function shownFact(value: ReportedError['facts'][string]): string {
  if (value === null) return 'none';
  return typeof value === 'object' ? value.join('\n    ') || 'none' : String(value);
}
