/**
 * Findings for people: rule, place, the line with a caret under the spot. Of the line only the key is shown; every
 * character of a value or a comment is a dot.
 */
import type { Style } from '../report/style.ts';
import { type EnvReport, type Finding, shownKey } from './findings.ts';
import { rulesPage } from './rules.ts';
import type { EnvText, Piece } from './tokens.ts';

const widthMax = 100;

export function prettyText(report: EnvReport, text: EnvText, style: Style): string {
  const pieces = new Map(text.pieces.map((piece) => [piece.line, piece]));
  const blocks = report.findings.map((finding) => block(finding, report.file, pieces, style));
  return [...blocks, summary(report, style)].join('\n');
}

function block(finding: Finding, file: string, pieces: ReadonlyMap<number, Piece>, style: Style): string {
  const { severity, rule, line, column, message } = finding;
  const paint = severity === 'error' ? style.red : style.yellow;
  const place = line === null ? file : `${file}:${line}:${column ?? 1}`;
  const head = `${paint(severity)} ${style.bold(rule)} ${place}`;
  const piece = line === null ? undefined : pieces.get(line);
  const shown = piece === undefined ? [] : spot(piece, column ?? 1, style);
  return [head, ...shown, `  ${message}`, ''].join('\n');
}

function spot(piece: Piece, column: number, style: Style): string[] {
  const masked = maskedLine(piece);
  if (masked.trim() === '') return [];
  const from = column > widthMax ? column - widthMax / 2 : 0;
  const line = masked.slice(from, from + widthMax);
  const number = String(piece.line);
  const caret = Math.min(column - 1 - from, line.length);
  return [
    `  ${style.dim(`${number} |`)} ${line}`,
    `  ${style.dim(`${' '.repeat(number.length)} |`)} ${' '.repeat(Math.max(0, caret))}${style.cyan('^')}`,
  ];
}

/** The first line of a piece, column for column. */
function maskedLine(piece: Piece): string {
  const line = piece.raw.split(/\r\n|\n|\r/, 1)[0] ?? '';
  const dots = (text: string) => text.replace(/[^\s]/g, '•').replace(/\s/g, ' ');
  if (piece.kind !== 'setting') return dots(line);
  const { column, key, valueColumn } = piece;
  // A key that is not shown is as long as it is, so that the caret stays where it belongs.
  const isShown = shownKey(key) === key;
  const head =
    line.slice(0, column - 1) +
    (isShown ? key : dots(key)) +
    line.slice(column - 1 + key.length, valueColumn - 1);
  return head.replace(/\s/g, ' ') + hidden(line.slice(valueColumn - 1));
}

/** Without the spaces of a pass phrase, too. */
function hidden(value: string): string {
  return '•'.repeat(value.length);
}

function summary({ file, findings, errors, warnings }: EnvReport, style: Style): string {
  if (findings.length === 0) return `${style.green('✓')} ${file}: nothing to complain about`;
  return `${file}: ${counted(errors, 'error')}, ${counted(warnings, 'warning')}; ${rulesPage} explains every rule`;
}

const counted = (count: number, what: string) => `${count} ${what}${count === 1 ? '' : 's'}`;
