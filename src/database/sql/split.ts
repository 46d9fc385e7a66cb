/**
 * Splits SQL into statements, well enough to read their first words and their names. Never judges whether the SQL is
 * right; tree.ts has the real parser.
 */

export interface Statement {
  /** As written, comments inside included, without the semicolon. */
  text: string;
  /** Without comments, and with quoted texts blanked: for finding words. */
  bare: string;
  /** Without comments, and with white space outside of quotes made one space. */
  code: string;
  /** Where the statement begins in the whole text, after comments. */
  at: number;
}

/** No character of a name stands before it. `$` is such a character: `a$b$c` is one name and quotes nothing. */
const outsideOfName = String.raw`(?<![\w$\u0080-\uffff])`;

/** Longest token first; a quoted text that is never closed runs to the end of the file. */
const token = new RegExp(
  [
    String.raw`--[^\n]*`,
    String.raw`${outsideOfName}[eE]'(?:[^'\\]|\\[\s\S]|'')*(?:'|$)`,
    `'(?:[^']|'')*(?:'|$)`,
    `"(?:[^"]|"")*(?:"|$)`,
    String.raw`${outsideOfName}\$([A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$`,
    String.raw`\/\*`,
    ';',
  ].join('|'),
  'g',
);

const split = new Map<string, readonly Statement[]>();

/** A function body in the standard's BEGIN ATOMIC … END stays a part of its statement. */
export function splitStatements(sql: string): readonly Statement[] {
  // Several callers ask for the statements of the same file: to check it and to run it.
  const known = split.get(sql) ?? splitAnew(sql);
  split.set(sql, known);
  return known;
}

function splitAnew(sql: string): Statement[] {
  const statements: Statement[] = [];
  let now = { bare: '', code: '', at: -1 };
  let at = 0;
  const plain = (from: number, to: number) => {
    const text = sql.slice(from, to);
    if (now.at < 0 && text.trim() !== '') now.at = from + text.search(/\S/);
    now.bare += text;
    now.code += text.replace(/\s+/g, ' ');
  };
  const closes = (): boolean => !/\bbegin\s+atomic\b/i.test(now.bare) || /(^|;)\s*end\s*$/i.test(now.bare);
  const close = (to: number) => {
    const { bare, code } = now;
    if (now.at >= 0)
      statements.push({
        text: sql.slice(now.at, to).trim(),
        bare: bare.trim(),
        code: code.trim(),
        at: now.at,
      });
    now = { bare: '', code: '', at: -1 };
  };
  for (;;) {
    token.lastIndex = at;
    const match = token.exec(sql);
    plain(at, match?.index ?? sql.length);
    if (!match) break;
    at = endOf(sql, match);
    if (match[0] === ';') {
      if (closes()) close(match.index);
      else plain(match.index, at);
    } else if (/^(--|\/\*)/.test(match[0])) {
      now.bare += ' ';
      now.code += ' ';
    } else {
      if (now.at < 0) now.at = match.index;
      now.bare += " '' ";
      now.code += sql.slice(match.index, at);
    }
  }
  close(sql.length);
  return statements;
}

/** The statements as in `bare`. */
export function statementsOf(sql: string): string[] {
  return splitStatements(sql).map(({ bare }) => bare);
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

// Names -----------------------------------------------------------------------------------------------------------

const part = String.raw`(?:"(?:[^"]|"")+"|[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*)`;
/** Source of a regular expression for a name as written in SQL, with or without its schema. */
export const namePattern = String.raw`${part}(?:\s*\.\s*${part})*`;

/** `"Öl"` → Öl, `Table` → table: spelled as in the catalogue. */
export function unquoted(name: string): string {
  return name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name.toLowerCase();
}
