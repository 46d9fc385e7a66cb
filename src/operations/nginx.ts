/**
 * The Nginx of a project: made once, with its volumes, its first configuration and ports that were free. Promises to wait
 * until it answers.
 */
import { resolve } from 'node:path';
import { realClock, until } from '../clock.ts';
import { namesOf, unixSocketsFolder } from '../contract.ts';
import type { Engine, NetworkInfo } from '../engine/port.ts';
import { isOpsError, OpsError } from '../errors.ts';
import { firstFreePort } from '../host/ports.ts';
import { proxySpec } from '../proxy/container.ts';
import { ensureFirstGeneration } from '../proxy/first.ts';
import { loadTemplates, templatesName } from '../proxy/templates.ts';
import { askGeneration } from '../proxy/traffic.ts';
import { type ProjectRecord, writeRecord } from '../record/record.ts';
import type { ProxyInputs } from '../release/model.ts';
import type { ProxyBase } from '../runner/act.ts';
import type { Context } from './context.ts';
import { doorOf } from './project.ts';

/** @returns the record with its ports. @throws PROXY_NOT_READY, PORT_TAKEN */
export async function startProxy(
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
