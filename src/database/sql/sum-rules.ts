/**
 * The rules by which the text of a migration is put into a normal form before it is hashed. The place of a rule in the
 * list, counted from 1, is its version, and the ledger keeps the version with each checksum. Promises that a rule never
 * changes once it has made a checksum in somebody's database: a better rule is appended, and `ledgerFormat` is raised with
 * it, because an older gameops would take its checksums for changed texts. No rule uses the splitter (sql/split.ts), so
 * that mending the splitter changes no checksum.
 */

/** Texts with the same normal form are the same migration. */
export type SumRule = (sql: string) => string;

// Version 1 -------------------------------------------------------------------------------------------------------

/** The splitter as it was when this rule was made: longest first, and a quote that never ends runs to the end. */
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

/** Without comments, and with white space outside of quotes made one space. A comment inside a statement leaves a space. */
function statementsWithoutComments(text: string): string {
  const sql = text.replaceAll('\r\n', '\n');
  const statements: string[] = [];
  let code = '';
  let bare = '';
  let isEmpty = true;
  const addPlain = (part: string) => {
    if (part.trim() !== '') isEmpty = false;
    bare += part;
    code += part.replace(/\s+/g, ' ');
  };
  const close = () => {
    if (!isEmpty) statements.push(code.trim());
    [code, bare, isEmpty] = ['', '', true];
  };
  let at = 0;
  for (;;) {
    token.lastIndex = at;
    const match = token.exec(sql);
    addPlain(sql.slice(at, match?.index ?? sql.length));
    if (!match) break;
    at = endOf(sql, match);
    if (match[0] === ';') {
      if (isAtomicBodyOpen(bare)) addPlain(';');
      else close();
    } else if (match[0].startsWith('--') || match[0] === '/*') {
      bare += ' ';
      code += ' ';
    } else {
      isEmpty = false;
      bare += " '' ";
      code += sql.slice(match.index, at);
    }
  }
  close();
  return statements.join(';\n');
}

/** A function body in the standard's BEGIN ATOMIC … END is a part of its statement. */
const isAtomicBodyOpen = (bare: string): boolean =>
  /\bbegin\s+atomic\b/i.test(bare) && !/(^|;)\s*end\s*$/i.test(bare);

function endOf(sql: string, match: RegExpExecArray): number {
  const after = match.index + match[0].length;
  if (match[0] === '/*') return endOfComment(sql, after);
  if (!match[0].startsWith('$')) return after;
  const close = sql.indexOf(match[0], after);
  return close < 0 ? sql.length : close + match[0].length;
}

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

export const sumRules: readonly SumRule[] = [statementsWithoutComments];
