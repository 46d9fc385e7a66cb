/**
 * Images and foundation of a project: observed, planned, run. Everything is fetched before anything that runs is
 * touched; the lock is taken in between, because even the lock needs an image.
 */
import { resolve } from 'node:path';
import { realClock, until } from '../clock.ts';
import { label, namesOf, unixSocketsFolder } from '../contract.ts';
import type { Engine, ImageInfo, NetworkInfo } from '../engine/port.ts';
import { isOpsError, OpsError } from '../errors.ts';
import { type AccessoryName, type Ownership, whichAccessories } from '../foundation/accessories.ts';
import { ensureAccessories } from '../foundation/ensure.ts';
import { firstFreePort } from '../host/ports.ts';
import { gameImage, gameImageTag, serverFiles } from '../images/bundled.ts';
import { pullTold } from '../images/pull.ts';
import { type ImageRole, prepareImages, type ResolvedImage, resolveImages } from '../images/roles.ts';
import { proxySpec } from '../proxy/container.ts';
import { ensureFirstGeneration } from '../proxy/first.ts';
import { askGeneration } from '../proxy/traffic.ts';
import { newRecord, type ProjectRecord, readRecord, writeRecord } from '../record/record.ts';
import { type FoundationState, planFoundation, planImages } from '../release/foundation.ts';
import type { FoundationStep } from '../release/model.ts';
import type { ProxyBase } from '../runner/act.ts';
import { type Runner, runSteps } from '../runner/run.ts';
import type { Context, EnvFile } from './context.ts';
import { doorOf } from './project.ts';

export interface Request {
  /** "bundled" or a reference. */
  image: string;
  replicas: number;
}

export interface Supply {
  roles: Record<ImageRole, ResolvedImage>;
  /** The image to deploy; null while it is not on the engine. */
  game: { info: ImageInfo; ref: string } | null;
  state: FoundationState;
  owned: Record<AccessoryName, Ownership>;
}

/** What is there and what is missing. Changes nothing. */
export async function observeFoundation(context: Context, env: EnvFile, request: Request): Promise<Supply> {
  const engine = await context.engine();
  const { project, config } = context;
  const owned = whichAccessories(config, { ...env.settings.database, ...env.settings.redis });
  const [roles, ground] = await Promise.all([
    resolveImages(engine, config),
    observeGround(engine, project, owned),
  ]);
  const isBundled = request.image === 'bundled';
  const tag = isBundled && roles.node.info ? gameImageTag(await serverFiles(), roles.node.info.id) : null;
  const ref = isBundled ? tag : request.image;
  const info = ref === null ? null : await engine.image(ref);
  const missing = Object.values(roles).filter((one) => !one.info);
  return {
    roles,
    game: info && ref ? { info, ref } : null,
    owned,
    state: {
      missingImages: [...missing.map((one) => one.ref), ...(isBundled || info ? [] : [request.image])],
      imageToBuild: isBundled && !info ? (tag ?? 'gameops-game') : null,
      ...ground,
    },
  };
}

type Ground = Omit<FoundationState, 'missingImages' | 'imageToBuild'>;

async function observeGround(engine: Engine, project: string, owned: Supply['owned']): Promise<Ground> {
  const names = namesOf(project);
  const [found, network] = await Promise.all([engine.observe(project), engine.network(project)]);
  // The engine removes no network that is in use: whatever is left of one that is gone reaches nobody.
  const containers = network === null ? [] : found;
  const isRunning = (name: string) => containers.some((one) => one.name === name && one.state === 'running');
  const wanted = (['postgres', 'redis'] as const).filter((name) => owned[name] === 'managed');
  const proxy = containers.find((one) => one.name === names.proxy);
  return {
    hasNetwork: network !== null,
    missingAccessories: wanted.filter((name) => !isRunning(names[name])),
    proxy: !proxy ? 'absent' : proxy.state === 'running' ? 'running' : 'stopped',
  };
}

export function foundationSteps(supply: Supply): FoundationStep[] {
  return [...planImages(supply.state), ...planFoundation(supply.state)];
}

