/**
 * Findings for people: rule, place, the line with a caret under the column, what is wrong, why, and how to correct it.
 */
import stringWidth from 'fast-string-width';
import { counted } from '../../units.ts';
import type { Style } from '../style.ts';
import { type Finding, placeText, type Report, type Severity } from './model.ts';

const widthMax = 100;

export function prettyText(
  report: Report,
  excerptOf: (finding: Finding) => string | null,
  style: Style,
): string {
  const blocks = report.findings.flatMap((finding) => [
    ...findingLines(finding, excerptOf(finding), style),
    '',
  ]);
  return [...blocks, summary(report, style)].join('\n');
}

/** @param excerpt the line that the finding is about, unchanged, so that its columns are right */
export function findingLines(finding: Finding, excerpt: string | null, style: Style): string[] {
  const { severity, rule, line, column, message, why, rewrite } = finding;
  const head = [paint(style, severity), style.bold(rule), plain(placeText(finding))];
  return [
    head.filter((word) => word !== '').join(' '),
    ...(excerpt === null || line === null ? [] : spot(excerpt, line, column ?? 1, style)),
    ...linesOf(message).map((text) => `  ${text}`),
    ...linesOf(why).map((text) => `  ${style.dim(text)}`),
    ...linesOf(rewrite).map((text) => `    ${style.cyan(text)}`),
  ];
}

function paint(style: Style, severity: Severity): string {
  if (severity === 'error') return style.red(severity);
  return severity === 'warning' ? style.yellow(severity) : style.dim(severity);
}

function spot(excerpt: string, lineNumber: number, column: number, style: Style): string[] {
  const whole = plain(excerpt);
  if (whole.trim() === '') return [];
  const from = column > widthMax ? column - widthMax / 2 : 0;
  const line = whole.slice(from, from + widthMax).trimEnd();
  const number = String(lineNumber);
  const before = stringWidth(line.slice(0, Math.max(0, column - 1 - from)));
  return [
    `  ${style.dim(`${number} |`)} ${line}`,
    `  ${style.dim(`${' '.repeat(number.length)} |`)} ${' '.repeat(before)}${style.cyan('^')}`,
  ];
}

const linesOf = (text = ''): string[] => text.split('\n').filter(Boolean).map(plain);

/**
 * Files and names may come from somebody else's change: they must neither control the terminal nor reverse the text.
 * Each such character becomes a space, so that the caret stays in its column.
 */
function plain(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (one) => ' '.repeat(one.length));
}

function summary({ subject, findings, errors, warnings, page, remark }: Report, style: Style): string {
  const rest = remark === undefined ? '' : `; ${remark}`;
  if (findings.length === 0) return `${style.green('✓')} ${subject}: no problems found${rest}`;
  const notes = findings.length - errors - warnings;
  const counts = [counted(errors, 'error'), counted(warnings, 'warning')];
  if (notes > 0) counts.push(counted(notes, 'note'));
  const explained = page === undefined ? '' : `; ${page} explains every rule`;
  return `${subject}: ${counts.join(', ')}${explained}${rest}`;
}
