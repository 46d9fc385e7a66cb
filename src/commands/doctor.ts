/**
 * gameops doctor: checks everything that a deploy will need, and names a fix for each finding. Changes nothing. Exits with 0
 * unless a finding is an error: then with the exit code of the first error.
 */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { relative } from 'node:path';
import { namesOf, tokenKeyNames } from '../contract.ts';
import { besideFleetsBytes, judgeRoom, type Need } from '../engine/capacity.ts';
import type { Engine, EngineInfo } from '../engine/port.ts';
import { looseMode } from '../env/read.ts';
import { isOpsError, OpsError } from '../errors.ts';
import { managedOf, whichAccessories } from '../foundation/accessories.ts';
import type { AccessoryName } from '../foundation/model.ts';
import {
  error,
  type Finding,
  judgeClock,
  judgeCpus,
  judgeEngine,
  judgeOpenFiles,
  lookUpDomain,
  ok,
  warning,
} from '../host/judge.ts';
import { isPortFree } from '../host/ports.ts';
import { resolveImages } from '../images/roles.ts';
import type { Context, Outcome, Style } from '../operations/context.ts';
import { refuseEnvErrors } from '../operations/release-inputs.ts';
import { type ProjectRecord, readRecord } from '../record/record.ts';
import { originOfImage } from '../release/origin.ts';
import { columns } from '../report/table.ts';
import { formatBytes } from '../units.ts';
import { lookForSecrets } from './doctor-secrets.ts';

/** @throws the code of the first finding that is an error, with every finding in `result` */
export async function run(context: Context): Promise<Outcome> {
  const findings = [lookAtConfig(context), ...lookAtEnv(context), ...(await lookAtHost(context))];
  const engine = await reach(context);
  if ('finding' in engine) findings.push(engine.finding);
  else findings.push(...(await lookThrough(context, engine.engine)));
  const errors = findings.filter(({ level }) => level === 'error');
  if (errors.length > 0) throw unhealthy(context, findings, errors);
  const shown = findings.map(({ code: _, ...finding }) => finding);
  return { ok: true, result: { findings: shown }, text: (style) => findingsText(findings, style) };
}

function lookAtConfig({ configPath, configProblem }: Context): Finding {
  const file = relative(process.cwd(), configPath) || configPath;
  if (configProblem) return error('config', configProblem.code, configProblem.message, configProblem.next[0]);
  return ok('config', existsSync(configPath) ? `${file} is valid` : `there is no ${file}; defaults are used`);
}

function lookAtEnv(context: Context): Finding[] {
  const file = relative(process.cwd(), context.envPath) || context.envPath;
  const findings: Finding[] = [];
  try {
    const env = context.readEnv();
    refuseEnvErrors(context, env, context.config.server.image);
    findings.push(
      ok('env', env.exists ? `${file} is valid` : 'settings come from the environment and are valid'),
    );
    const between = tokenKeyNames.filter((key) => key !== 'JWT_SECRET' && env.values[key]);
    if (between.length > 0)
      findings.push(
        warning(
          'rotation',
          `JWT_SECRET is being rotated: ${between.join(', ')} is set`,
          'gameops env rotate jwt',
        ),
      );
  } catch (problem) {
    if (!isOpsError(problem)) throw problem;
    findings.push(error('env', problem.code, problem.message, problem.next[0]));
  }
  if (existsSync(context.envPath)) {
    const mode = looseMode(context.envPath);
    findings.push(
      mode === null
        ? ok('env-mode', `only its owner can read ${file}`)
        : warning(
            'env-mode',
            `${file} has mode ${mode}: other users can read its secrets`,
            `chmod 600 ${file}`,
          ),
    );
  }
  return findings;
}

async function lookAtHost({ config }: Context): Promise<Finding[]> {
  const limits = await readFile('/proc/self/limits', 'utf8').catch(() => '');
  return [judgeOpenFiles(limits), ...(config.domain ? [await lookUpDomain(config.domain)] : [])];
}

async function reach(context: Context): Promise<{ engine: Engine } | { finding: Finding }> {
  try {
    const engine = await context.engine();
    await engine.info();
    return { engine };
  } catch (problem) {
    if (!isOpsError(problem)) throw problem;
    return { finding: error('engine', problem.code, problem.message, problem.next[0]) };
  }
}

