/**
 * What the verbs have in common about a project: reading it as it is, waiting for a quiet moment, and the lock, which is
 * held from before the first change until after the last one.
 */
import { realClock, until } from '../clock.ts';
import { namesOf, port } from '../contract.ts';
import type { Engine, Lock, ObservedContainer } from '../engine/port.ts';
import { isOpsError, OpsError } from '../errors.ts';
import { accessories } from '../foundation/accessories.ts';
import { resolveImages } from '../images/roles.ts';
import { openPlayers, type Players, redisEndpoint } from '../observe/players.ts';
import { type Door, openDoor } from '../proxy/door.ts';
import { type ProjectRecord, readRecord } from '../record/record.ts';
import { keepSecret } from '../report/redact.ts';
import { type Observed, observe } from '../runner/observe.ts';
import type { Context, EnvFile } from './context.ts';

const nobody: Players = {
  online: async (fleets) => new Map([...fleets.keys()].map((release) => [release, null])),
  closed: async () => null,
  order: async () => false,
  handedOver: async () => null,
  close: () => undefined,
};

const closedDoor: Door = {
  ask: async () => ({ ok: false, reason: 'Nginx does not run' }),
  askReplica: async () => ({ ok: false, reason: 'Nginx does not run' }),
  joinReplica: async () => ({ ok: false, reason: 'Nginx does not run' }),
  askPublic: async () => ({ ok: false, reason: 'Nginx does not run' }),
  joinPublic: async () => ({ ok: false, reason: 'Nginx does not run' }),
};

/** Addresses that players use. */
export interface Addresses {
  url: string;
  wsUrl: string;
}

export interface ReadProject {
  engine: Engine;
  /** null: nothing was ever deployed under this name. */
  record: ProjectRecord | null;
  observed: Observed | null;
  addresses: Addresses | null;
}

/** Reads everything, changes nothing; needs neither lock nor .env. */
export async function readProject(context: Context): Promise<ReadProject> {
  const engine = await context.engine();
  const record = await readRecord(engine, context.project);
  if (!record) return { engine, record: null, observed: null, addresses: null };
  const players = await playersOf(context, engine, envOrNull(context));
  try {
    const observed = await observe({ engine, door: await doorOf(context, engine, record), players }, record);
    return { engine, record, observed, addresses: addressesOf(context, record) };
  } finally {
    players.close();
  }
}

export function addressesOf(context: Context, record: ProjectRecord): Addresses | null {
  if (!record.ports) return null;
  const { address } = context.config.http;
  const live = record.releases.find(({ verdict }) => verdict === 'live');
  const domain = live?.proxy ? live.proxy.domain : context.config.domain;
  const host = domain ?? (address === '0.0.0.0' ? '127.0.0.1' : address);
  const at = `${host}:${record.ports.http}`;
  return { url: `http://${at}/`, wsUrl: `ws://${at}/ws` };
}

export async function doorOf(context: Context, engine: Engine, record: ProjectRecord): Promise<Door> {
  keepSecret(record.doorToken);
  const proxy = namesOf(context.project).proxy;
  const running =
    (await engine.observe(context.project)).find((one) => one.name === proxy)?.state === 'running';
  if (!running) return closedDoor;
  const [privateSide, publicSide] = await Promise.all([
    engine.dial(context.project, proxy, port.nginxPrivate),
    engine.dial(context.project, proxy, port.nginxHttp),
  ]);
  return openDoor({
    privateUrl: `http://${privateSide.host}:${privateSide.port}`,
    publicUrl: `http://${publicSide.host}:${publicSide.port}`,
    token: record.doorToken,
    ...(context.config.domain ? { host: context.config.domain } : {}),
  });
}

function envOrNull(context: Context): EnvFile | null {
  try {
    return context.readEnv();
  } catch (error) {
    if (isOpsError(error)) return null;
    throw error;
  }
}

/** When players can't be counted, whatever the reason, their number is unknown; that is never a failure. */
export async function playersOf(context: Context, engine: Engine, env: EnvFile | null): Promise<Players> {
  if (!env?.settings.redis) return nobody;
  try {
    return openPlayers(await redisEndpoint(engine, context.project, env.settings.redis));
  } catch (error) {
    if (isOpsError(error)) return nobody;
    throw error;
  }
}