/** @returns the supply with nothing missing. @throws what a pull throws, IMAGE_BUILD_FAILED */
export async function supplyImages(
  context: Context,
  runner: Runner,
  env: EnvFile,
  request: Request,
  supply: Supply,
): Promise<Supply & { game: NonNullable<Supply['game']> }> {
  const engine = await context.engine();
  const steps = planImages(supply.state);
  if (steps.length === 0 && supply.game) return { ...supply, game: supply.game };
  const failure = await runSteps(runner, steps, async (step) => {
    if (step.kind === 'prepare-images') {
      await prepareImages(engine, context.config, {
        source: 'auto',
        emit: context.emit,
        signal: context.signal,
      });
      if (request.image !== 'bundled' && !(await engine.image(request.image)))
        await pullTold(engine, request.image, context);
    } else if (step.kind === 'build-image') {
      const { node } = await resolveImages(engine, context.config);
      await gameImage(engine, { nodeImage: node.ref, emit: context.emit });
    }
  });
  if (failure) throw failure.error;
  const done = await observeFoundation(context, env, request);
  if (!done.game) throw new Error('an image that was just prepared is not on the engine');
  return { ...done, game: done.game };
}

/** Record, network, accessories, Nginx. @returns the record. */
export async function layFoundation(
  context: Context,
  runner: Runner,
  env: EnvFile,
  request: Request,
  supply: Supply,
): Promise<ProjectRecord> {
  const engine = await context.engine();
  const { project } = context;
  const haveAccessories = () =>
    ensureAccessories(
      engine,
      {
        project,
        settings: { ...env.settings.database, ...env.settings.redis },
        owned: supply.owned,
        images: { postgres: supply.roles.postgres.ref, redis: supply.roles.redis.ref },
        replicas: request.replicas,
        signal: context.signal,
      },
      context.emit,
    );
  // Looked at again, because only the lock keeps a `down` of somebody else from changing it.
  const [first, ground] = await Promise.all([
    haveRecord(engine, project),
    observeGround(engine, project, supply.owned),
  ]);
  let record = first;
  runner.record = record;
  // What runs already is only looked at: drift is told, a changed password met before a release meets it.
  if (ground.missingAccessories.length === 0) await haveAccessories();
  const failure = await runSteps(runner, planFoundation({ ...supply.state, ...ground }), async (step) => {
    switch (step.kind) {
      case 'make-network':
        await removeCutOff(engine, project);
        await engine.ensureNetwork(project);
        return;
      case 'start-accessories':
        return haveAccessories();
      case 'start-proxy':
        record = await startProxy(context, engine, supply.roles.nginx.ref, record);
        return;
    }
  });
  if (failure) throw failure.error;
  tellDrift(context, record, request);
  return record;
}

/** Containers of a network that is gone: none can be reached, nor started again. Their data is in volumes. */
async function removeCutOff(engine: Engine, project: string): Promise<void> {
  const cutOff = (await engine.observe(project)).filter(({ role }) => role !== 'lock' && role !== 'carrier');
  await Promise.all(cutOff.map(({ name }) => engine.removeContainer(project, name)));
}

async function haveRecord(engine: Engine, project: string): Promise<ProjectRecord> {
  await engine.ensureVolume(project, namesOf(project).volume.record, 'record');
  return (await readRecord(engine, project)) ?? writeRecord(engine, newRecord(project), {});
}

/** Said, never applied: Nginx is not remade under its players. */
function tellDrift({ config, emit }: Context, record: ProjectRecord, request: Request): void {
  const warn = (message: string) => emit({ type: 'note', level: 'warning', message });
  const { port, tlsPort } = config.http;
  const asked = [port || record.ports?.http, tlsPort || record.ports?.tls];
  if (record.ports && (asked[0] !== record.ports.http || asked[1] !== record.ports.tls)) {
    warn(
      `gameops.yaml asks for ports ${asked.join(' and ')}, Nginx has ${record.ports.http} and ${record.ports.tls}: a deploy never remakes it`,
    );
  }
  if (request.image !== 'bundled' && config.server.settingsAs === 'env') {
    warn('server.settingsAs is env: every setting of this image, secrets included, shows in docker inspect');
  }
}

