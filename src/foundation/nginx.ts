/**
 * The Nginx of a project: made once, with its volumes, its first configuration and free ports. Promises to wait until it
 * answers, and that its ports are on record before anything listens on them.
 */
import { realClock, until } from '../clock.ts';
import type { Config } from '../config.ts';
import { namesOf, unixSocketsFolder } from '../contract.ts';
import type { Engine } from '../engine/port.ts';
import { isOpsError, OpsError } from '../errors.ts';
import { firstFreePort } from '../host/ports.ts';
import { proxySpec } from '../proxy/container.ts';
import type { Door } from '../proxy/door.ts';
import { ensureFirstGeneration } from '../proxy/first.ts';
import { askGeneration } from '../proxy/traffic.ts';
import { type ProjectRecord, writeRecord } from '../record/record.ts';

export interface NginxRequest {
  project: string;
  /** Reference of the image. */
  image: string;
  http: Config['http'];
  firstGeneration: Parameters<typeof ensureFirstGeneration>[2];
  /** Opens the door to the ports on record. */
  doorOf(record: ProjectRecord): Promise<Door>;
  signal: AbortSignal;
}

/** @returns the record with its ports. @throws PROXY_NOT_READY, PORT_TAKEN */
export async function startNginx(
  engine: Engine,
  request: NginxRequest,
  before: ProjectRecord,
): Promise<ProjectRecord> {
  const { project } = request;
  const { volume } = namesOf(project);
  for (const name of [volume.nginx, volume.web, volume.certificates, volume.logs, volume.unixSockets]) {
    await engine.ensureVolume(project, name, 'data');
  }
  const anybody = { mode: 0o1777, isFolder: true, content: '' };
  await engine.putFiles(project, volume.unixSockets, [{ path: unixSocketsFolder, ...anybody }]);
  await ensureFirstGeneration(engine, project, request.firstGeneration);
  const record = await startOnFreePorts(engine, request, before);
  await untilItAnswers(engine, request, record);
  return record;
}

/**
 * A port that was free when it was chosen may be taken when Nginx starts, for example by another project's first deploy.
 * Then gameops chooses another one. @throws PORT_TAKEN for a port that gameops.yaml names
 */
async function startOnFreePorts(
  engine: Engine,
  { project, image, http }: NginxRequest,
  before: ProjectRecord,
): Promise<ProjectRecord> {
  const exists = (await engine.observe(project)).some((one) => one.name === namesOf(project).proxy);
  const { isIsolating } = await engine.info();
  const { address, port, tlsPort } = http;
  const taken: number[] = [];
  let record = before;
  for (;;) {
    // On record before the container has them: a process that dies in between must not leave an unknown address.
    const keeps = exists && record.ports !== null;
    const ports = keeps && record.ports ? record.ports : await choosePorts(http, record.ports, taken);
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
async function untilItAnswers(
  engine: Engine,
  { project, doorOf, signal }: NginxRequest,
  record: ProjectRecord,
): Promise<void> {
  const name = namesOf(project).proxy;
  const pace = { deadlineMs: 20_000, everyMs: 50, signal };
  const seen = await until(realClock, pace, async () => askGeneration(await doorOf(record), 1_000));
  if (seen !== null) return;
  const log = await engine.logTail(project, name, 8).catch(() => []);
  throw new OpsError('PROXY_NOT_READY', {
    message: `Nginx (${name}) was started but does not answer. ${log.at(-1) ?? 'It logged nothing'}. Players are where they were.`,
    next: [`docker logs ${name}`, 'gameops doctor'],
    facts: { container: name, log },
  });
}

/**
 * 0 asks for any free port. It is chosen once, because the engine would choose another one at every start. A new Nginx gets
 * the ports of the one before, because players know its address.
 */
async function choosePorts(
  { port, tlsPort }: Config['http'],
  before: ProjectRecord['ports'],
  taken: readonly number[],
): Promise<NonNullable<ProjectRecord['ports']>> {
  const http = port || (await firstFreePort(before?.http ?? 18_080, taken));
  const tls = tlsPort || (await firstFreePort(before?.tls ?? 18_443, [...taken, http]));
  const own = await firstFreePort(before?.private ?? 19_080, [...taken, http, tls]);
  return { http, tls, private: own };
}
