/**
 * Images and foundation of a project: observed, planned, laid. Promises that everything is fetched before anything that
 * runs is touched, and that what can't be had is refused before anything is made. The lock is taken in between, because
 * even the lock needs an image.
 */

import { resolve } from 'node:path';
import { label, namesOf } from '../contract.ts';
import { portTaken } from '../engine/failures.ts';
import type { Engine, ImageInfo, NetworkInfo } from '../engine/port.ts';
import { OpsError } from '../errors.ts';
import { managedOf, whichAccessories } from '../foundation/accessories.ts';
import { ensureAccessories } from '../foundation/ensure.ts';
import type { AccessoryName, Ownership } from '../foundation/model.ts';
import { type NginxRequest, startNginx } from '../foundation/nginx.ts';
import { whyNotFree } from '../host/ports.ts';
import { gameImage, gameImageTag, serverFiles } from '../images/bundled.ts';
import { pullTold } from '../images/pull.ts';
import { type ImageRole, prepareImages, type ResolvedImage, resolveImages } from '../images/roles.ts';
import { firstGeneration } from '../proxy/first.ts';
import { loadTemplates, templatesName } from '../proxy/templates.ts';
import { newRecord, type ProjectRecord, readRecord, writeRecord } from '../record/record.ts';
import { type FoundationState, planFoundation, planImages } from '../release/foundation.ts';
import type { FoundationStep, ProxyInputs } from '../release/model.ts';
import { originOfImage } from '../release/origin.ts';
import type { ProxyBase } from '../runner/act.ts';
import { type Runner, runSteps } from '../runner/run.ts';
import type { Context, EnvFile } from './context.ts';
import { doorOf } from './project.ts';
import { findPage } from './release-inputs.ts';

export interface Request {
  /** "bundled" or a reference. */
  image: string;
  replicas: number;
}

export interface ObservedFoundation {
  roles: Record<ImageRole, ResolvedImage>;
  /** The image to deploy; null while it is not on the engine. */
  game: { info: ImageInfo; ref: string } | null;
  state: FoundationState;
  owned: Record<AccessoryName, Ownership>;
}

/** Which images and parts of the foundation exist, and which are missing. Changes nothing. */
export async function observeFoundation(
  context: Context,
  env: EnvFile,
  request: Request,
): Promise<ObservedFoundation> {
  const engine = await context.engine();
  const { project, config } = context;
  const owned = whichAccessories(config, { ...env.settings.database, ...env.settings.redis });
  const [roles, containers] = await Promise.all([
    resolveImages(engine, config),
    observeContainers(engine, project, owned),
  ]);
  const isBundled = originOfImage(request.image) === 'bundled';
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
      ...containers,
    },
  };
}

type ContainersState = Omit<FoundationState, 'missingImages' | 'imageToBuild'>;

async function observeContainers(
  engine: Engine,
  project: string,
  owned: ObservedFoundation['owned'],
): Promise<ContainersState> {
  const names = namesOf(project);
  const [found, network] = await Promise.all([engine.observe(project), engine.network(project)]);
  // When the network was removed, containers that remain of it can't reach each other: they count as missing.
  const containers = network === null ? [] : found;
  const isRunning = (name: string) => containers.some((one) => one.name === name && one.state === 'running');
  const wanted = managedOf(owned);
  const proxy = containers.find((one) => one.name === names.proxy);
  return {
    hasNetwork: network !== null,
    missingAccessories: wanted.filter((name) => !isRunning(names[name])),
    proxy: !proxy ? 'absent' : proxy.state === 'running' ? 'running' : 'stopped',
  };
}

export function foundationSteps(foundation: ObservedFoundation): FoundationStep[] {
  return [...planImages(foundation.state), ...planFoundation(foundation.state)];
}

