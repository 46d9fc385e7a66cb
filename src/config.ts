/**
 * gameops.yaml: optional, every key has a default, unknown keys are errors with a suggestion.
 * The zod schema below is the validator, and the source of the shipped JSON Schema and of docs/gameops-yaml.md
 * (npm run docs). A default that is no fixed value stands at the end of a description, after "; default: ".
 */
import { lstatSync } from 'node:fs';
import { relative } from 'node:path';
import { closest, distance } from 'fastest-levenshtein';
import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { envConfigReader, keepTextOfEnv, serverEnvReader } from './env/config-part.ts';
import { configBytesMax, readUpTo } from './env/file/text.ts';
import { OpsError } from './errors.ts';
import { expectedDuration, megabyte, parseBytes, parseDurationMs } from './units.ts';

/** Text with a unit in the file, a number for everybody who reads the configuration. */
const measure = (fallback: string, parse: (text: string) => number | null, expected: string) =>
  z
    .string(expected)
    .default(fallback)
    .transform((text, context) => {
      const measured = parse(text);
      if (measured !== null) return measured;
      context.issues.push({ code: 'custom', message: expected, input: text });
      return z.NEVER;
    });
const duration = (fallback: string) => measure(fallback, parseDurationMs, expectedDuration);
/** Docker takes 0 for "no limit", and refuses less than 6 MB only when a replica is made. */
const memoryBytesMin = 6 * megabyte;
const memory = (fallback: string) =>
  measure(
    fallback,
    (text) => {
      const size = parseBytes(text);
      return size !== null && size >= memoryBytesMin ? size : null;
    },
    'a size such as 256m or 1g, at least 6m',
  );
const ownership = z.enum(['auto', 'managed', 'external']).default('auto');
const publishedPort = (fallback: number) => z.int().min(0).max(65_535).default(fallback);

export const projectName = z
  .string()
  .regex(
    /^[a-z][a-z0-9-]{0,30}[a-z0-9]$/,
    'lower-case letters, digits and dashes, 2 to 32, starting with a letter',
  );

