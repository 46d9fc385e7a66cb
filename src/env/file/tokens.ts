/**
 * The lossless reader of .env: every line with its place, every setting with key, raw text, quotes, value and comment. The
 * pieces joined again are the file. A correct line is read as dotenv reads it; any other line is kept as a broken line,
 * which the rules report. Takes time in proportion to the size of the file, whatever is in it.
 */

export type Quote = '"' | "'" | '`';

export interface Setting {
  kind: 'setting';
  /** From 1. */
  line: number;
  /** From 1: where the key begins. */
  column: number;
  /** As it is in the file, line end included. */
  raw: string;
  key: string;
  hasExport: boolean;
  /** Everything between key and value, "=" included. */
  separator: string;
  quote: Quote | null;
  /** The value as written: without quotes, escapes not yet read. */
  rawValue: string;
  /** The value as gameops passes it on. */
  value: string;
  /** From 1: where the value begins, its quote included. */
  valueColumn: number;
  /** White space between the value and the comment or line end. */
  trailing: string;
  /** With its "#"; empty when there is none. */
  comment: string;
  /** The value begins with a quote that does not end it. */
  isUnclosed: boolean;
}

export interface PlainLine {
  kind: 'blank' | 'comment' | 'broken';
  line: number;
  /** From 1: where the text begins. */
  column: number;
  raw: string;
}

export type Piece = Setting | PlainLine;

export interface EnvText {
  /** The byte order mark, which is not a part of any piece; '' when there is none. */
  mark: string;
  pieces: Piece[];
}

const keyPattern = /([^\S\r\n]*)(export[^\S\r\n]+)?([\w.-]+)([^\S\r\n]*=[^\S\r\n]*)/y;

export function readTokens(text: string): EnvText {
  const mark = text.startsWith('\uFEFF') ? '\uFEFF' : '';
  const pieces: Piece[] = [];
  let line = 1;
  for (let at = mark.length; at < text.length; ) {
    const piece = settingAt(text, at, line) ?? plainLineAt(text, at, line);
    pieces.push(piece);
    at += piece.raw.length;
    line += breaksIn(piece.raw);
  }
  return { mark, pieces };
}

export function joinTokens({ mark, pieces }: EnvText): string {
  return mark + pieces.map(({ raw }) => raw).join('');
}

export function settingsIn({ pieces }: EnvText): Setting[] {
  return pieces.filter((piece): piece is Setting => piece.kind === 'setting');
}

/** When a key is there several times, the last one counts, as for every reader. */
export function valuesIn(text: EnvText): Map<string, Setting> {
  return new Map(settingsIn(text).map((setting) => [setting.key, setting]));
}

function plainLineAt(text: string, at: number, line: number): PlainLine {
  const raw = text.slice(at, endOfLine(text, at).next);
  // Only ASCII white space: some readers take no other character for white space.
  const body = raw.replace(/^[ \t\v\f\r\n]+/, '');
  const kind = body === '' ? 'blank' : body.startsWith('#') ? 'comment' : 'broken';
  return { kind, line, column: 1 + Math.max(0, raw.search(/\S/)), raw };
}

function settingAt(text: string, at: number, line: number): Setting | null {
  keyPattern.lastIndex = at;
  const match = keyPattern.exec(text);
  if (!match) return null;
  const [head, indent = '', prefix = '', key = '', separator = ''] = match;
  const begin = at + head.length;
  const value = quotedAt(text, begin) ?? bareAt(text, begin);
  return {
    kind: 'setting',
    line,
    column: 1 + indent.length + prefix.length,
    raw: text.slice(at, value.next),
    key,
    hasExport: prefix !== '',
    separator,
    quote: value.quote,
    rawValue: value.rawValue,
    value: value.quote === '"' ? withEscapes(value.rawValue) : value.rawValue,
    valueColumn: 1 + head.length,
    trailing: value.trailing,
    comment: value.comment,
    isUnclosed: value.isUnclosed,
  };
}

interface Value extends Pick<Setting, 'quote' | 'rawValue' | 'trailing' | 'comment' | 'isUnclosed'> {
  /** Where the next line begins. */
  next: number;
}

const quotes = new Set(['"', "'", '`']);

/** A value in quotes, perhaps of several lines; null when no closing quote is followed by only a comment. */
function quotedAt(text: string, begin: number): Value | null {
  const quote = text[begin] ?? '';
  if (!quotes.has(quote)) return null;
  let close = text.indexOf(quote, begin + 1);
  while (close > 0 && text[close - 1] === '\\') close = text.indexOf(quote, close + 1);
  if (close < 0) return null;
  const { end, next } = endOfLine(text, close + 1);
  const rest = text.slice(close + 1, end);
  const comment = rest.trimStart();
  if (comment !== '' && !comment.startsWith('#')) return null;
  return {
    quote: quote as Quote,
    rawValue: text.slice(begin + 1, close),
    trailing: rest.slice(0, rest.length - comment.length),
    comment,
    isUnclosed: false,
    next,
  };
}

/** Up to "#" or the end of the line. Quotes at both ends are removed even when there are more of them inside. */
function bareAt(text: string, begin: number): Value {
  const { end, next } = endOfLine(text, begin);
  const rest = text.slice(begin, end);
  const hash = rest.indexOf('#');
  const body = hash < 0 ? rest : rest.slice(0, hash);
  const value = body.trimEnd();
  const first = value[0] ?? '';
  const isUnclosed = quotes.has(first);
  const isAround = isUnclosed && value.length > 1 && value.endsWith(first);
  return {
    quote: isAround ? (first as Quote) : null,
    rawValue: isAround ? value.slice(1, -1) : value,
    trailing: body.slice(value.length),
    comment: hash < 0 ? '' : rest.slice(hash),
    isUnclosed,
    next,
  };
}

function withEscapes(text: string): string {
  return text.replaceAll('\\n', '\n').replaceAll('\\r', '\r');
}

const lineBreak = /\r\n|\n|\r/g;

function endOfLine(text: string, at: number): { end: number; next: number } {
  lineBreak.lastIndex = at;
  const match = lineBreak.exec(text);
  if (!match) return { end: text.length, next: text.length };
  return { end: match.index, next: match.index + match[0].length };
}

function breaksIn(raw: string): number {
  return raw.match(lineBreak)?.length ?? 0;
}