/** @returns the foundation with nothing missing. @throws what a pull throws, IMAGE_BUILD_FAILED */
export async function fetchImages(
  context: Context,
  runner: Runner,
  env: EnvFile,
  request: Request,
  foundation: ObservedFoundation,
): Promise<ObservedFoundation & { game: NonNullable<ObservedFoundation['game']> }> {
  const engine = await context.engine();
  const steps = planImages(foundation.state);
  if (steps.length === 0 && foundation.game) return { ...foundation, game: foundation.game };
  const failure = await runSteps(runner, steps, async (step) => {
    if (step.kind === 'prepare-images') {
      await prepareImages(engine, context.config, {
        source: 'auto',
        emit: context.emit,
        signal: context.signal,
      });
      if (originOfImage(request.image) === 'own' && !(await engine.image(request.image)))
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
  foundation: ObservedFoundation,
): Promise<ProjectRecord> {
  const engine = await context.engine();
  const { project } = context;
  const haveAccessories = () =>
    ensureAccessories(
      engine,
      {
        project,
        settings: { ...env.settings.database, ...env.settings.redis },
        owned: foundation.owned,
        images: { postgres: foundation.roles.postgres.ref, redis: foundation.roles.redis.ref },
        replicas: request.replicas,
        signal: context.signal,
      },
      context.emit,
    );
  // Observed again, because before the lock somebody else's `down` may have changed it.
  const [first, containers] = await Promise.all([
    haveRecord(engine, project),
    observeContainers(engine, project, foundation.owned),
  ]);
  let record = first;
  runner.record = record;
  // Running accessories are only checked: drift is reported, and a changed password fails here instead of in a release.
  if (containers.missingAccessories.length === 0) await haveAccessories();
  const failure = await runSteps(
    runner,
    planFoundation({ ...foundation.state, ...containers }),
    async (step) => {
      switch (step.kind) {
        case 'make-network':
          await removeCutOff(engine, project);
          await engine.ensureNetwork(project);
          return;
        case 'start-accessories':
          return haveAccessories();
        case 'start-proxy':
          record = await startNginx(engine, await nginxRequest(context, foundation, record), record);
          return;
      }
    },
  );
  if (failure) throw failure.error;
  tellDrift(context, record, request);
  return record;
}

/** Removes containers of a removed network: they can neither be reached nor be started again. Their data is in volumes. */
async function removeCutOff(engine: Engine, project: string): Promise<void> {
  const cutOff = (await engine.observe(project)).filter(({ role }) => role !== 'lock' && role !== 'carrier');
  await Promise.all(cutOff.map(({ name }) => engine.removeContainer(project, name)));
}

async function haveRecord(engine: Engine, project: string): Promise<ProjectRecord> {
  await engine.ensureVolume(project, namesOf(project).volume.record, 'record');
  return (await readRecord(engine, project)) ?? writeRecord(engine, newRecord(project), {});
}

/** Drift is reported, never applied: Nginx is not replaced while players use it. */
function tellDrift({ config, emit }: Context, record: ProjectRecord, request: Request): void {
  const warn = (message: string) => emit({ type: 'note', level: 'warning', message });
  const { port, tlsPort } = config.http;
  const asked = [port || record.ports?.http, tlsPort || record.ports?.tls];
  if (record.ports && (asked[0] !== record.ports.http || asked[1] !== record.ports.tls)) {
    warn(
      `gameops.yaml asks for ports ${asked.join(' and ')}, but Nginx has ${record.ports.http} and ${record.ports.tls}; a deploy never replaces Nginx`,
    );
  }
  if (originOfImage(request.image) === 'own' && config.server.settingsAs === 'env') {
    warn('server.settingsAs is env: docker inspect shows every setting of this image, secrets included');
  }
}

async function nginxRequest(
  context: Context,
  foundation: ObservedFoundation,
  record: ProjectRecord,
): Promise<NginxRequest> {
  const engine = await context.engine();
  const { project, config, signal } = context;
  const network = await engine.ensureNetwork(project);
  return {
    project,
    image: foundation.roles.nginx.ref,
    http: config.http,
    firstGeneration: { ...proxyBase(context, record, network), passAll: false },
    doorOf: (now) => doorOf(context, engine, now),
    signal,
  };
}

const templateDirOf = ({ config, cwd }: Pick<Context, 'config' | 'cwd'>): string | null =>
  config.http.templates === undefined ? null : resolve(cwd, config.http.templates);

/** What Nginx is rendered from for a release that is deployed now. @throws TEMPLATE_INVALID */
export function proxyInputs(context: Context): ProxyInputs {
  const templates = loadTemplates(templateDirOf(context));
  return { domain: context.config.domain ?? null, templates: templatesName(templates) };
}

export function proxyBase({ config, cwd }: Context, record: ProjectRecord, network: NetworkInfo): ProxyBase {
  const templateDir = templateDirOf({ config, cwd });
  const { subnet, notReplicas } = network;
  return { domain: config.domain ?? null, doorToken: record.doorToken, subnet, notReplicas, templateDir };
}

export const protocolOf = (image: ImageInfo): string | null => image.labels[label.protocol] ?? null;

// Before anything is made ----------------------------------------------------------------------------------------

/** @throws CONFIG_INVALID, FOREIGN_CONTAINER, PORT_TAKEN, TEMPLATE_INVALID */
export async function preflight(
  context: Context,
  request: Request,
  foundation: ObservedFoundation,
): Promise<void> {
  const engine = await context.engine();
  findPage(context, originOfImage(request.image));
  // An existing Nginx has its ports, and serves the configuration it was last given.
  const isFirst = foundation.state.proxy === 'absent';
  if (isFirst) {
    const anyNetwork = { name: '', subnet: '10.0.0.0/22', notReplicas: [] };
    firstGeneration({ ...proxyBase(context, newRecord(context.project), anyNetwork), passAll: false });
  }
  await Promise.all([engine.mustOwnNames(context.project), isFirst ? mustHavePorts(context, engine) : null]);
}

async function mustHavePorts({ config }: Context, engine: Engine): Promise<void> {
  const { address, port, tlsPort } = config.http;
  const asked = [port, tlsPort].filter((one) => one !== 0);
  if (asked.length === 0 || !(await engine.info()).isLocal) return;
  for (const one of asked) {
    const why = await whyNotFree(one, address);
    if (why === 'taken') throw portTaken(one);
    if (why !== 'not here') continue;
    throw new OpsError('CONFIG_INVALID', {
      message: `http.address of gameops.yaml is ${address}, which is not an address of this machine. Nothing was changed.`,
      next: ['set http.address in gameops.yaml to an address of this machine, or to 0.0.0.0 for all of them'],
      facts: { address },
    });
  }
}