export const configSchema = z.strictObject({
  project: projectName
    .optional()
    .describe('Name of the project, part of every name on the engine; default: the name of the folder'),
  domain: z
    .string()
    .regex(/^(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/i, 'a host name')
    .optional()
    .describe('Host name that players use; default: none, Nginx answers to any name'),
  http: z
    .strictObject({
      address: z
        .ipv4('an IPv4 address of this host')
        .default('127.0.0.1')
        .describe('Address that Nginx is published on; 0.0.0.0 opens it to the world'),
      port: publishedPort(8080).describe('HTTP port; 0 picks a free port once and keeps it'),
      tlsPort: publishedPort(8443).describe('HTTPS port; 0 picks a free port once and keeps it'),
      templates: z
        .string()
        .optional()
        .describe('Folder of Nginx templates that replace the shipped ones of the same name; default: none'),
    })
    .refine(({ port, tlsPort }) => port === 0 || port !== tlsPort, {
      path: ['tlsPort'],
      error: 'another port than http.port',
    })
    .describe('Where players reach the project.')
    .prefault({}),
  server: z
    .strictObject({
      image: z
        .string()
        .default('bundled')
        .describe('`bundled` is the game that comes with gameops; any other image is your own'),
      replicas: z.int().min(1).max(50).default(2).describe('Servers that run side by side'),
      port: z
        .int()
        .min(1)
        .max(65_535)
        .default(3000)
        .describe('Port that the server listens on in its container'),
      memory: memory('512m').describe('Memory limit of one replica'),
      cpus: z.number().positive().max(64).default(1).describe('CPU limit of one replica'),
      env: serverEnvReader,
      probe: z
        .string()
        .startsWith('/')
        .regex(/^\S+$/, 'a path without spaces')
        .default('/readyz')
        .describe('Path that answers 200 when the server is ready for traffic'),
      settingsAs: z
        .enum(['file', 'env'])
        .default('file')
        .describe(
          'How your own image gets its settings: as a file, or as environment variables, which `docker inspect` shows',
        ),
      security: z
        .strictObject({
          user: z
            .string()
            .regex(/^\d+(:\d+)?$/, 'a numeric uid or uid:gid, in quotes')
            .optional()
            .describe(
              'Numeric uid or uid:gid, in quotes; default: 10001 for the bundled image, else the user of the image',
            ),
          readOnly: z.boolean().default(true).describe('The root file system of a replica is read-only'),
          capabilities: z
            .array(z.string())
            .default([])
            .describe('Linux capabilities that a replica keeps; all others are dropped'),
        })
        .describe('What a replica may do.')
        .prefault({}),
    })
    .transform(({ memory, ...rest }) => ({ ...rest, memoryBytes: memory }))
    .describe('The game server.')
    .prefault({}),
  web: z
    .strictObject({
      dir: z.string().optional().describe('Folder of static files; default: the bundled page'),
    })
    .describe('The page that players load.')
    .prefault({}),
  database: z
    .strictObject({ migrations: z.string().default('migrations').describe('Folder of SQL migrations') })
    .describe('The schema of the database.')
    .prefault({}),
  images: z
    .strictObject({
      nginx: z.string().default('nginx:1.30').describe('Image of Nginx'),
      postgres: z.string().default('postgres:18').describe('Image of the Postgres that gameops runs'),
      redis: z.string().default('redis:8').describe('Image of the Redis that gameops runs'),
      node: z.string().default('node:24-slim').describe('Image that the bundled game server is built on'),
    })
    .describe('Images from a registry. An accessory keeps the image that it was made with.')
    .prefault({}),
  accessories: z
    .strictObject({
      postgres: ownership.describe('`auto`: gameops runs Postgres if DB_HOST in .env is `postgres`'),
      redis: ownership.describe('`auto`: gameops runs Redis if the host in REDIS_URL in .env is `redis`'),
    })
    .describe(
      'Whether gameops runs Postgres and Redis. `managed` and `external` refuse a .env that says otherwise.',
    )
    .prefault({}),
  env: envConfigReader,
  deploy: z
    .strictObject({
      strategy: z
        .enum(['blue-green', 'rolling'])
        .default('blue-green')
        .describe('All replicas are replaced at once, or a quarter of them at a time'),
      ready: duration('60s').describe('How long a new fleet may take to become ready'),
      watch: duration('30s').describe('How long the new fleet is watched before the deploy commits to it'),
      drain: duration('5m').describe('How long the old fleet may take to hand over its players'),
      keep: z.int().min(1).max(20).default(3).describe('Releases that are kept, stopped, for rollback'),
    })
    .transform(({ ready, watch, drain, ...rest }) => ({
      ...rest,
      readyMs: ready,
      watchMs: watch,
      drainMs: drain,
    }))
    .describe('How a release replaces another one.')
    .prefault({}),
  backup: z
    .strictObject({
      dir: z
        .string()
        .min(1)
        .default('backups')
        .describe('Folder of backups on the machine that gameops runs on, with a folder for each project'),
      keep: z
        .int()
        .min(1)
        .max(1000)
        .default(7)
        .describe('Backups that are kept; a new backup removes older ones'),
    })
    .describe('Backups of the database.')
    .prefault({}),
});

/** What the code reads: numbers, with the unit last in the name. */
export type Config = z.infer<typeof configSchema>;

export const defaultConfig = (): Config => configSchema.parse({});

/**
 * Reads gameops.yaml; a file that is not there is all defaults unless it was asked for by name.
 * @throws CONFIG_INVALID naming file:line, key, what was expected, and for an unknown key the nearest known one
 */
export function loadConfig(path: string, { mustExist }: { mustExist: boolean }): Config {
  // A link that leads nowhere is no missing file: with all defaults, another project would be deployed.
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) {
    if (!mustExist) return defaultConfig();
    throw invalid(path, [{ line: 0, key: '', expected: 'expected a file at this path (named by --config)' }]);
  }
  return parseConfig(readText(path), path);
}

/** @throws CONFIG_INVALID */
export function parseConfig(text: string, path: string): Config {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: true });
  // A warning is about something that would be left out, such as a tag (!secret) that nobody resolves.
  const broken = document.errors[0] ?? document.warnings[0];
  if (broken) {
    const [summary = 'YAML'] = broken.message.split(' at line ');
    throw invalid(path, [
      { line: broken.linePos?.[0].line ?? 1, key: '', expected: `expected YAML: ${summary}` },
    ]);
  }
  // An empty file is a document without a value, so it gets every default.
  const parsed = configSchema.safeParse(contentOf(document, path) ?? {});
  if (parsed.success) return parsed.data;
  throw invalid(
    path,
    parsed.error.issues.flatMap((issue) => problemsOf(issue, document, lines)),
  );
}

/** Aliases are resolved late, so a wrong alias, or too many aliases, are found only here. */
function contentOf(document: Document, path: string): unknown {
  try {
    keepTextOfEnv(document);
    return document.toJS();
  } catch (error) {
    const expected = `expected YAML: ${error instanceof Error ? error.message : String(error)}`;
    throw invalid(path, [{ line: 0, key: '', expected }]);
  }
}

interface ConfigProblem {
  /** From 1; 0 when there is no line to show. */
  line: number;
  key: string;
  expected: string;
}

