/**
 * Has the images of every role on the engine before anything that runs is touched.
 * Order: the configured reference on the engine, one built from Debian's packages earlier, a pull, and only when no
 * registry answers, a build from Debian's packages, announced. Never replaces an image that the user configured.
 */
import { type Config, configSchema } from '../config.ts';
import type { Engine, ImageInfo } from '../engine/port.ts';
import { isOpsError, OpsError } from '../errors.ts';
import type { Emit } from '../report/events.ts';
import { type DebianImage, ensureDebianImage, findDebianImage } from './debian.ts';
import { digestRefOf, pullTold } from './pull.ts';

export const imageRoles = ['nginx', 'postgres', 'redis', 'node'] as const;
export type ImageRole = (typeof imageRoles)[number];
export type ImageSource = 'engine' | 'registry' | 'debian';

export interface ResolvedImage {
  ref: string;
  /** null: not on the engine. */
  info: ImageInfo | null;
  source: 'engine' | 'debian' | null;
}

export interface PreparedImage {
  ref: string;
  id: string;
  source: ImageSource;
  /** By digest; null for an image that never was in a registry. */
  digestRef: string | null;
}

const defaults = configSchema.parse({}).images;

/** Only a default may be replaced by a Debian build: what a user configured is what a user gets. */
export function isDefaultImage(config: Pick<Config, 'images'>, role: ImageRole): boolean {
  return config.images[role] === defaults[role];
}

/** What `prepareImages` would use without fetching anything. Changes nothing. */
export async function resolveImages(
  engine: Engine,
  config: Pick<Config, 'images'>,
): Promise<Record<ImageRole, ResolvedImage>> {
  const debian = await findDebianImage(engine);
  return forEachRole(imageRoles, async (role) => {
    const ref = config.images[role];
    const info = await engine.image(ref);
    if (info) return { ref, info, source: 'engine' as const };
    if (debian && isDefaultImage(config, role))
      return { ref: debian.ref, info: debian.info, source: 'debian' as const };
    return { ref, info: null, source: null };
  });
}

/**
 * @throws REGISTRY_UNREACHABLE, REGISTRY_DENIED, IMAGE_NOT_FOUND for an image that can't be had
 * @throws IMAGE_BUILD_FAILED, DISK_TOO_FULL when no registry answers and none can be built here
 */
export async function prepareImages(
  engine: Engine,
  config: Pick<Config, 'images'>,
  { source, emit, signal }: { source: 'auto' | 'registry' | 'debian'; emit: Emit; signal?: AbortSignal },
): Promise<Record<ImageRole, PreparedImage>> {
  const prepared: Partial<Record<ImageRole, PreparedImage>> = {};
  const missing: ImageRole[] = [];
  if (source === 'registry') {
    missing.push(...imageRoles);
  } else {
    const resolved = await resolveImages(engine, config);
    for (const role of imageRoles) {
      const { ref, info, source: from } = resolved[role];
      const isForced = source === 'debian' && from === 'engine' && isDefaultImage(config, role);
      if (info && from && !isForced) prepared[role] = preparedAs(ref, info, from);
      else missing.push(role);
    }
  }
  const built = missing.filter((role) => source === 'debian' && isDefaultImage(config, role));
  const asked = missing.filter((role) => !built.includes(role));
  built.push(
    ...(await pullAll(engine, config, { asked, mayBuild: source === 'auto', prepared, emit, signal })),
  );
  if (built.length > 0) {
    const debian = await ensureDebianImage(engine, signal ? { emit, signal } : { emit });
    for (const role of built) prepared[role] = preparedAs(debian.ref, debian.info, 'debian');
    emit({
      type: 'note',
      level: 'info',
      message: announcement(debian, source === 'debian' ? 'asked' : 'no registry'),
    });
  }
  return prepared as Record<ImageRole, PreparedImage>;
}

/** Pulls in parallel into `prepared`; returns the roles whose registry did not answer and that may be built. */
async function pullAll(
  engine: Engine,
  config: Pick<Config, 'images'>,
  pull: {
    asked: readonly ImageRole[];
    mayBuild: boolean;
    prepared: Partial<Record<ImageRole, PreparedImage>>;
    emit: Emit;
    signal: AbortSignal | undefined;
  },
): Promise<ImageRole[]> {
  const pulls = await Promise.allSettled(
    pull.asked.map((role) => pullTold(engine, config.images[role], pull)),
  );
  const unreachable: ImageRole[] = [];
  for (const [index, result] of pulls.entries()) {
    const role = pull.asked[index] as ImageRole;
    if (result.status === 'fulfilled') {
      pull.prepared[role] = preparedAs(config.images[role], result.value, 'registry');
    } else if (isDefaultImage(config, role) && isOpsError(result.reason, 'REGISTRY_UNREACHABLE')) {
      if (!pull.mayBuild) throw mayBeBuilt(result.reason);
      unreachable.push(role);
    } else {
      throw result.reason;
    }
  }
  return unreachable;
}

/** What `--source registry` insisted on can't be had; what it ruled out can. */
function mayBeBuilt({ code, message, next, facts }: OpsError): OpsError {
  return new OpsError(code, { message, next: ['gameops images prepare --source debian', ...next], facts });
}

function preparedAs(ref: string, info: ImageInfo, source: ImageSource): PreparedImage {
  return { ref, id: info.id, source, digestRef: digestRefOf(ref, info) };
}

/** Pure. */
export function announcement(
  image: Pick<DebianImage, 'versions' | 'suite'>,
  why: 'asked' | 'no registry',
): string {
  const start = why === 'asked' ? 'as asked' : 'no registry answers';
  return `${start}: using ${image.versions} from Debian packages (${image.suite.name}) instead of the official images`;
}

async function forEachRole<T>(
  roles: readonly ImageRole[],
  ask: (role: ImageRole) => Promise<T>,
): Promise<Record<ImageRole, T>> {
  const entries = await Promise.all(roles.map(async (role) => [role, await ask(role)] as const));
  return Object.fromEntries(entries) as Record<ImageRole, T>;
}
