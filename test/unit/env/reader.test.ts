/** The reader of .env, held against Node's and dotenv's own; docker's turn is in test/integration/env/env-docker.test.ts. */
import { parseEnv } from 'node:util';
import dotenv from 'dotenv';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { readAs } from '../../../src/env/file/dialects.ts';
import { differences } from '../../../src/env/file/portable.ts';
import { joinTokens, readTokens, settingsIn, valuesIn } from '../../../src/env/file/tokens.ts';
import { checkEnv } from '../../../src/env/rules/check.ts';
import { envCases } from '../../support/env-cases.ts';

const asObject = (values: ReadonlyMap<string, string> | 'refused') =>
  values === 'refused' ? values : Object.fromEntries(values);
const ours = (text: string) =>
  Object.fromEntries([...valuesIn(readTokens(text))].map(([key, { value }]) => [key, value]));
/** Text that is more likely to be trouble than any other. */
const trouble = fc
  .array(
    fc.oneof(
      {
        weight: 6,
        arbitrary: fc.constantFrom(...'A B = \n " \' ` # $ \\ : . - \r \t'.split(/(?<=.) /s), ' ', '\n'),
      },
      {
        weight: 2,
        arbitrary: fc.constantFrom('A=', '\nB="', 'export ', '\\n', '\\"', '\r\n', '\uFEFF', '\u2028'),
      },
      { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 6 }) },
    ),
    { maxLength: 40 },
  )
  .map((parts) => parts.join(''));

function check(text: string) {
  return checkEnv({
    file: '.env',
    text: readTokens(text),
    hasFile: true,
    values: new Map(),
    problems: [],
    isBundled: false,
    userKeys: {},
    example: null,
    facts: null,
    levels: { 'key-order': 'warning' },
  });
}

describe('the tokens of a .env', () => {
  it('have key, value, quotes, comment and place of each setting', () => {
    const text = '# first\n\n  export KEY = "va#lue" # why\nB=2 \n';
    const [one, two] = settingsIn(readTokens(text));
    expect(one).toMatchObject({ key: 'KEY', value: 'va#lue', quote: '"', comment: '# why', hasExport: true });
    expect(one).toMatchObject({ line: 3, column: 10, valueColumn: 16, separator: ' = ', trailing: ' ' });
    expect(two).toMatchObject({ key: 'B', value: '2', quote: null, line: 4, column: 1, trailing: ' ' });
  });

  it('count the lines of a value that has several lines', () => {
    const [, two] = settingsIn(readTokens('A="1\r\n2\n3"\nB=4\n'));
    expect(two).toMatchObject({ key: 'B', line: 4 });
  });

  it.each(envCases)('give the same text when they are joined: %s', (_, text) => {
    expect(joinTokens(readTokens(text))).toBe(text);
  });
});

describe('other readers of .env', () => {
  it.each(envCases)('dotenv reads what gameops says it reads: %s', (_, text) => {
    expect(asObject(readAs('dotenv', text))).toEqual(dotenv.parse(text));
  });

  it.each(envCases)(
    'there is a finding if gameops, Node, dotenv and docker do not read the same: %s',
    (_, text) => {
      const values = [ours(text), parseEnv(text), dotenv.parse(text), asObject(readAs('docker', text))];
      const isAlike = values.every((one) => JSON.stringify(one) === JSON.stringify(values[0]));
      if (!isAlike) expect(check(text).findings).not.toEqual([]);
    },
  );

  it('a text without findings is read alike by gameops, Node, dotenv and docker', () => {
    fc.assert(
      fc.property(trouble, (text) => {
        if (check(text).findings.length > 0) return;
        expect(parseEnv(text)).toEqual(ours(text));
        expect(dotenv.parse(text)).toEqual(ours(text));
        expect(asObject(readAs('docker', text))).toEqual(ours(text));
      }),
      { numRuns: 10_000 },
    );
  });

  it('dotenv reads any text as gameops says it does', () => {
    fc.assert(
      fc.property(trouble, (text) => {
        expect(asObject(readAs('dotenv', text))).toEqual(dotenv.parse(text));
      }),
      { numRuns: 10_000 },
    );
  });
});

describe('any content of a .env', () => {
  it('is read, and its tokens give the same text when they are joined', () => {
    fc.assert(
      fc.property(fc.oneof(trouble, fc.string({ unit: 'binary' })), (text) => {
        expect(joinTokens(readTokens(text))).toBe(text);
        expect(check(text).errors).toBeGreaterThanOrEqual(0);
      }),
      { numRuns: 10_000 },
    );
  });

  it.each([
    ['quotes that never close', 'A="\n'],
    ['quotes of every kind', 'A="\nB=\'\nC=`\n'],
    ['escaped quotes', 'A="\\"\n'],
    ['backslashes', `A="${'\\'.repeat(50)}\n`],
    ['blank lines', '\n  \n'],
    ['empty values', 'A=\n'],
    ['broken lines', 'nothing here\n'],
    ['comments with quotes', '# it\'s "so"\n'],
    ['white space without end', ' \t'],
    ['the same key', 'DB_HOST=localhost\n'],
  ])('is read to the end, also 100,000 times %s', (_, piece) => {
    const text = piece.repeat(100_000);
    expect(joinTokens(readTokens(text))).toBe(text);
    expect(differences(readTokens(text)).length).toBeGreaterThanOrEqual(0);
  });
});