function invalid(path: string, problems: readonly ConfigProblem[]): OpsError {
  const file = relative(process.cwd(), path) || path;
  const shown = problems.map(({ line, key, expected }) => {
    const where = line > 0 ? `${file}:${line}` : file;
    return key === '' ? `${where}: ${expected}` : `${where}: ${key}: ${expected}`;
  });
  return new OpsError('CONFIG_INVALID', {
    message: `The configuration can't be used, nothing was changed.\n${shown.join('\n')}`,
    next: [`correct ${file}`, 'gameops doctor'],
    facts: { file, line: problems[0]?.line ?? 0, key: problems[0]?.key ?? '', problems: shown },
  });
}

function problemsOf(issue: z.core.$ZodIssue, document: Document, lines: LineCounter): ConfigProblem[] {
  const at = issue.path.map((part) => (typeof part === 'symbol' ? String(part) : part));
  if (issue.code !== 'unrecognized_keys') {
    return [
      { line: lineOf(document, lines, at), key: at.join('.'), expected: `expected ${expectedOf(issue)}` },
    ];
  }
  const known = knownKeysAt(at);
  return issue.keys.map((key) => ({
    line: lineOf(document, lines, [...at, key]),
    key: [...at, key].join('.'),
    expected: `unknown key${suggestionFor(key, known)}`,
  }));
}

function expectedOf(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'invalid_type':
      // A message of this file's own names more than a type.
      if (!issue.message.startsWith('Invalid input')) return issue.message;
      return (
        {
          int: 'a whole number',
          number: 'a number',
          string: 'text (a number needs quotes)',
          object: 'a group of keys',
          record: 'a group of keys',
          boolean: 'true or false',
          array: 'a list',
        }[issue.expected as string] ?? issue.expected
      );
    case 'invalid_value':
      return `one of ${issue.values.join(', ')}`;
    case 'too_small':
      return `${issue.origin === 'string' ? 'text that is not empty' : `${issue.inclusive ? 'at least' : 'more than'} ${issue.minimum}`}`;
    case 'too_big':
      return `at most ${issue.maximum}`;
    case 'invalid_key':
      return issue.issues[0]?.message ?? 'another name';
    case 'invalid_format':
      return issue.format === 'starts_with' ? 'a path that starts with /' : issue.message;
    default:
      return issue.message;
  }
}

/** The line of the key, or of the nearest parent that is written down. */
function lineOf(document: Document, lines: LineCounter, path: readonly (string | number)[]): number {
  const parent = path.length > 1 ? document.getIn(path.slice(0, -1), true) : document.contents;
  const last = path.at(-1);
  if (isMap(parent)) {
    const pair = parent.items.find((item) => isScalar(item.key) && String(item.key.value) === String(last));
    if (pair && isScalar(pair.key) && pair.key.range) return lines.linePos(pair.key.range[0]).line;
  }
  if (path.length === 0) return 1;
  const node = document.getIn(path, true);
  if (isNode(node) && node.range) return lines.linePos(node.range[0]).line;
  return lineOf(document, lines, path.slice(0, -1));
}

function knownKeysAt(path: readonly (string | number)[]): string[] {
  let schema: unknown = configSchema;
  for (const part of path) schema = shapeOf(schema)[part];
  return Object.keys(shapeOf(schema));
}

/** The keys of a group, without the schemas around it: its default, and its change into numbers. */
function shapeOf(schema: unknown): Record<string | number, unknown> {
  if (schema instanceof z.ZodPrefault || schema instanceof z.ZodDefault || schema instanceof z.ZodOptional) {
    return shapeOf(schema.unwrap());
  }
  if (schema instanceof z.ZodPipe) return shapeOf(schema.in);
  return schema instanceof z.ZodObject ? schema.shape : {};
}

function suggestionFor(key: string, known: readonly string[]): string {
  if (known.length === 0) return '';
  const nearest = closest(key, known);
  if (distance(key, nearest) <= Math.max(2, key.length / 3)) return `; did you mean ${nearest}?`;
  return `; known here: ${known.join(', ')}`;
}

function readText(path: string): string {
  try {
    return readUpTo(path, configBytesMax);
  } catch (error) {
    const reason = error instanceof Error && 'code' in error ? String(error.code) : 'unreadable';
    throw invalid(path, [{ line: 0, key: '', expected: `expected a file that can be read (${reason})` }]);
  }
}

/** For editors: `# yaml-language-server: $schema=` may point at it. The build writes it to dist/. */
export function configJsonSchema(): object {
  return z.toJSONSchema(configSchema, { io: 'input' });
}