/** A check that fails is a finding, and the other checks still run. */
async function lookThrough(context: Context, engine: Engine): Promise<Finding[]> {
  const looks: Record<string, () => Promise<Finding[]>> = {
    engine: () => lookAtSize(context, engine),
    ports: () => lookAtPorts(context, engine),
    images: () => lookAtImages(context, engine),
    names: () => lookAtNames(context, engine),
    'image-secrets': () => lookForSecrets(context, engine),
    lock: async () => [await lookAtLock(context, engine)],
    unfinished: () => lookAtRecord(context, engine),
  };
  const taken = Object.entries(looks).map(async ([id, look]) => {
    try {
      return await look();
    } catch (problem) {
      if (!isOpsError(problem)) throw problem;
      return [error(id, problem.code, problem.message, problem.next[0])];
    }
  });
  return (await Promise.all(taken)).flat();
}

async function lookAtSize({ config }: Context, engine: Engine): Promise<Finding[]> {
  const info = await engine.info();
  const need = needOf(config);
  const isOk = `two fleets of ${need.replicas} × ${formatBytes(need.memoryBytes)} fit into the engine's ${formatBytes(info.memoryBytes)}`;
  return [
    judgeEngine(info),
    judgeClock(info.time, Date.now()),
    roomFinding('memory', isOk, need, { memoryBytes: info.memoryBytes }),
    judgeCpus({ replicas: need.replicas, cpus: config.server.cpus }, info.cpus),
  ];
}

/** What a blue-green deploy will ask for: a deploy never refuses what doctor found sufficient. */
function needOf({ server }: Context['config']): Need {
  const { replicas, memoryBytes } = server;
  return { fleets: 2, replicas, memoryBytes, besideBytes: besideFleetsBytes, diskBytes: 0 };
}

function roomFinding(
  id: 'disk' | 'memory',
  isOk: string,
  need: Need,
  room: Partial<Pick<EngineInfo, 'memoryBytes'> & { freeDiskBytes: number }>,
): Finding {
  const enough = Number.POSITIVE_INFINITY;
  const problem = judgeRoom(need, { memoryBytes: enough, freeDiskBytes: enough, ...room });
  return problem === null ? ok(id, isOk) : error(id, problem.code, problem.message, problem.next[0]);
}

async function lookAtPorts({ project, config }: Context, engine: Engine): Promise<Finding[]> {
  const info = await engine.info();
  const containers = await engine.observe(project);
  const proxy = containers.find(({ name }) => name === namesOf(project).proxy);
  const ours = new Set(proxy && proxy.state === 'running' ? Object.values(proxy.published) : []);
  const look = async (key: 'port' | 'tlsPort'): Promise<Finding> => {
    const id = `http.${key}`;
    const port = config.http[key];
    if (port === 0) return ok(id, 'a free port is chosen at the first deploy');
    if (ours.has(port)) return ok(id, `${port} is served by our Nginx`);
    if (!info.isLocal) return ok(id, `${port} on the engine's machine can't be checked from here`);
    if (await isPortFree(port, config.http.address)) return ok(id, `${config.http.address}:${port} is free`);
    const taken = `${config.http.address}:${port} can't be used: it is taken, or this user may not open it`;
    // A running Nginx of this project keeps its ports; gameops.yaml names those of the next one.
    if (proxy) return warning(id, taken, `choose another ${id} in gameops.yaml, or 0 for a free one`);
    return error(id, 'PORT_TAKEN', taken, `choose another ${id} in gameops.yaml, or 0 for a free one`);
  };
  return Promise.all([look('port'), look('tlsPort')]);
}

async function lookAtImages({ project, config }: Context, engine: Engine): Promise<Finding[]> {
  const resolved = await resolveImages(engine, config);
  const missing = Object.values(resolved).flatMap(({ ref, info }) => (info ? [] : [ref]));
  if (originOfImage(config.server.image) === 'own' && !(await engine.image(config.server.image))) {
    missing.push(config.server.image);
  }
  const images =
    missing.length === 0
      ? ok('images', 'every image is on the engine')
      : warning('images', `not on the engine: ${missing.join(', ')}`, 'gameops images prepare');
  const carrier = resolved.nginx.info ?? resolved.postgres.info;
  if (!carrier) return [images];
  const freeDiskBytes = await engine.freeDiskBytes(project, carrier.id);
  const isOk = `${formatBytes(freeDiskBytes)} free where the engine keeps its data`;
  return [images, roomFinding('disk', isOk, needOf(config), { freeDiskBytes })];
}

