/**
 * Templates and data → the text of one configuration. Promises that whatever reaches the text was looked at first: a
 * name, an address or a token that could end a directive is refused, never escaped. PURE.
 */
import { Eta } from 'eta';
import { z } from 'zod';
import { doorHeader, endpoint, path, port, unixSocketsFolder } from '../contract.ts';
import { OpsError } from '../errors.ts';
import type { ProxyFeatures } from './features.ts';
import { enclosed, type Generation, type Target } from './generation.ts';
import { invalidTemplates, type Templates } from './templates.ts';

export interface ConfigInput {
  generation: Generation;
  features: ProxyFeatures;
  /** null answers on any name. */
  domain: string | null;
  doorToken: string;
  /** CIDR of the project's network, and the ranges in it where no replica ever is. */
  subnet: string;
  notReplicas: readonly string[];
  /** Paths in the container; null until there is a certificate. */
  tls: { certificate: string; key: string } | null;
  workers: number;
  /** The static files are the operator's: no content security policy and no eternal caching is assumed for them. */
  foreignPage: boolean;
}

const workerConnections = 16_384;

const address = z.ipv4();
const safePath = z.string().regex(/^\/[\w./-]+$/);
const target = z.object({
  release: z.int(),
  replica: z.int(),
  address,
  port: z.int().min(1).max(65_535),
  unixSocket: safePath.nullish(),
});
const checked = z.object({
  generation: z.object({
    generation: z.int().positive(),
    targets: z.array(target),
    backups: z.array(target),
    pageRelease: z.int().nullable(),
  }),
  domain: z
    .string()
    .regex(
      /^(?=.{1,253}$)[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*$/,
      'a host name',
    )
    .nullable(),
  doorToken: z.string().regex(/^[\w-]{16,}$/),
  subnet: z.cidrv4(),
  notReplicas: z.array(z.cidrv4()),
  workers: z.int().min(1).max(64),
  tls: z.object({ certificate: safePath, key: safePath }).nullable(),
});

/** @throws TEMPLATE_INVALID, CONFIG_INVALID; nothing was touched then */
export function renderConfig(templates: Templates, input: ConfigInput): string {
  mustBeSafe(input);
  const eta = new Eta({ autoEscape: false, autoTrim: [false, 'nl'] });
  let compiling: string | null = null;
  try {
    for (const [name, text] of templates) {
      compiling = `${name}.eta`;
      eta.loadTemplate(`@${name}`, text);
    }
    compiling = null;
    return enclosed(input.generation.generation, eta.render('@nginx.conf', templateInput(input)));
  } catch (cause) {
    throw invalidTemplates(
      `The Nginx ${compiling === null ? 'templates' : `template ${compiling}`} can't be rendered: ${cause instanceof Error ? firstLines(cause.message) : cause}`,
      cause,
    );
  }
}

function templateInput(input: ConfigInput) {
  const { generation, routes, pageRelease } = input.generation;
  const targets = input.generation.targets.map(withPlace);
  const backups = input.generation.backups.map(withPlace);
  return {
    generation,
    targets,
    groups: routes.map(({ release }) => ({
      release,
      targets: targets.filter((target) => target.release === release),
      others: targets.filter((target) => target.release !== release),
    })),
    leaving: backups,
    answer: JSON.stringify({ generation, nginx: '$nginx_version', routes }),
    page: pageRelease === null ? null : { release: pageRelease, ours: !input.foreignPage },
    features: input.features,
    domain: input.domain,
    doorToken: input.doorToken,
    doorHeader,
    subnet: input.subnet,
    notReplicas: input.notReplicas,
    tls: input.tls,
    workers: input.workers,
    workerConnections,
    webRoot: path.web,
    unixSocketsFolder: `${path.unixSockets}/${unixSocketsFolder}`,
    socketPath: endpoint.socket,
    port: { http: port.nginxHttp, tls: port.nginxTls, private: port.nginxPrivate },
  };
}

/** `at`: what an upstream's `server` is given. */
function withPlace(target: Target) {
  const { address, port, unixSocket } = target;
  return { ...target, at: unixSocket ? `unix:${unixSocket}` : `${address}:${port}` };
}

function mustBeSafe(input: ConfigInput): void {
  const parsed = checked.safeParse(input);
  if (parsed.success) return;
  const issue = parsed.error.issues[0];
  const key = issue?.path.join('.') ?? '';
  throw new OpsError('CONFIG_INVALID', {
    message: `Nginx can't be configured: ${key} is not valid (${issue?.message}). Nothing was changed.`,
    next:
      key === 'domain'
        ? ['write a host name such as play.example.com as domain in gameops.yaml']
        : ['gameops doctor'],
    facts: { key },
  });
}

const firstLines = (text: string) => text.split('\n').slice(0, 6).join('\n');