/**
 * The lock runs `cat`, which only an image of the foundation is sure to have: an own image may hold nothing but its
 * server. Null when the engine has no image for it.
 */
export async function lockImage(
  context: Context,
  containers: readonly ObservedContainer[],
): Promise<string | null> {
  const ours = containers.find(
    ({ role }) => role === 'proxy' || accessories.some(({ name }) => name === role),
  );
  if (ours) return ours.image;
  const roles = await resolveImages(await context.engine(), context.config);
  return Object.values(roles).find(({ info }) => info !== null)?.info?.id ?? containers[0]?.image ?? null;
}

/**
 * For a verb that needs no lock: removes the one-off containers that a killed gameops left. Taking the lock is what removes
 * them; when another command holds it, they are that command's own, or it has swept already.
 */
export async function sweepLeavings(context: Context): Promise<void> {
  const containers = await (await context.engine()).observe(context.project);
  if (!containers.some(({ role }) => role === 'one-off')) return;
  const image = await lockImage(context, containers);
  if (image === null) return;
  await withLock(context, image, async () => undefined).catch((error: unknown) => {
    if (!isOpsError(error, 'LOCKED')) throw error;
  });
}

/** Takes the lock for the verb, and releases it whatever happens. @throws LOCKED */
export async function withLock<T>(
  context: Context,
  image: string,
  use: (lock: Lock) => Promise<T>,
): Promise<T> {
  const engine = await context.engine();
  const lock = await engine.lock(context.project, image, {
    holder: context.operator,
    host: context.host,
    verb: context.verb,
    since: new Date().toISOString(),
  });
  try {
    return await use(lock);
  } finally {
    await lock.release().catch(() => undefined);
  }
}

export function nothingThere(context: Context): OpsError {
  return new OpsError('RELEASE_UNKNOWN', {
    message: `Project ${context.project} has no releases on this engine.`,
    next: ['gameops deploy', 'gameops --project <name> …'],
    facts: { project: context.project },
  });
}

/**
 * Keeps deploys away while the schema changes. Without an engine there are no deploys to keep away.
 * @param use gets a signal that also aborts when the lock is lost. @throws LOCKED
 */
export async function withProjectLock<T>(
  context: Context,
  use: (engine: Engine | null, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const engine = await context.engine().catch((error) => {
    if (isOpsError(error, 'ENGINE_UNREACHABLE')) return null;
    throw error;
  });
  const { project, signal } = context;
  if (engine === null) return use(null, signal);
  const [containers, record] = await Promise.all([engine.observe(project), readRecord(engine, project)]);
  const isKnown = containers.length > 0 || record !== null;
  const image = isKnown ? await lockImage(context, containers) : null;
  if (image === null) return use(engine, signal);
  return withLock(context, image, ({ lost }) => use(engine, AbortSignal.any([signal, lost])));
}

const lookEveryMs = 2_000;

/** Waits without a lock and changes nothing. @throws REDIS_UNREACHABLE when the number of players is unknown */
export async function untilQuiet(context: Context, playersMax: number): Promise<void> {
  let hasTold = false;
  const pace = { deadlineMs: Number.POSITIVE_INFINITY, everyMs: lookEveryMs, signal: context.signal };
  await until(realClock, pace, async () => {
    const online = await playersOnline(context);
    if (online <= playersMax) return true;
    const message = `${online} players are online; waiting for ${playersMax} or fewer`;
    if (!hasTold) context.emit({ type: 'note', level: 'info', message });
    hasTold = true;
    return null;
  });
}

async function playersOnline(context: Context): Promise<number> {
  const { observed } = await readProject(context);
  const running = observed?.world.fleets.filter(({ replicas }) => replicas.some((one) => one.running)) ?? [];
  const counts = running.map(({ players }) => players);
  if (counts.includes(null)) {
    throw new OpsError('REDIS_UNREACHABLE', {
      message:
        "The number of players online is unknown, so gameops can't wait for a quiet moment. Nothing was changed.",
      next: ['gameops doctor', 'gameops deploy (without --when-quiet)'],
    });
  }
  return counts.reduce<number>((sum, one) => sum + (one ?? 0), 0);
}
