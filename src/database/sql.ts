/**
 * Splits SQL into statements as far as telling their first words needs: comments are dropped, what stands in quotes
 * is blanked. Never judges whether the SQL is right.
 */

/** Longest first; a quoted text that never ends runs to the end of the file. */
const token = new RegExp(
  [
    String.raw`--[^\n]*`,
    String.raw`\b[eE]'(?:[^'\\]|\\[\s\S]|'')*(?:'|$)`,
    `'(?:[^']|'')*(?:'|$)`,
    `"(?:[^"]|"")*(?:"|$)`,
    String.raw`\$([A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$`,
    String.raw`\/\*`,
    ';',
  ].join('|'),
  'g',
);

/** Trimmed, without the semicolon. A function body in the standard's BEGIN ATOMIC … END stays one with its function. */
export function statementsOf(sql: string): string[] {
  const statements: string[] = [];
  let current = '';
  let at = 0;
  const closes = (): boolean => !/\bbegin\s+atomic\b/i.test(current) || /(^|;)\s*end\s*$/i.test(current);
  for (;;) {
    token.lastIndex = at;
    const match = token.exec(sql);
    current += sql.slice(at, match?.index ?? sql.length);
    if (!match) break;
    at = endOf(sql, match);
    if (match[0] !== ';') {
      current += ' ';
      if (!/^(--|\/\*)/.test(match[0])) current += "'' ";
      continue;
    }
    if (closes()) {
      statements.push(current);
      current = '';
    } else current += ';';
  }
  return [...statements, current].map((text) => text.trim()).filter((text) => text !== '');
}

function endOf(sql: string, match: RegExpExecArray): number {
  const after = match.index + match[0].length;
  if (match[0] === '/*') return endOfComment(sql, after);
  if (!match[0].startsWith('$')) return after;
  const close = sql.indexOf(match[0], after);
  return close < 0 ? sql.length : close + match[0].length;
}

/** Block comments nest in Postgres. */
function endOfComment(sql: string, from: number): number {
  const edge = /\/\*|\*\//g;
  edge.lastIndex = from;
  for (let depth = 1; depth > 0; ) {
    const match = edge.exec(sql);
    if (!match) return sql.length;
    depth += match[0] === '/*' ? 1 : -1;
  }
  return edge.lastIndex;
}
