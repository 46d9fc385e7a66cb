/**
 * Makes sure that the accessories run. Promises that a deploy never recreates or restarts a running one and never gives it another
 * password; a difference from gameops.yaml is only reported. Fails at once when one exits, with its last log lines.
 */
import { realClock, until } from '../clock.ts';
import { path } from '../contract.ts';
import type { ContainerSpec, Engine, ExecResult, ObservedContainer } from '../engine/port.ts';
import { isOpsError, OpsError } from '../errors.ts';
import type { Emit } from '../report/events.ts';
import { megabyte } from '../units.ts';
import { accessories } from './accessories.ts';
import type { Accessory, AccessoryName, AccessorySettings, MadeAccessory, Ownership } from './model.ts';

export interface AccessoriesInput {
  project: string;
  /** Complete for those that are managed. */
  settings: Partial<AccessorySettings>;
  owned: Record<AccessoryName, Ownership>;
  /** References or ids that are on the engine. */
  images: Record<AccessoryName, string>;
  replicas: number;
  connectionsPerReplica?: number;
  deadlineMs?: number;
  signal?: AbortSignal;
}

type Wanted = Accessory & MadeAccessory;

/** The project's network must be there. @throws ACCESSORY_NOT_READY, REDIS_UNREACHABLE (another password) */
export async function ensureAccessories(engine: Engine, input: AccessoriesInput, emit: Emit): Promise<void> {
  const wanted = wantedOf(input);
  if (wanted.length === 0) return;
  const there = new Map(
    (await engine.observe(input.project)).map((container) => [container.name, container]),
  );
  const deadline = Date.now() + (input.deadlineMs ?? 120_000);
  // All of them are awaited, also when one fails: nothing may still be in the making when the lock is released.
  const ended = await Promise.allSettled(
    wanted.map(async (accessory) => {
      const { name } = accessory.spec;
      const before = await untilRemoved(engine, accessory, there.get(name), deadline, input.signal);
      await ensureAccessory(engine, accessory, before, emit);
      await untilReady(engine, accessory, before?.state === 'running', deadline, input.signal);
    }),
  );
  for (const part of ended) if (part.status === 'rejected') throw part.reason;
}

function wantedOf(input: AccessoriesInput): Wanted[] {
  const { project, settings, replicas, connectionsPerReplica = 10 } = input;
  return accessories
    .filter(({ name }) => input.owned[name] === 'managed')
    .flatMap((accessory) => {
      const image = input.images[accessory.name];
      const made = accessory.make({ project, image, settings, replicas, connectionsPerReplica });
      return made ? [{ ...accessory, ...made }] : [];
    });
}

/** @returns what is there; undefined once a container that was being removed is gone */
async function untilRemoved(
  engine: Engine,
  accessory: Wanted,
  before: ObservedContainer | undefined,
  deadline: number,
  signal: AbortSignal | undefined,
): Promise<ObservedContainer | undefined> {
  if (before?.state !== 'removing') return before;
  const pace = { deadlineMs: deadline - Date.now(), everyMs: 200, signal };
  const isGone = await until(realClock, pace, async () => {
    const now = await find(engine, accessory.spec);
    return now?.state === 'removing' ? null : true;
  });
  if (!isGone) throw await notReady(engine, accessory, before, 'is still being removed');
  return find(engine, accessory.spec);
}

const find = async (engine: Engine, spec: ContainerSpec): Promise<ObservedContainer | undefined> =>
  (await engine.observe(spec.project)).find(({ name }) => name === spec.name);

async function ensureAccessory(
  engine: Engine,
  accessory: Wanted,
  there: ObservedContainer | undefined,
  emit: Emit,
): Promise<void> {
  const { spec, formerSpec, title } = accessory;
  if (there) await mustKeepPassword(engine, accessory, there);
  else await makeVolumes(engine, accessory);
  const { created, drift: found } = await engine.ensureContainer(spec);
  const former = found.length > 0 && formerSpec ? (await engine.ensureContainer(formerSpec)).drift : found;
  const drift = former.length < found.length ? former : found;
  if (created) emit({ type: 'note', level: 'info', message: `${title} started as ${spec.name}` });
  if (drift.length > 0) {
    emit({
      type: 'note',
      level: 'warning',
      message: `${title} (${spec.name}) keeps running as it was made. gameops.yaml or .env ask for something else in: ${drift.join(', ')}`,
    });
  }
}

async function mustKeepPassword(engine: Engine, accessory: Wanted, there: ObservedContainer): Promise<void> {
  if (!accessory.takesAnyPassword) return;
  const present = await presentPassword(engine, accessory, there);
  if (present === null || present === accessory.password) return;
  throw new OpsError('REDIS_UNREACHABLE', {
    message: `The password in REDIS_URL is not the one that ${accessory.spec.name} was made with, so game servers could not log in.`,
    next: [
      'put the former password back into REDIS_URL',
      `or remove the container (docker rm -f ${accessory.spec.name}) and run gameops deploy: the data stays, players reconnect`,
    ],
    facts: { container: accessory.spec.name },
  });
}

