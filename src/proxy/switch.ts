/**
 * The switch: a new generation is written, tested by Nginx itself, made the pointer by one rename, loaded by HUP and
 * counted as served only when every new connection meets it (proof.ts). Promises that a configuration which fails any of this
 * leaves traffic where it was. Never recreates Nginx and never reloads without a test.
 */
import { createHash } from 'node:crypto';
import type { Clock } from '../clock.ts';
import { namesOf, path } from '../contract.ts';
import type { Engine, ExecResult } from '../engine/port.ts';
import { OpsError } from '../errors.ts';
import type { ProxyInputs } from '../release/model.ts';
import type { Door } from './door.ts';
import { featuresOf } from './features.ts';
import {
  type Contents,
  candidateFile,
  candidateOf,
  filesOf,
  folderOf,
  type Generation,
  generationOf,
  nextGeneration,
  pointerFile,
  prunable,
  routesOf,
  type Target,
  textOf,
} from './generation.ts';
import { acceptingWorkers, type Workers, whyNotServed } from './proof.ts';
import { renderConfig } from './render.ts';
import {
  forgottenTemplates,
  keptTemplates,
  loadTemplates,
  type Templates,
  templatesFile,
  templatesName,
} from './templates.ts';
import { askGeneration } from './traffic.ts';

export interface SwitchOutside {
  engine: Engine;
  door: Door;
  clock: Clock;
}

/** What the configuration is rendered from beside the routes, as gameops.yaml and the project have it today. */
export interface ProxySettings {
  domain: string | null;
  /** Everything is proxied: an image that is not ours, without static files. */
  passAll: boolean;
  doorToken: string;
  /** Of the project's network, as `NetworkInfo` has them. */
  subnet: string;
  notReplicas: readonly string[];
  /** null for the templates that gameops ships. */
  templateDir: string | null;
  tls?: { certificate: string; key: string } | null;
  foreignPage?: boolean;
  /** Nginx's worker processes; default 4. */
  workers?: number;
}

export interface SwitchInput extends ProxySettings {
  project: string;
  /** None: the maintenance answer. */
  targets: readonly Target[];
  /** Running replicas that lose the traffic with this switch. */
  backups: readonly Target[];
  /** Release whose page is served. */
  pageRelease: number | null;
  /** What the release that arrives was opened with, which counts before `domain` and `templateDir`. Absent: they count. */
  opened?: ProxyInputs | null;
  /** Names of the sets of templates that may be asked for again: once this generation is proven, others are removed. */
  knownTemplates?: readonly string[];
  /** For the proof. */
  deadlineMs: number;
}

const askTimeoutMs = 500;
const putBackMs = 5_000;
/**
 * Not `auto`: every generation keeps its workers until their last player has moved, and on a host of 64 cores a few
 * generations would fill the container's memory. Four carry about 30,000 sockets.
 */
const workersDefault = 4;

/**
 * @returns the generation that is served, and what this version of Nginx can't do, for people
 * @throws TEMPLATE_INVALID, CONFIG_INVALID before anything is touched; PROXY_CONFIG_REJECTED before traffic is;
 * SWITCH_NOT_PROVEN after the pointer was put back
 */
export async function switchTraffic(
  outside: SwitchOutside,
  input: SwitchInput,
): Promise<{ generation: number; lost: string[] }> {
  const before = await outside.engine.readFiles(input.project, namesOf(input.project).volume.nginx, '');
  const { templates, domain, lost } = openedWith(before, input);
  const generation = {
    generation: nextGeneration(before),
    routes: routesOf(input.targets),
    targets: [...input.targets],
    backups: input.targets.length > 0 ? [...input.backups] : [],
    pageRelease: input.passAll ? null : input.pageRelease,
    door: doorFingerprint(input),
    contents: contentsOf({ ...input, domain }, templates),
  };
  const turned = await turnTo(outside, input, { before, templates, generation });
  return { ...turned, lost: [...lost, ...turned.lost] };
}

/**
 * Templates and domain that the arriving release was opened with; today's, if it kept none or they are lost.
 * @throws TEMPLATE_INVALID
 */
