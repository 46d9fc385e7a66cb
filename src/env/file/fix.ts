/**
 * Repairs what is mechanical in a .env: byte order mark, line ends, white space, `export`, unnecessary quotes, comments
 * behind values, duplicate keys. Promises that every value stays the same, and that comments and order are kept; what
 * needs a decision is left alone. Pure.
 */
import { shownKey } from '../rules/findings.ts';
import type { RuleId } from '../rules/rules.ts';
import { bareSafe } from './portable.ts';
import {
  type EnvText,
  joinTokens,
  type Piece,
  readTokens,
  type Setting,
  settingsIn,
  valuesIn,
} from './tokens.ts';

export interface Repair {
  rule: RuleId;
  key: string | null;
  /** From 1, in the file as it was. */
  line: number;
  message: string;
}

export function fixEnv(text: string): { text: string; repairs: Repair[] } {
  const before = readTokens(text);
  const last = new Map(settingsIn(before).map((setting) => [setting.key, setting]));
  const repairs: Repair[] = [];
  if (before.mark !== '')
    repairs.push({ rule: 'byte-order-mark', key: null, line: 1, message: 'removed the byte order mark' });
  const pieces = before.pieces.map((piece) => {
    const isEarlier = piece.kind === 'setting' && last.get(piece.key) !== piece;
    if (isEarlier)
      repairs.push(
        repair(piece, 'duplicate-key', 'removed this line, because a later line of this key counts'),
      );
    return isEarlier ? '' : fixPiece(piece, repairs);
  });
  const fixed = pieces.join('');
  return isSame(before, readTokens(fixed))
    ? { text: fixed, repairs }
    : { text: joinTokens(before), repairs: [] };
}

/** The last guard: no repair may change a value. */
function isSame(before: EnvText, after: EnvText): boolean {
  const [old, now] = [valuesIn(before), valuesIn(after)];
  return old.size === now.size && [...old].every(([key, { value }]) => now.get(key)?.value === value);
}

function fixPiece(piece: Piece, repairs: Repair[]): string {
  const isOneLine = !/[\r\n]/.test(piece.raw.replace(/(\r\n|\n|\r)$/, ''));
  const isClear = piece.kind === 'setting' && !piece.isUnclosed && isOneLine && !isCut(piece);
  const body = isClear ? fixSetting(piece, repairs) : piece.raw.replace(/(\r\n|\n|\r)$/, '');
  const end = piece.raw.slice(piece.raw.length - (/(\r\n|\n|\r)$/.exec(piece.raw)?.[0].length ?? 0));
  if (end.includes('\r')) repairs.push(repair(piece, 'windows-line-ends', 'changed the line end to "\\n"'));
  if (end === '' && piece.kind !== 'blank') repairs.push(repair(piece, 'not-portable', 'added a line end'));
  return end === '' && piece.kind === 'blank' ? body : `${body}\n`;
}

/** Only the author knows where such a value ends. */
function isCut({ quote, comment, trailing }: Setting): boolean {
  return quote === null && comment !== '' && trailing === '';
}

function fixSetting(setting: Setting, repairs: Repair[]): string {
  const { key, quote, rawValue, value, comment, separator, trailing, hasExport, raw } = setting;
  const isNeedless = quote !== null && rawValue === value && bareSafe.test(rawValue);
  if (hasExport) repairs.push(repair(setting, 'not-portable', 'removed "export"'));
  if (separator !== '=' || (trailing !== '' && comment === '') || /^\s/.test(raw))
    repairs.push(repair(setting, 'whitespace', 'removed white space'));
  if (isNeedless) repairs.push(repair(setting, 'not-portable', 'removed unnecessary quotes'));
  if (comment !== '') repairs.push(repair(setting, 'not-portable', 'moved the comment to a line of its own'));
  const written = quote === null || isNeedless ? rawValue : `${quote}${rawValue}${quote}`;
  return `${comment === '' ? '' : `${comment.trimEnd()}\n`}${key}=${written}`;
}

function repair(piece: Piece, rule: RuleId, what: string): Repair {
  const key = piece.kind === 'setting' ? shownKey(piece.key) : null;
  return { rule, key, line: piece.line, message: key === null ? what : `${key}: ${what}` };
}
