/**
 * Rules over the text alone: lines that are not settings, quotes, white space, order, and how other readers read the
 * file. Pure.
 */

import { differences } from '../file/portable.ts';
import { type EnvText, type Setting, settingsIn } from '../file/tokens.ts';
import { shownKey } from './findings.ts';
import { type Found, found } from './found.ts';

export function structureFindings(text: EnvText): Found[] {
  const settings = settingsIn(text);
  return [
    ...brokenLines(text),
    ...unclosedQuotes(settings),
    ...duplicates(settings),
    ...keyNames(settings),
    ...marksAndEnds(text),
    ...outOfOrder(settings),
    ...unlikeReadings(text),
  ];
}

function brokenLines({ pieces }: EnvText): Found[] {
  return pieces.flatMap(({ kind, line, column, raw }) => {
    if (raw.includes('\uFFFD'))
      return [
        found(
          'syntax',
          { line, column: 1 + raw.indexOf('\uFFFD') },
          'this is not UTF-8, so docker refuses the file; save it as UTF-8',
        ),
      ];
    if (raw.includes('\0'))
      return [
        found(
          'syntax',
          { line, column: 1 + raw.indexOf('\0') },
          'this line has a NUL byte, which no environment variable can hold; check that the file is text',
        ),
      ];
    if (kind !== 'broken') return [];
    const message =
      'expected KEY=value or a comment; Node joins such a line to the next key, docker takes it for the name of a variable';
    return [found('syntax', { line, column }, message)];
  });
}

function unclosedQuotes(settings: readonly Setting[]): Found[] {
  return settings
    .filter(({ isUnclosed }) => isUnclosed)
    .map((setting) =>
      found(
        'unclosed-quote',
        atValue(setting),
        'the value begins with a quote that does not end it; remove the quotes, or close them and use no others inside',
      ),
    );
}

function duplicates(settings: readonly Setting[]): Found[] {
  const first = new Map<string, Setting>();
  return settings.flatMap((setting) => {
    const before = first.get(setting.key);
    if (before === undefined) first.set(setting.key, setting);
    if (before === undefined) return [];
    return [
      found(
        'duplicate-key',
        atKey(setting),
        `${shownKey(setting.key)} is on line ${before.line} already; gameops takes the last one, docker passes on both; keep one`,
      ),
    ];
  });
}

function keyNames(settings: readonly Setting[]): Found[] {
  return settings
    .filter(({ key }) => !/^[A-Za-z_]\w*$/.test(key))
    .map((setting) =>
      found(
        'key-name',
        atKey(setting),
        'expected a name of letters, digits and "_" that does not begin with a digit',
      ),
    );
}

function marksAndEnds({ mark, pieces }: EnvText): Found[] {
  const odd = pieces.find(({ raw }) => raw.includes('\r'));
  return [
    ...(mark === ''
      ? []
      : [
          found(
            'byte-order-mark',
            { line: 1, column: 1 },
            'the file begins with a byte order mark, which Node takes for a part of the first key; save it without the mark',
          ),
        ]),
    ...(odd === undefined
      ? []
      : [
          found(
            'windows-line-ends',
            { line: odd.line, column: 1 + odd.raw.indexOf('\r') },
            'the file has Windows line ends; save it with "\\n" line ends',
          ),
        ]),
  ];
}

/** Within each group of lines: a blank line or a comment begins a new one. */
function outOfOrder(settings: readonly Setting[]): Found[] {
  return settings.flatMap((setting, at) => {
    const before = settings[at - 1];
    const isNeighbour =
      before !== undefined && before.line + (before.raw.match(/\n/g)?.length ?? 0) === setting.line;
    if (!isNeighbour || before.key <= setting.key) return [];
    return [
      found('key-order', atKey(setting), `${shownKey(setting.key)} belongs before ${shownKey(before.key)}`),
    ];
  });
}

function unlikeReadings(text: EnvText): Found[] {
  return differences(text).map(({ rule, message, ...place }) => found(rule, place, message));
}

function atKey({ key, line, column }: Setting) {
  return { key, line, column };
}

function atValue({ key, line, valueColumn }: Setting) {
  return { key, line, column: valueColumn };
}