function openedWith(
  files: ReadonlyMap<string, Uint8Array>,
  { opened, domain, templateDir }: SwitchInput,
): { templates: Templates; domain: string | null; lost: string[] } {
  if (!opened) return { templates: loadTemplates(templateDir), domain, lost: [] };
  const kept = keptTemplates(files, opened.templates);
  if (kept) return { templates: kept, domain: opened.domain, lost: [] };
  const today = loadTemplates(templateDir);
  const isSame = templatesName(today) === opened.templates;
  const lost = 'the templates that this release was deployed with are lost: the present templates are used';
  return { templates: today, domain: opened.domain, lost: isSame ? [] : [lost] };
}

/** A generation that is to be served, and the files of the volume before it. */
interface Turn {
  before: ReadonlyMap<string, Uint8Array>;
  templates: Templates;
  generation: Generation & { contents: Contents };
}

type TurnInput = Pick<
  SwitchInput,
  'project' | 'doorToken' | 'subnet' | 'notReplicas' | 'knownTemplates' | 'deadlineMs'
>;

/** Writes, tests, loads and proves a generation; throws as `switchTraffic` does, with traffic where it was. */
export async function turnTo(
  outside: SwitchOutside,
  input: TurnInput,
  { before, templates, generation }: Turn,
): Promise<{ generation: number; lost: string[] }> {
  const { engine } = outside;
  const names = namesOf(input.project);
  const { features, lost } = featuresOf(await versionOf(outside, input.project));
  const number = generation.generation;
  const config = renderConfig(templates, configInput(input, generation, features));
  const set = templatesName(templates);
  const newSet = keptTemplates(before, set) ? [] : [templatesFile(templates)];

  const written = [...newSet, ...filesOf(generation, config)];
  await engine.putFiles(input.project, names.volume.nginx, written);
  await mustPassTest(outside, input.project, number);
  await flip(outside, input.project, number);
  const former = await acceptingWorkers(engine, input.project);
  await engine.signal(input.project, names.proxy, 'SIGHUP');
  const { project, deadlineMs } = input;
  const why = await whyNotServed(outside, { project, generation: number, leaving: former, deadlineMs });
  if (why !== null) throw await putBack(outside, input, { before, failed: number, former, why });

  const known = input.knownTemplates && new Set([...input.knownTemplates, set]);
  const old = [...prunable(before, number), ...(known ? forgottenTemplates(before, known) : [])];
  if (old.length > 0) await asRoot(outside, input.project, ['rm', '-rf', ...old.map(inVolume)]);
  return { generation: number, lost };
}

/** The running Nginx is asked first, because a program that is started in the container costs ten times as much. */
async function versionOf({ engine, door }: SwitchOutside, project: string): Promise<string> {
  const running = await askGeneration(door, askTimeoutMs);
  if (running?.nginx) return `nginx/${running.nginx}`;
  const said = await engine.exec(project, namesOf(project).proxy, ['nginx', '-v']);
  return said.stderr + said.stdout;
}

export function doorFingerprint({ doorToken, subnet }: Pick<ProxySettings, 'doorToken' | 'subnet'>): string {
  return createHash('sha256').update(`${doorToken}\0${subnet}`).digest('hex').slice(0, 16);
}

export function contentsOf(settings: ProxySettings, templates: Templates): Contents {
  const { domain, tls = null, foreignPage = false, workers = workersDefault } = settings;
  return { domain, templates: templatesName(templates), tls, foreignPage, workers };
}

export function configInput(
  { doorToken, subnet, notReplicas }: Pick<ProxySettings, 'doorToken' | 'subnet' | 'notReplicas'>,
  generation: Generation & { contents: Contents },
  features: ReturnType<typeof featuresOf>['features'],
): Parameters<typeof renderConfig>[1] {
  const { domain, tls, foreignPage, workers } = generation.contents;
  return { generation, features, domain, doorToken, subnet, notReplicas, tls, foreignPage, workers };
}

const inVolume = (name: string) => `${path.nginxConfig}/${name}`;

