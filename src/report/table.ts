/**
 * Aligned columns for plans and results. Pure: text in, text out. Measured is what a terminal shows: colours take
 * no column, a Chinese character takes two.
 */
import stringWidth from 'fast-string-width';

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
    Math.max(...rows.map((row) => stringWidth(row[at] ?? ''))),
  );
  const between = ' '.repeat(gap);
  return rows.map((row) => {
    const cells = widths.map((width, at) => {
      const cell = row[at] ?? '';
      return cell + ' '.repeat(width - stringWidth(cell));
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
