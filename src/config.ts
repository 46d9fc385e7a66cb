/**
 * gameops.yaml: optional, every key has a default, unknown keys are errors with a suggestion.
 * The zod schema below is the documentation, the validator and the source of the shipped JSON Schema.
 */
import { z } from 'zod';

const durationUnitMs = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 } as const;

/** "500ms", "30s", "5m", "2h" → milliseconds, or null. */
export function parseDurationMs(text: string): number | null {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text.trim());
  if (!match) return null;
  return Math.round(Number(match[1]) * durationUnitMs[match[2] as keyof typeof durationUnitMs]);
}

/** "512m", "2g", "64k" or bytes → bytes, or null. */
export function parseBytes(text: string): number | null {
  const match = /^(\d+(?:\.\d+)?)([kmg]?)b?$/i.exec(text.trim());
  if (!match) return null;
  const factor = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }[(match[2] ?? '').toLowerCase()] ?? 1;
  return Math.round(Number(match[1]) * factor);
}

const duration = (fallback: string) =>
  z
    .string()
    .default(fallback)
    .refine((text) => parseDurationMs(text) !== null, 'a duration such as 500ms, 30s, 5m or 2h');
const bytes = (fallback: string) =>
  z
    .string()
    .default(fallback)
    .refine((text) => parseBytes(text) !== null, 'a size such as 256m or 1g');
const publishedPort = (fallback: number) => z.int().min(0).max(65_535).default(fallback);

export const projectName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,30}[a-z0-9]$/, 'lower-case letters, digits and dashes, 2 to 32, starting with a letter');

export const configSchema = z.strictObject({
  project: projectName.optional().describe('Name of the project; default: the name of the folder'),
  domain: z.string().min(1).optional().describe('Host name players use; default: none, answers on any name'),
  http: z
    .strictObject({
      address: z.string().default('127.0.0.1').describe('Address Nginx is published on; 0.0.0.0 for the world'),
      port: publishedPort(8080).describe('HTTP port; 0 picks a free one, once'),
      tlsPort: publishedPort(8443).describe('HTTPS port; 0 picks a free one, once'),
    })
    .prefault({}),
  server: z
    .strictObject({
      image: z.string().default('bundled').describe('"bundled", or any image that answers /readyz'),
      replicas: z.int().min(1).max(50).default(2),
      port: z.int().min(1).max(65_535).default(3000).describe('Port the server listens on in its container'),
      memory: bytes('512m').describe('Memory limit of one replica'),
      cpus: z.number().positive().max(64).default(1).describe('CPU limit of one replica'),
      env: z.record(z.string(), z.coerce.string()).default({}).describe('Settings beside .env; not for secrets'),
      probe: z.string().startsWith('/').default('/readyz').describe('Path that answers 200 when ready for traffic'),
      settingsAs: z
        .enum(['file', 'env'])
        .default('file')
        .describe('How an image that is not ours gets its settings; "env" shows them in docker inspect'),
      security: z
        .strictObject({
          user: z.string().optional().describe('Numeric uid[:gid]; default: 10001 (bundled), the image user (others)'),
          readOnly: z.boolean().default(true).describe('Read-only root file system'),
          capabilities: z.array(z.string()).default([]).describe('Capabilities added back after dropping all'),
        })
        .prefault({}),
    })
    .prefault({}),
  web: z
    .strictObject({ dir: z.string().optional().describe('Folder of static files; default: the bundled page') })
    .prefault({}),
  database: z
    .strictObject({ migrations: z.string().default('migrations').describe('Folder of SQL migrations') })
    .prefault({}),
  images: z
    .strictObject({
      nginx: z.string().default('nginx:1.30'),
      postgres: z.string().default('postgres:18'),
      redis: z.string().default('redis:8'),
      node: z.string().default('node:24-slim'),
    })
    .prefault({}),
  accessories: z
    .strictObject({
      postgres: z.enum(['auto', 'managed', 'external']).default('auto'),
      redis: z.enum(['auto', 'managed', 'external']).default('auto'),
    })
    .prefault({}),
  deploy: z
    .strictObject({
      strategy: z.enum(['blue-green', 'rolling']).default('blue-green'),
      ready: duration('60s').describe('How long a fleet may take to become ready'),
      watch: duration('30s').describe('How long the new fleet is watched before commitment'),
      drain: duration('5m').describe('How long the old fleet may take to let its players go'),
      keep: z.int().min(1).max(20).default(3).describe('Releases kept for rollback'),
    })
    .prefault({}),
});

export type Config = z.infer<typeof configSchema>;