async function mustPassTest(outside: SwitchOutside, project: string, number: number): Promise<void> {
  const config = inVolume(candidateOf(number));
  const test = await outside.engine.exec(project, namesOf(project).proxy, [
    'nginx',
    '-e',
    'stderr',
    '-t',
    '-q',
    '-c',
    config,
  ]);
  if (test.exitCode === 0) return;
  await asRoot(outside, project, ['rm', '-rf', inVolume(folderOf(number)), config]).catch(() => {});
  throw new OpsError('PROXY_CONFIG_REJECTED', {
    message: `Nginx rejects the new configuration: ${wordsOf(test)}. It was not loaded; players are where they were.`,
    next: ['fix the templates or settings that it names, then gameops deploy'],
    facts: { generation: number, nginx: wordsOf(test) },
  });
}

async function flip(outside: SwitchOutside, project: string, number: number): Promise<void> {
  const moved = await asRoot(outside, project, [
    'mv',
    '-f',
    inVolume(candidateOf(number)),
    inVolume(pointerFile),
  ]);
  if (moved.exitCode === 0) return;
  throw new OpsError('ENGINE_FAILED', {
    message: `Generation ${number} can't be made the current one: ${wordsOf(moved)}. It was not loaded; players are where they were.`,
    next: ['gameops doctor', 'gameops resume'],
    facts: { generation: number },
  });
}

/** A generation that was loaded and not proven, and what was there before it. */
interface Unproven {
  before: ReadonlyMap<string, Uint8Array>;
  failed: number;
  former: Workers;
  why: string;
}

/** Nginx would load the unproven generation at its next start: the pointer goes back, and Nginx loads it. */
async function putBack(
  outside: SwitchOutside,
  { project }: Pick<SwitchInput, 'project'>,
  { before, failed, former, why }: Unproven,
): Promise<OpsError> {
  const { engine } = outside;
  const names = namesOf(project);
  const log = await engine.logTail(project, names.proxy, 20).catch(() => []);
  const config = textOf(before, pointerFile);
  const previous = generationOf(config);
  if (previous !== null) {
    await engine.putFiles(project, names.volume.nginx, [candidateFile(previous, config)]);
    await flip(outside, project, previous);
  }
  const isBack = previous !== null && (await isServedAgain(outside, project, previous, former));
  const complaint = log.filter((line) => /\[(emerg|alert|crit)\]/.test(line)).slice(-3);
  return new OpsError('SWITCH_NOT_PROVEN', {
    message: `${why}${complaint.length > 0 ? `; it says: ${complaint.join(' ')}` : ''}. ${isBack ? `Generation ${previous} was put back and is served` : 'It does not say what it serves now'}.`,
    next: [`docker logs ${names.proxy}`, 'gameops status', 'gameops deploy'],
    facts: { generation: failed, previous, previousServed: isBack, log: complaint },
  });
}

/** Workers that were there before the failed generation may stay: they serve the generation that is put back. */
async function isServedAgain(
  outside: SwitchOutside,
  project: string,
  generation: number,
  former: Workers,
): Promise<boolean> {
  const accepting = await acceptingWorkers(outside.engine, project);
  const leaving = accepting && former && new Set([...accepting].filter((pid) => !former.has(pid)));
  await outside.engine.signal(project, namesOf(project).proxy, 'SIGHUP');
  return (await whyNotServed(outside, { project, generation, leaving, deadlineMs: putBackMs })) === null;
}

function asRoot(outside: SwitchOutside, project: string, command: readonly string[]): Promise<ExecResult> {
  return outside.engine.exec(project, namesOf(project).proxy, command, { user: '0' });
}

/** The errors of Nginx, without the other lines. */
function wordsOf(result: ExecResult): string {
  const lines = (result.stderr || result.stdout)
    .split('\n')
    .map((line) => line.replace(/^nginx: /, '').trim());
  const said = lines.filter((line) => /\[(emerg|alert|crit)\]/.test(line));
  return (said.length > 0 ? said : lines.filter(Boolean)).slice(0, 3).join(' ') || `exit ${result.exitCode}`;
}
