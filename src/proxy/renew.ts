/**
 * A new generation with the routes that are served and other contents: a certificate that was renewed, other logs. Promises
 * that players stay where they are: the routes are those that Nginx answers with, not those of its pointer, and templates and
 * domain stay the ones that its release was deployed with.
 */
import { namesOf } from '../contract.ts';
import { OpsError } from '../errors.ts';
import {
  type Contents,
  type Generation,
  nextGeneration,
  pointedGeneration,
  readGeneration,
} from './generation.ts';
import type { SwitchOutside } from './switch.ts';
import { contentsOf, doorFingerprint, type ProxySettings, type SwitchInput, turnTo } from './switch.ts';
import { keptTemplates, loadTemplates } from './templates.ts';
import { askGeneration } from './traffic.ts';

export type RenewInput = ProxySettings & Pick<SwitchInput, 'project' | 'deadlineMs'>;

const askTimeoutMs = 6_000;

/**
 * @returns the generation that is served then, and what this version of Nginx can't do, for people
 * @throws PROXY_NOT_READY when Nginx serves nothing that could be rendered again; else as `switchTraffic`
 */
export async function renewGeneration(
  outside: SwitchOutside,
  input: RenewInput,
  change: Partial<Omit<Contents, 'templates'>>,
): Promise<{ generation: number; lost: string[] }> {
  const before = await outside.engine.readFiles(input.project, namesOf(input.project).volume.nginx, '');
  const served = await servedGeneration(outside, before);
  if (served?.door !== doorFingerprint(input)) throw nothingServed(input.project);
  // A generation of an older gameops does not say what it was rendered from: that is today's then.
  const kept = served.contents && keptTemplates(before, served.contents.templates);
  const templates = kept ?? loadTemplates(input.templateDir);
  const contents = { ...contentsOf(input, templates), ...(kept ? served.contents : {}), ...change };
  // Backups were for the moments after a switch: by now nobody may be there.
  const generation = { ...served, generation: nextGeneration(before), backups: [], contents };
  return turnTo(outside, input, { before, templates, generation });
}

async function servedGeneration(
  { door }: Pick<SwitchOutside, 'door'>,
  files: ReadonlyMap<string, Uint8Array>,
): Promise<Generation | null> {
  const answer = await askGeneration(door, askTimeoutMs);
  return answer ? readGeneration(files, answer.generation) : pointedGeneration(files);
}

function nothingServed(project: string): OpsError {
  return new OpsError('PROXY_NOT_READY', {
    message: `Nginx (${namesOf(project).proxy}) serves no configuration of this project that could be rendered again. Nothing was changed.`,
    next: ['gameops status', 'gameops deploy'],
    facts: { container: namesOf(project).proxy },
  });
}
