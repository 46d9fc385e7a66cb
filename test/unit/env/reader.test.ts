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

describe('tokens', () => {
  it('tell key, value, quotes, comment and place of each setting', () => {
    const text = '# first\n\n  export KEY = "va#lue" # why\nB=2 \n';
    const [one, two] = settingsIn(readTokens(text));
    expect(one).toMatchObject({ key: 'KEY', value: 'va#lue', quote: '"', comment: '# why', hasExport: true });
    expect(one).toMatchObject({ line: 3, column: 10, valueColumn: 16, separator: ' = ', trailing: ' ' });
    expect(two).toMatchObject({ key: 'B', value: '2', quote: null, line: 4, column: 1, trailing: ' ' });
  });

  it('count the lines of a value that has several', () => {
    const [, two] = settingsIn(readTokens('A="1\r\n2\n3"\nB=4\n'));
    expect(two).toMatchObject({ key: 'B', line: 4 });
  });

  it.each(envCases)('are the file again when joined: %s', (_, text) => {
    expect(joinTokens(readTokens(text))).toBe(text);
  });
});

describe('the real readers', () => {
  it.each(envCases)('dotenv reads it as we say: %s', (_, text) => {
    expect(asObject(readAs('dotenv', text))).toEqual(dotenv.parse(text));
  });

  it.each(envCases)('where all agree so do we, and where one does not a finding says so: %s', (_, text) => {
    const values = [ours(text), parseEnv(text), dotenv.parse(text), asObject(readAs('docker', text))];
    const isAlike = values.every((one) => JSON.stringify(one) === JSON.stringify(values[0]));
    if (!isAlike) expect(check(text).findings).not.toEqual([]);
  });

  it('what is said to be portable is read alike by everybody', () => {
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

  it('dotenv and our telling of it never differ', () => {
    fc.assert(
      fc.property(trouble, (text) => {
        expect(asObject(readAs('dotenv', text))).toEqual(dotenv.parse(text));
      }),
      { numRuns: 10_000 },
    );
  });
});

describe('whatever the file holds', () => {
  it('it is read, and is the same when joined', () => {
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
  ])('100,000 times %s come to an end', (_, piece) => {
    const text = piece.repeat(100_000);
    expect(joinTokens(readTokens(text))).toBe(text);
    expect(differences(readTokens(text)).length).toBeGreaterThanOrEqual(0);
  });
});
