/**
 * Changes values in the text of a .env. Everything else stays the same, comments, order and line ends included. Pure; the
 * new text is read again before it is returned.
 */
import { joinTokens, readTokens, type Setting, settingsIn, valuesIn } from './tokens.ts';

export interface Edit {
  key: string;
  /** Only characters that every reader takes literally; null removes the key. */
  value: string | null;
  /** A new key is added below this one, else at the end. */
  below?: string;
}

const plainValue = /^[\w./:@%+,=~?&-]+$/;

/** @throws when the new text would be read otherwise than intended, which is a bug; nothing is written then */
export function editEnv(text: string, edits: readonly Edit[]): string {
  const edited = edits.reduce(applyEdit, text);
  const after = valuesIn(readTokens(edited));
  const isMeant = edits.every(({ key, value }) => (after.get(key)?.value ?? null) === value);
  const kept = [...valuesIn(readTokens(text))].filter(([key]) => !edits.some((edit) => edit.key === key));
  const isKept = kept.every(([key, setting]) => after.get(key)?.value === setting.value);
  if (!isMeant || !isKept) throw new Error('the edited .env would be read otherwise than intended');
  return edited;
}

function applyEdit(text: string, { key, value, below }: Edit): string {
  if (value !== null && !plainValue.test(value)) throw new Error(`${key} would need quotes`);
  const tokens = readTokens(text);
  const own = settingsIn(tokens).filter((setting) => setting.key === key);
  if (value === null)
    return joinTokens({
      ...tokens,
      pieces: tokens.pieces.filter((piece) => !own.includes(piece as Setting)),
    });
  const last = own.at(-1);
  if (last) return replaced(text, last, withValue(last, value));
  const line = `${key}=${value}`;
  const anchor = below === undefined ? undefined : valuesIn(tokens).get(below);
  if (!anchor) return `${text}${text === '' || /[\r\n]$/.test(text) ? '' : '\n'}${line}\n`;
  const end = lineEndOf(anchor.raw);
  return replaced(text, anchor, `${anchor.raw}${end === '' ? '\n' : ''}${line}${end || '\n'}`);
}

function replaced(text: string, setting: Setting, raw: string): string {
  const tokens = readTokens(text);
  const same = (at: { line: number }) => at.line === setting.line;
  return joinTokens({
    ...tokens,
    pieces: tokens.pieces.map((piece) => (same(piece) ? { ...piece, raw } : piece)),
  });
}

/** Key, comment and line end stay; quotes stay only where there were some and a shell needs them. */
function withValue({ raw, valueColumn, rawValue, quote, trailing, comment }: Setting, bare: string): string {
  const head = raw.slice(0, valueColumn - 1);
  const value = quote !== null && /[?&]/.test(bare) ? `${quote}${bare}${quote}` : bare;
  const tail = raw.slice(head.length + rawValue.length + (quote === null ? 0 : 2));
  // Only some readers cut off a comment that follows the value without a space.
  return comment !== '' && trailing === '' ? `${head}${value} ${tail}` : `${head}${value}${tail}`;
}

function lineEndOf(raw: string): string {
  return /(\r\n|\n|\r)$/.exec(raw)?.[0] ?? '';
}

/**
 * The same URL for another login; every other character stays.
 * @returns null when the URL has no login, or another one than `from`
 */
export function withLogin(url: string, from: string, to: { user: string; password: string }): string | null {
  const [, scheme, login = '', rest] = /^([a-z][a-z0-9+.-]*:\/\/)([^/?#]*)(@.*)$/is.exec(url) ?? [];
  const [user = ''] = login.split(':', 1);
  if (scheme === undefined || decoded(user) !== from) return null;
  return `${scheme}${encodeURIComponent(to.user)}:${encodeURIComponent(to.password)}${rest}`;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
