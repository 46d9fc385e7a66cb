/** docs/gameops-yaml.md as text: a table of every key of gameops.yaml, made from the JSON Schema that editors get. */
import { yamlTemplate } from '../src/commands/init-template.ts';
import { configJsonSchema } from '../src/config.ts';

interface Schema {
  description?: string;
  default?: unknown;
  enum?: string[];
  minimum?: number;
  maximum?: number;
  properties?: Record<string, Schema>;
  additionalProperties?: Schema | boolean;
}

interface Row {
  key: string;
  fallback: string;
  meaning: string;
}

export const pagePath = 'docs/gameops-yaml.md';

export function configPage(): string {
  const { properties = {} } = configJsonSchema() as Schema;
  const groups = Object.entries(properties).filter(([, { properties: inner }]) => inner !== undefined);
  const single = Object.entries(properties).filter(([, { properties: inner }]) => inner === undefined);
  const parts = [
    intro,
    table(single.flatMap(([key, schema]) => rowsOf(key, schema))),
    ...groups.flatMap(([key, schema]) => [
      `## ${key}`,
      schema.description ?? '',
      table(rowsInside(key, schema)),
    ]),
    '## An example',
    '`gameops init` writes this file:',
    `\`\`\`yaml\n${yamlTemplate({ project: 'arena', port: 8080, tlsPort: 8443 }).trimEnd()}\n\`\`\``,
  ];
  return `${parts.join('\n\n')}\n`;
}

const intro = `<!-- Made from src/config.ts by \`npm run docs\`. Change the descriptions there, not this page. -->

# gameops.yaml

The file is optional and every key has a default. An unknown key is an error that names the file, the line and the nearest
known key. Durations are written as \`500ms\`, \`30s\`, \`5m\` or \`2h\`, sizes as \`256m\` or \`1g\`. Secrets never belong in this
file.

Editors check and complete the file with the JSON Schema \`dist/gameops.schema.json\`; the YAML language server reads it
from a first line \`# yaml-language-server: $schema=<path>\`.`;

/** A key, and the keys inside of what it holds. */
function rowsOf(key: string, schema: Schema): Row[] {
  if (schema.properties !== undefined) return rowsInside(key, schema);
  const named = schema.additionalProperties;
  const inside = typeof named === 'object' ? rowsInside(`${key}.<NAME>`, named) : [];
  return [{ key, ...toldOf(schema) }, ...inside];
}

function rowsInside(key: string, { properties = {} }: Schema): Row[] {
  return Object.entries(properties).flatMap(([name, schema]) => rowsOf(`${key}.${name}`, schema));
}

function toldOf(schema: Schema): Omit<Row, 'key'> {
  const [text = '', told] = (schema.description ?? '').split('; default: ');
  const fallback = schema.default === undefined ? (told ?? '') : `\`${shownValue(schema.default)}\``;
  const allowed = [oneOf(schema), rangeOf(schema)].filter((part) => part !== '');
  return { fallback, meaning: [text, ...allowed].join('. ') };
}

const shownValue = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value));

function oneOf({ enum: values, additionalProperties: named }: Schema): string {
  const known = values ?? (typeof named === 'object' ? named.enum : undefined);
  return known === undefined ? '' : `One of ${known.map((value) => `\`${value}\``).join(', ')}`;
}

function rangeOf({ minimum, maximum }: Schema): string {
  return minimum === undefined || maximum === undefined ? '' : `${minimum} to ${maximum}`;
}

function table(rows: readonly Row[]): string {
  const lines = rows.map(({ key, fallback, meaning }) => `| \`${key}\` | ${fallback} | ${meaning} |`);
  return ['| key | default | meaning |', '|---|---|---|', ...lines].join('\n');
}
