/**
 * What gameops.yaml says under `env`: a part of its schema (config.ts) that the verbs of .env can read by itself, in a
 * fraction of the time that the whole takes.
 */
import { parse } from 'yaml';
import * as z from 'zod/mini';

const optional = z.optional;

/** What `env check` and deploys ask of one setting. */
const userKey = z.strictObject({
  type: z._default(
    z.enum(['string', 'integer', 'number', 'boolean', 'url', 'email', 'host', 'port']),
    'string',
  ),
  required: z._default(z.boolean(), false),
  secret: optional(z.boolean()).check(z.describe('Judged as a secret; default: by its name')),
  purpose: optional(z.string()).check(z.describe('What `env explain` says of it')),
  values: optional(z.array(z.string()).check(z.minLength(1))).check(
    z.describe('The only values it may have'),
  ),
  min: optional(z.number()),
  max: optional(z.number()),
  command: optional(z.string().check(z.minLength(1))).check(z.describe('Command that prints the value')),
});

const keyName = z.string().check(z.regex(/^[A-Za-z_]\w*$/, 'letters, digits and "_"'));

export const envConfigSchema = z.prefault(
  z.strictObject({
    keys: z._default(z.record(keyName, userKey), {}).check(z.describe('Settings of your own image')),
    provider: optional(z.string().check(z.minLength(1))).check(
      z.describe('Command that prints .env text or a JSON object; it wins over .env'),
    ),
    rules: z
      ._default(z.record(z.string(), z.enum(['off', 'warning', 'error'])), {})
      .check(z.describe('Rules of `env check` that are graver, milder or off here')),
  }),
  {},
);

const partSchema = z.object({
  env: envConfigSchema,
  server: z._default(
    z.object({
      image: z._default(z.string(), 'bundled'),
      env: z._default(z.record(z.string(), z.coerce.string()), {}),
    }),
    { image: 'bundled', env: {} },
  ),
});

export type ConfigPart = z.infer<typeof partSchema>;

/** Null where anything is odd: then the whole schema has to say what. */
export function configPart(text: string): ConfigPart | null {
  try {
    return partSchema.safeParse(parse(text) ?? {}).data ?? null;
  } catch {
    return null;
  }
}
