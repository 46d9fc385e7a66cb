/**
 * Where Node, dotenv, docker and Compose do not read a setting alike: why, and how to write it so that they do. First
 * each setting by itself, which tells the reason; then the file as a whole, so that nothing slips through. Pure.
 */
import { type Dialect, dialects, type Reading, readAs } from './dialects.ts';
import { type EnvText, joinTokens, type Setting, settingsIn, valuesIn } from './tokens.ts';

export interface Difference {
  rule: 'cut-value' | 'whitespace' | 'not-portable';
  /** Null where a reader finds a setting and there is none. */
  key: string | null;
  line: number;
  column: number;
  message: string;
}

/** Only characters that every reader takes literally, in the middle of a line and at its ends. */
const plain = /^[A-Za-z_]\w*=[\w./:@%+,=~^*!?&;()<>[\]{}|-]*\r?\n?$/;

export function differences(text: EnvText): Difference[] {
  const found = settingsIn(text).flatMap((setting) => {
    const raw = setting.raw;
    if (plain.test(raw)) return [];
    const differing = dialects.filter((dialect) => !readsAs(readAs(dialect, raw), setting));
    return differing.length === 0 ? [] : [explain(setting, differing)];
  });
  return [...found, ...inTheWhole(text, new Set(found.map(({ key }) => key)))];
}

function readsAs(reading: Reading, { key, value }: Setting): boolean {
  return reading !== 'refused' && reading.size === 1 && reading.get(key) === value;
}

/** A setting that all readers agree on alone but not in its place, such as one after a broken line. */
function inTheWhole(text: EnvText, told: ReadonlySet<string | null>): Difference[] {
  const ours = valuesIn(text);
  const whole = joinTokens({ ...text, mark: '' });
  const isBroken = text.pieces.some(({ kind }) => kind === 'broken');
  const found = new Map<string | null, Difference>();
  for (const dialect of dialects) {
    const reading = readAs(dialect, whole);
    if (reading === 'refused') continue;
    for (const [key, setting] of ours) {
      const isTold = told.has(key) || found.has(key);
      if (!isTold && reading.get(key) !== setting.value) found.set(key, explain(setting, [dialect]));
    }
    const isMore = [...reading.keys()].some((key) => !ours.has(key));
    if (isMore && !isBroken && !found.has(null)) found.set(null, phantom(text, dialect));
  }
  return [...found.values()];
}

/** Node reads a comment as a setting when it ends the file without a line end. */
function phantom({ pieces }: EnvText, dialect: Dialect): Difference {
  const { line, column } = pieces.at(-1) ?? { line: 1, column: 1 };
  const message = `${dialect} reads a setting where there is none; end the last line with a line end`;
  return { rule: 'not-portable', key: null, line, column, message };
}

const elsewhere =
  'choose a value of letters, digits, "_" and "-" only, or put the value into a file that KEY_FILE names';
export const bareSafe =
  /^[\w./:@%+,=~^*!?&;()<>[\]{}|-]([\w ./:@%+,=~^*!?&;()<>[\]{}|-]*[\w./:@%+,=~^*!?&;()<>[\]{}|-])?$/;

interface Reason {
  rule?: Difference['rule'];
  applies(setting: Setting): boolean;
  column?(setting: Setting): number;
  message(setting: Setting): string;
}

/** The first reason that applies is reported. */
const reasons: readonly Reason[] = [
  {
    applies: ({ hasExport }) => hasExport,
    column: ({ raw }) => 1 + raw.search(/\S/),
    message: () => 'docker refuses the whole file because of "export"; write KEY=value without it',
  },
  {
    rule: 'whitespace',
    applies: ({ separator }) => /^\s/.test(separator),
    column: ({ valueColumn, separator }) => valueColumn - separator.length,
    message: () =>
      'docker refuses the whole file because of the space before "="; write KEY=value without spaces',
  },
  {
    rule: 'whitespace',
    applies: ({ separator }) => separator !== '=',
    column: ({ valueColumn, separator }) => valueColumn - separator.length + 1,
    message: () => 'docker reads the space after "=" as a part of the value; write KEY=value without spaces',
  },
  {
    rule: 'cut-value',
    applies: ({ quote, comment, trailing }) => quote === null && comment !== '' && trailing === '',
    column: commentColumn,
    message: () =>
      `Node and dotenv end the value at "#", docker and Compose keep the rest of the line; ${elsewhere}`,
  },
  {
    applies: ({ comment }) => comment !== '',
    column: commentColumn,
    message: () =>
      'docker reads the comment as a part of the value; put the comment on a line of its own, above this one',
  },
  {
    applies: ({ raw }) => /[\r\n]/.test(raw.replace(/\r?\n$|\r$/, '')),
    message: () => `docker reads only values of one line; ${elsewhere}`,
  },
  {
    applies: ({ quote, rawValue }) => quote !== null && bareSafe.test(rawValue),
    message: () => 'docker keeps the quotes as a part of the value; write the value without quotes',
  },
  {
    applies: ({ quote }) => quote !== null,
    message: () =>
      `docker keeps the quotes as a part of the value, and other readers need them here; ${elsewhere}`,
  },
  {
    applies: ({ value }) => value.includes('$'),
    column: ({ valueColumn, rawValue }) => valueColumn + rawValue.indexOf('$'),
    message: () => `Compose replaces "$" and the name after it with the value of a variable; ${elsewhere}`,
  },
  {
    rule: 'whitespace',
    applies: ({ trailing }) => trailing !== '',
    column: ({ valueColumn, rawValue }) => valueColumn + rawValue.length,
    message: () => 'docker keeps the white space at the end as a part of the value; remove the white space',
  },
  {
    applies: ({ key }) => !/^[A-Za-z_]\w*$/.test(key),
    column: ({ column }) => column,
    message: () =>
      'some readers do not accept this name; use letters, digits and "_", and begin with a letter or "_"',
  },
];

function explain(setting: Setting, differing: readonly Dialect[]): Difference {
  const reason = reasons.find(({ applies }) => applies(setting));
  const who =
    differing.length > 1 ? `${differing.slice(0, -1).join(', ')} and ${differing.at(-1)}` : differing[0];
  return {
    rule: reason?.rule ?? 'not-portable',
    key: setting.key,
    line: setting.line,
    column: reason?.column?.(setting) ?? setting.valueColumn,
    message: reason?.message(setting) ?? `${who} may read another value here; ${elsewhere}`,
  };
}

/** On the line where the value ends; a value of several lines has a column for its first line only. */
function commentColumn({ valueColumn, rawValue, quote, trailing }: Setting): number {
  const isOneLine = !/[\r\n]/.test(rawValue);
  return isOneLine ? valueColumn + rawValue.length + (quote === null ? 0 : 2) + trailing.length : valueColumn;
}
