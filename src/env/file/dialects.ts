/**
 * How other programs read a .env: Node's util.parseEnv, the dotenv package, `docker --env-file` and Compose. Node's own
 * reader is called; the others are written here again, each by its own rules and in one pass, and the tests compare them
 * with the real ones. Only Compose follows its documentation. Pure.
 */
import { parseEnv } from 'node:util';

/** The values that a reader finds in a file, or that it refuses the whole file. */
export type Reading = ReadonlyMap<string, string> | 'refused';

export const dialects = ['Node', 'dotenv', 'docker', 'Compose'] as const;
export type Dialect = (typeof dialects)[number];

/** The value depends on the environment of the reader. No reader can return this text: none keeps a NUL. */
const unsettled = '\0unsettled';

export function readAs(dialect: Dialect, text: string): Reading {
  switch (dialect) {
    case 'Node':
      return new Map(Object.entries(parseEnv(text)).map(([key, value]) => [key, value ?? '']));
    case 'dotenv':
      return readAsDotenv(text);
    case 'docker':
      return readAsDocker(text);
    case 'Compose':
      return readAsCompose(text);
  }
}

/** The longest line Docker's reader takes: Go's bufio.Scanner. */
const dockerLineMax = 64 * 1024;

function readAsDocker(text: string): Reading {
  const values = new Map<string, string>();
  const lines = text.replace(/^\uFEFF/, '').split('\n');
  for (const [at, whole] of lines.entries()) {
    const line = whole.replace(/\r$/, '');
    if (Buffer.byteLength(whole) >= dockerLineMax || line.includes('\uFFFD')) return 'refused';
    const body = line.replace(goSpaceAhead, '');
    if (body === '' || body.startsWith('#') || (at === lines.length - 1 && whole === '')) continue;
    const equals = body.indexOf('=');
    const key = equals < 0 ? body : body.slice(0, equals);
    if (key === '' || goSpace.test(key)) return 'refused';
    // docker takes the value of a name without "=" from its own environment.
    values.set(key, equals < 0 ? unsettled : body.slice(equals + 1));
  }
  return values;
}

/** White space as Go defines it; JavaScript defines it otherwise. */
const goSpace = /[\t\n\v\f\r \u0085\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000]/;
const goSpaceAhead = new RegExp(`^${goSpace.source}+`);

const breaks = new Set(['\n', '\u2028', '\u2029', '']);
const wordCharacter = /[\w.-]/;

/** dotenv uses one regular expression; this reads the same from left to right, without ever going back. */
function readAsDotenv(source: string): Reading {
  const text = source.replace(/\r\n?/g, '\n');
  const values = new Map<string, string>();
  let at = 0;
  while (at < text.length) {
    const statement = dotenvStatement(text, skipSpace(text, at));
    if (statement) values.set(statement.key, statement.value);
    at = afterLine(text, statement?.end ?? skipSpace(text, at));
  }
  return values;
}

function dotenvStatement(text: string, begin: number): { key: string; value: string; end: number } | null {
  const afterExport = text.startsWith('export', begin) ? skipSpace(text, begin + 6) : begin;
  const hasExport = afterExport > begin + 6 && wordCharacter.test(text[afterExport] ?? '');
  return (hasExport ? dotenvAssignment(text, afterExport) : null) ?? dotenvAssignment(text, begin);
}

function dotenvAssignment(text: string, begin: number): { key: string; value: string; end: number } | null {
  let keyEnd = begin;
  while (wordCharacter.test(text[keyEnd] ?? '')) keyEnd++;
  if (keyEnd === begin) return null;
  const equals = skipSpace(text, keyEnd);
  let valueAt: number;
  if (text[equals] === '=') valueAt = equals + 1;
  else if (text[keyEnd] === ':' && isSpace(text[keyEnd + 1])) valueAt = keyEnd + 2;
  else return null;
  return { key: text.slice(begin, keyEnd), ...dotenvValue(text, valueAt) };
}

function dotenvValue(text: string, begin: number): { value: string; end: number } {
  const first = skipSpace(text, begin);
  const quote = text[first] ?? '';
  const withBreaks = (value: string) =>
    quote === '"' ? value.replaceAll('\\n', '\n').replaceAll('\\r', '\r') : value;
  const close = ['"', "'", '`'].includes(quote) ? closingQuote(text, first, quote) : null;
  if (close !== null) return { value: withBreaks(text.slice(first + 1, close)), end: close + 1 };
  let end = begin;
  while (end < text.length && text[end] !== '\n' && text[end] !== '#') end++;
  const value = text.slice(begin, end).trim();
  const bare = withoutQuotes(value);
  return { value: value.startsWith('"') ? withBreaks(bare) : bare, end };
}

function withoutQuotes(value: string): string {
  // dotenv's expression takes these two for line ends, and so quotes off every line.
  if (/[\u2028\u2029]/.test(value)) {
    return value.length > oddLineMax ? unsettled : value.replace(/^(['"`])([\s\S]*)\1$/gm, '$2');
  }
  const isAround = value.length > 1 && /^['"`]/.test(value) && value.endsWith(value[0] ?? '');
  return isAround ? value.slice(1, -1) : value;
}

/** Its expression takes time in the square of the line. */
const oddLineMax = 4_096;

/** The first quote without a backslash, or the last one with a backslash before it, that ends a line. */
function closingQuote(text: string, open: number, quote: string): number | null {
  let best: number | null = null;
  for (let at = text.indexOf(quote, open + 1); at >= 0; at = text.indexOf(quote, at + 1)) {
    if (endsLine(text, at + 1)) best = at;
    if (text[at - 1] !== '\\') break;
  }
  return best;
}

function endsLine(text: string, from: number): boolean {
  let at = from;
  while (!breaks.has(text[at] ?? '') && isSpace(text[at])) at++;
  return breaks.has(text[at] ?? '') || text[at] === '#';
}

function isSpace(character: string | undefined): boolean {
  return character !== undefined && /\s/.test(character);
}

function skipSpace(text: string, from: number): number {
  let at = from;
  while (isSpace(text[at])) at++;
  return at;
}

function afterLine(text: string, from: number): number {
  let at = from;
  while (!breaks.has(text[at] ?? '')) at++;
  return at + 1;
}

/**
 * Where Compose's page and Compose differ, or the page says nothing, this says "unsettled": better one warning too
 * many. https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/
 */
function readAsCompose(text: string): Reading {
  const values = new Map<string, string>();
  const line =
    /([^\S\n]*)(?:export[^\S\n]+)?([A-Za-z_][\w.]*)=(?:"((?:\\[\s\S]|[^"\\])*)"|'([^'\n]*)'|([^\n]*))/y;
  for (let at = 0; at < text.length; ) {
    line.lastIndex = at;
    const match = line.exec(text);
    if (match) {
      const [, , key = '', double, single, bare = ''] = match;
      if (double !== undefined) values.set(key, composeDouble(double));
      else values.set(key, single ?? composeBare(bare));
    }
    at = text.indexOf('\n', match ? line.lastIndex : at) + 1 || text.length;
  }
  return values;
}

function composeDouble(text: string): string {
  return /\$|\\(?![nrt"])/.test(text)
    ? unsettled
    : text.replace(/\\([nrt"])/g, (_, letter: string) => ({ n: '\n', r: '\r', t: '\t' })[letter] ?? letter);
}

function composeBare(text: string): string {
  const value = text.replace(/(^|\s)#.*$/, '').trim();
  return /\$|^['"]/.test(value) ? unsettled : value;
}