async function lookAtNames({ project }: Context, engine: Engine): Promise<Finding[]> {
  await engine.mustOwnNames(project);
  return [ok('names', `no other container uses a name of ${project}`)];
}

async function lookAtLock({ project }: Context, engine: Engine): Promise<Finding> {
  const held = await engine.lockHolder(project);
  if (!held) return ok('lock', 'nobody holds the lock');
  const who = `${held.holder} on ${held.host} has been running ${held.verb} since ${held.since}`;
  return warning('lock', who, 'wait until it ends: the lock ends with its process');
}

async function lookAtRecord(context: Context, engine: Engine): Promise<Finding[]> {
  const { project } = context;
  const record = await readRecord(engine, project);
  if (!record) return [ok('unfinished', 'nothing has been deployed yet')];
  return [judgeUnfinished(record), await lookAtRunning(context, engine, record)];
}

function judgeUnfinished({ intent }: ProjectRecord): Finding {
  if (!intent) return ok('unfinished', 'nothing is unfinished');
  const { verb, release, startedAt, by } = intent;
  const what = `the ${verb} of release ${release}, begun by ${by} at ${startedAt}, is unfinished`;
  return warning('unfinished', what, 'gameops resume, or gameops abort');
}

/** What the live release needs, and does not run. */
async function lookAtRunning(context: Context, engine: Engine, record: ProjectRecord): Promise<Finding> {
  const { project } = context;
  const live = record.releases.find(({ verdict }) => verdict === 'live');
  if (!live) return ok('running', 'nothing is live');
  const [containers, network] = await Promise.all([engine.observe(project), engine.network(project)]);
  const names = namesOf(project);
  const replicas = Array.from({ length: live.replicas }, (_, index) => names.game(live.id, index + 1));
  const wanted = [...replicas, names.proxy, ...managedAccessories(context).map((name) => names[name])];
  const isUp = (name: string) => containers.some((one) => one.name === name && one.state === 'running');
  const down = wanted.filter((name) => !isUp(name));
  // Containers lose their addresses when their network is removed; only new containers get new ones.
  if (network === null && down.length < wanted.length) {
    const gone = `the network ${names.network} was removed under its containers`;
    return warning('running', gone, 'gameops down, then gameops deploy: data and record are kept');
  }
  if (down.length === 0) return ok('running', `release ${live.id} and everything it needs are running`);
  return warning('running', `not running: ${down.join(', ')}`, 'gameops resume');
}

function managedAccessories(context: Context): AccessoryName[] {
  try {
    const { database, redis } = context.readEnv().settings;
    const owned = whichAccessories(context.config, { ...database, ...redis });
    return managedOf(owned);
  } catch (problem) {
    // A .env that can't be read is a finding of its own.
    if (isOpsError(problem)) return [];
    throw problem;
  }
}

function unhealthy(context: Context, findings: readonly Finding[], errors: readonly Finding[]): OpsError {
  const [first] = errors as [Finding, ...Finding[]];
  const lines = findings.map(({ id, level, message }) => `${level}: ${id}: ${message}`);
  return new OpsError(first.code ?? 'ENGINE_FAILED', {
    message: `${errors.length} of ${findings.length} findings of doctor have to be fixed first. Nothing was changed.${
      context.json ? '' : `\n${lines.join('\n')}`
    }`,
    next: errors.map(({ fix }) => fix) as [string, ...string[]],
    facts: { errors: errors.map(({ id }) => id) },
    result: { findings: findings.map(({ code: _, ...finding }) => finding) },
  });
}

const marks = { ok: '✓', warning: '!', error: '✗' } as const;

function findingsText(findings: readonly Finding[], style: Style): string {
  const colour = { ok: style.green, warning: style.yellow, error: style.red };
  return columns(
    findings.map(({ id, level, message, fix }) => [
      colour[level](marks[level]),
      id,
      fix === '' ? message : `${message}\n     Next: ${style.cyan(fix)}`,
    ]),
  ).join('\n');
}