async function startProxy(
  context: Context,
  engine: Engine,
  image: string,
  before: ProjectRecord,
): Promise<ProjectRecord> {
  const { project } = context;
  const { volume } = namesOf(project);
  for (const name of [volume.nginx, volume.web, volume.certificates, volume.logs, volume.unixSockets]) {
    await engine.ensureVolume(project, name, 'data');
  }
  const anybody = { mode: 0o1777, isFolder: true, content: '' };
  await engine.putFiles(project, volume.unixSockets, [{ path: unixSocketsFolder, ...anybody }]);
  const network = await engine.ensureNetwork(project);
  await ensureFirstGeneration(engine, project, {
    ...proxyBase(context, before, network),
    passAll: false,
  });
  const record = await startOnFreePorts(context, engine, image, before);
  await untilProxyAnswers(context, engine, record);
  return record;
}

/**
 * A port that was free at a look may be taken at the start, by another project's first deploy for one: where gameops
 * chose, it chooses again. @throws PORT_TAKEN for a port that was asked for
 */
async function startOnFreePorts(
  context: Context,
  engine: Engine,
  image: string,
  before: ProjectRecord,
): Promise<ProjectRecord> {
  const { project, config } = context;
  const exists = (await engine.observe(project)).some((one) => one.name === namesOf(project).proxy);
  const { isIsolating } = await engine.info();
  const { address, port, tlsPort } = config.http;
  const taken: number[] = [];
  let record = before;
  for (;;) {
    // On record before the container has them: a process that dies in between must not leave an address nobody knows.
    const keeps = exists && record.ports !== null;
    const ports = keeps && record.ports ? record.ports : await choosePorts(context, record.ports, taken);
    if (!keeps) record = await writeRecord(engine, record, { ports });
    try {
      await engine.ensureContainer(
        proxySpec({
          project,
          image,
          http: { address, port: ports.http, tlsPort: ports.tls },
          privatePort: ports.private,
          unixSockets: !isIsolating,
        }),
      );
      return record;
    } catch (error) {
      const which = isOpsError(error, 'PORT_TAKEN') ? Number(error.facts.port) : 0;
      if (keeps || which === 0 || [port, tlsPort].includes(which) || taken.length >= 20) throw error;
      taken.push(which);
    }
  }
}

/** A HUP or a question to an Nginx that is still starting would be lost. @throws PROXY_NOT_READY */
async function untilProxyAnswers(context: Context, engine: Engine, record: ProjectRecord): Promise<void> {
  const name = namesOf(context.project).proxy;
  const seen = await until(
    realClock,
    { deadlineMs: 20_000, everyMs: 50, signal: context.signal },
    async () => {
      const door = await doorOf(context, engine, record);
      return askGeneration(door, 1_000);
    },
  );
  if (seen !== null) return;
  const log = await engine.logTail(context.project, name, 8).catch(() => []);
  throw new OpsError('PROXY_NOT_READY', {
    message: `Nginx (${name}) was started but does not answer. ${log.at(-1) ?? 'It logged nothing'}. Players are where they were.`,
    next: [`docker logs ${name}`, 'gameops doctor'],
    facts: { container: name, log },
  });
}

/**
 * 0 asks for any free port: chosen once, because a container that asks the engine gets another one at every start. An
 * Nginx that is made anew gets those of the one before, whose address players know.
 */
async function choosePorts(
  { config }: Context,
  before: ProjectRecord['ports'],
  taken: readonly number[],
): Promise<NonNullable<ProjectRecord['ports']>> {
  const http = config.http.port || (await firstFreePort(before?.http ?? 18_080, taken));
  const tls = config.http.tlsPort || (await firstFreePort(before?.tls ?? 18_443, [...taken, http]));
  const own = await firstFreePort(before?.private ?? 19_080, [...taken, http, tls]);
  return { http, tls, private: own };
}

export function proxyBase({ config, cwd }: Context, record: ProjectRecord, network: NetworkInfo): ProxyBase {
  const templateDir = config.http.templates === undefined ? null : resolve(cwd, config.http.templates);
  const { subnet, notReplicas } = network;
  return { domain: config.domain ?? null, doorToken: record.doorToken, subnet, notReplicas, templateDir };
}

export const protocolOf = (image: ImageInfo): string | null => image.labels[label.protocol] ?? null;
