/**
 * The section `env` of gameops.yaml, which the verbs of .env read without the rest (config.ts), in a fraction of the time
 * that the whole file takes.
 */
import { type Document, isAlias, isMap, isScalar, parseDocument } from 'yaml';
import * as z from 'zod/mini';

const optional = z.optional;

/** What `env check` and deploys require of one setting. */
const userKey = z.strictObject({
  type: z
    ._default(z.enum(['string', 'integer', 'number', 'boolean', 'url', 'email', 'host', 'port']), 'string')
    .check(z.describe('What its value must look like')),
  required: z._default(z.boolean(), false).check(z.describe('A deploy is refused without it')),
  secret: optional(z.boolean()).check(
    z.describe('Whether it is a secret; default: secret if its name says so'),
  ),
  purpose: optional(z.string()).check(z.describe('What `gameops env explain` says about it; default: none')),
  values: optional(z.array(z.string()).check(z.minLength(1))).check(
    z.describe('The only values that it may have; default: any'),
  ),
  min: optional(z.number()).check(
    z.describe('Smallest number, or fewest characters of a text; default: none'),
  ),
  max: optional(z.number()).check(z.describe('Largest number, or most characters of a text; default: none')),
  command: optional(z.string().check(z.minLength(1))).check(
    z.describe('Command that prints its value; default: none'),
  ),
});

const keyName = z.string().check(z.regex(/^[A-Za-z_]\w*$/, 'letters, digits and "_"'));

export const envConfigReader = z.prefault(
  z
    .strictObject({
      keys: z
        ._default(z.record(keyName, userKey), {})
        .check(z.describe('Settings of your own image, by name')),
      provider: optional(z.string().check(z.minLength(1))).check(
        z.describe('Command that prints .env text or a JSON object and wins over .env; default: none'),
      ),
      rules: z
        ._default(z.record(z.string(), z.enum(['off', 'warning', 'error'])), {})
        .check(z.describe('Severity of a rule of `gameops env check` in this project, by name')),
    })
    .check(z.describe('Where settings and secrets come from, and how they are checked.')),
  {},
);

const envText = 'text, a number, true or false; "" is an empty text';

export const serverEnvReader = z
  .prefault(
    z.record(
      z.string().check(z.regex(/^[^\s=]+$/, 'a name without spaces and "="')),
      z.pipe(z.union([z.string(), z.number(), z.boolean()], envText), z.transform(String)),
    ),
    {},
  )
  .check(z.describe('Settings of the server that are not secret; secrets belong in .env'));

/**
 * A setting is text: 0123 and 1.10 under server.env stay as they stand in the file, though YAML takes them for numbers and would
 * give 123 and 1.1.
 */
export function keepTextOfEnv(document: Document): void {
  const settings = document.getIn(['server', 'env'], true);
  if (!isMap(settings)) return;
  for (const pair of settings.items) {
    const value = isAlias(pair.value) ? pair.value.resolve(document) : pair.value;
    if (isScalar(value) && ['number', 'bigint', 'boolean'].includes(typeof value.value))
      pair.value = document.createNode(value.source);
  }
}

const partReader = z.object({
  env: envConfigReader,
  server: z._default(
    z.object({
      image: z._default(z.string(), 'bundled'),
      env: serverEnvReader,
    }),
    { image: 'bundled', env: {} },
  ),
});

export type ConfigPart = z.infer<typeof partReader>;

/** Null when anything is wrong: then reading the whole file (config.ts) says what. */
export function configPart(text: string): ConfigPart | null {
  try {
    const document = parseDocument(text);
    if (document.errors.length > 0 || document.warnings.length > 0) return null;
    keepTextOfEnv(document);
    return partReader.safeParse(document.toJS() ?? {}).data ?? null;
  } catch {
    return null;
  }
}