async function presentPassword(
  engine: Engine,
  { spec, secretVolume }: Wanted,
  there: ObservedContainer,
): Promise<string | null> {
  const secret = `${path.accessorySecrets}/password`;
  const read = there.state === 'running' ? await execIn(engine, spec, ['cat', secret]) : null;
  if (read?.exitCode === 0) return read.stdout;
  // Slower, because it needs a carrier, but nothing has to run.
  const file = (await engine.readFiles(spec.project, secretVolume, '')).get('password');
  return file === undefined ? null : Buffer.from(file).toString('utf8');
}

/** One run as root with one capability: an image that has no such folder leaves the volume to root. */
async function makeVolumes(engine: Engine, accessory: Wanted): Promise<void> {
  const { spec, secretVolume } = accessory;
  const [dataMount] = spec.mounts ?? [];
  if (!dataMount || !spec.user) throw new Error(`${spec.name} has no data volume or user`);
  await engine.ensureVolume(spec.project, dataMount.volume, 'data');
  await engine.ensureVolume(spec.project, secretVolume, 'settings');
  const asked = await engine.runOnce(
    {
      project: spec.project,
      name: `${spec.name}-prepare`,
      role: 'one-off',
      image: spec.image,
      entrypoint: ['sh', '-ceu', 'chown "$0:$0" "$1"; id -u "$0"; id -g "$0"'],
      command: [spec.user, dataMount.path],
      user: '0:0',
      network: 'none',
      mounts: [dataMount],
      memoryBytes: 64 * megabyte,
      readOnlyRoot: true,
      capabilities: ['CHOWN'],
      restart: 'no',
    },
    60_000,
  );
  const [uid, gid] = asked.stdout.trim().split(/\s+/).map(Number);
  if (asked.exitCode !== 0 || !Number.isInteger(uid) || !Number.isInteger(gid)) {
    throw new OpsError('ACCESSORY_NOT_READY', {
      message: `The image ${spec.image} can't be used for ${accessory.title}, because it has no user ${spec.user}.`,
      next: [`set images.${spec.user} in gameops.yaml to an official image`],
      facts: { image: spec.image, exitCode: asked.exitCode, stderr: asked.stderr.trim().slice(-500) },
    });
  }
  const owner = { mode: 0o400, uid: uid as number, gid: gid as number };
  await engine.putFiles(
    spec.project,
    secretVolume,
    accessory.secrets.map((file) => ({ ...file, ...owner })),
  );
}

/**
 * Runs the health command itself: Docker's own first verdict comes only after a whole interval, and its last one outlives a
 * stop that has begun.
 * @param ran it ran already when it was met. Then an end is one that was under way: it is waited for, and started once.
 */
async function untilReady(
  engine: Engine,
  accessory: Wanted,
  ran: boolean,
  deadline: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { spec } = accessory;
  let restartsBefore: number | null = null;
  let mayStart = ran;
  let now: ObservedContainer | undefined;
  const pace = { deadlineMs: deadline - Date.now(), everyMs: 200, signal };
  const ready = await until(realClock, pace, async () => {
    now = await find(engine, spec);
    restartsBefore ??= now?.restartCount ?? 0;
    if (now?.state === 'running' && (await isHealthy(engine, spec))) return true;
    if (mayStart && now?.state === 'exited') {
      mayStart = false;
      await engine.ensureContainer(spec);
      return null;
    }
    if (!now || hasExited(now, restartsBefore)) throw await notReady(engine, accessory, now, 'exited');
    return null;
  });
  if (!ready) throw await notReady(engine, accessory, now, 'did not become healthy in time');
}

function hasExited(container: ObservedContainer, restartsBefore: number): boolean {
  return (
    ['exited', 'dead', 'restarting', 'removing'].includes(container.state) ||
    container.restartCount > restartsBefore
  );
}

async function isHealthy(engine: Engine, spec: ContainerSpec): Promise<boolean> {
  const answer = await execIn(engine, spec, spec.health?.command ?? ['true']);
  return answer?.exitCode === 0;
}

/** @returns null when the container ended between the look and the call: the next look says why */
async function execIn(
  engine: Engine,
  spec: ContainerSpec,
  command: readonly string[],
): Promise<ExecResult | null> {
  try {
    return await engine.exec(spec.project, spec.name, command);
  } catch (error) {
    if (isOpsError(error, 'ENGINE_FAILED')) return null;
    throw error;
  }
}

async function notReady(
  engine: Engine,
  accessory: Wanted,
  container: ObservedContainer | undefined,
  what: string,
): Promise<OpsError> {
  const { spec, title, password } = accessory;
  const lines = await engine.logTail(spec.project, spec.name, 10).catch(() => []);
  // Redis quotes the line of a configuration that it refuses.
  const words = lines.map((line) => (password === '' ? line : line.replaceAll(password, '[secret]')));
  return new OpsError('ACCESSORY_NOT_READY', {
    message: `${title} (${spec.name}) ${what}${words.length > 0 ? `; its last log lines:\n  ${words.join('\n  ')}` : ''}`,
    next: [
      `docker logs ${spec.name}`,
      `check ${accessory.passwordKey} and images.${spec.role} in gameops.yaml`,
      'gameops deploy',
    ],
    facts: {
      container: spec.name,
      image: spec.image,
      state: container?.state ?? 'gone',
      exitCode: container?.exitCode ?? null,
    },
  });
}
