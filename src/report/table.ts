/**
 * Aligned columns for plans and results. Pure: text in, text out; colours in the cells do not disturb the alignment.
 */
import { stripVTControlCharacters } from 'node:util';

export interface TableOptions {
  /** Spaces between columns. */
  gap?: number;
  /** Put before every line. */
  indent?: string;
}

/** Rows of cells → lines without trailing spaces. A missing cell is empty. */
export function columns(
  rows: readonly (readonly string[])[],
  { gap = 2, indent = '' }: TableOptions = {},
): string[] {
  const count = Math.max(0, ...rows.map((row) => row.length));
  const widths = Array.from({ length: count }, (_, at) =>
    Math.max(...rows.map((row) => widthOf(row[at] ?? ''))),
  );
  const between = ' '.repeat(gap);
  return rows.map((row) => {
    const cells = widths.map((width, at) => {
      const cell = row[at] ?? '';
      return cell + ' '.repeat(width - widthOf(cell));
    });
    return (indent + cells.join(between)).trimEnd();
  });
}

/** The same with a heading; no rows, no text. */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  headStyle: (text: string) => string = (text) => text,
): string {
  if (rows.length === 0) return '';
  return columns([head.map((cell) => headStyle(cell)), ...rows]).join('\n');
}

function widthOf(text: string): number {
  return [...stripVTControlCharacters(text)].length;
}
