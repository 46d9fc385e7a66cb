/** The lines of findings as they may be shown: the key is readable, every character of a value or a comment is a dot. */
import type { Finding } from '../../report/findings/model.ts';
import type { EnvText, Piece } from '../file/tokens.ts';
import { shownKey } from './findings.ts';

export function excerptsOf(text: EnvText): (finding: Finding) => string | null {
  const pieces = new Map(text.pieces.map((piece) => [piece.line, piece]));
  return ({ line }) => {
    const piece = line === null ? undefined : pieces.get(line);
    return piece === undefined ? null : maskedLine(piece);
  };
}

/** The first line of a piece, column for column. */
function maskedLine(piece: Piece): string {
  const line = piece.raw.split(/\r\n|\n|\r/, 1)[0] ?? '';
  const dots = (text: string) => text.replace(/[^\s]/g, '•').replace(/\s/g, ' ');
  if (piece.kind !== 'setting') return dots(line);
  const { column, key, valueColumn } = piece;
  // A hidden key keeps its length, so that the caret stays below the right column.
  const isShown = shownKey(key) === key;
  const head =
    line.slice(0, column - 1) +
    (isShown ? key : dots(key)) +
    line.slice(column - 1 + key.length, valueColumn - 1);
  return head.replace(/\s/g, ' ') + hidden(line.slice(valueColumn - 1));
}

/** Spaces are hidden as well: they would show the words of a pass phrase. */
function hidden(value: string): string {
  return '•'.repeat(value.length);
}
