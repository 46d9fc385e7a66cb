/**
 * Sets of templates: read from a folder, and kept in Nginx's volume under a name that follows from their text, so that
 * what a release was deployed with can be rendered again whatever the folder holds by then. Promises that a kept set is
 * either whole or taken for absent. What templates are given (`it`) therefore only ever grows.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { namesOf } from '../contract.ts';
import type { Engine, FileEntry } from '../engine/port.ts';
import { OpsError } from '../errors.ts';
import { packageRoot } from '../package-root.ts';
import type { ProxyInputs } from '../release/model.ts';

/** Template name (without .eta) → text. `nginx.conf` is the one that is rendered; it may include the others. */
export type Templates = ReadonlyMap<string, string>;

const folderOfSets = 'templates';

/**
 * @param directory null for the ones that gameops ships; files missing in another one are taken from those
 * @throws TEMPLATE_INVALID when the directory can't be read
 */
export function loadTemplates(directory: string | null = null): Templates {
  const shipped = readTemplates(join(packageRoot(), 'templates', 'nginx'));
  return directory === null ? shipped : new Map([...shipped, ...readTemplates(directory)]);
}

function readTemplates(directory: string): Map<string, string> {
  try {
    const names = readdirSync(directory).filter((name) => name.endsWith('.eta'));
    return new Map(
      names.map((name) => [name.slice(0, -'.eta'.length), readFileSync(join(directory, name), 'utf8')]),
    );
  } catch (cause) {
    throw invalidTemplates(`The Nginx templates in ${directory} can't be read`, cause);
  }
}

export function invalidTemplates(what: string, cause: unknown): OpsError {
  return new OpsError('TEMPLATE_INVALID', {
    message: `${what}. Nothing was changed; players are where they were.`,
    next: ['fix the templates, or remove http.templates from gameops.yaml to use those of gameops'],
    cause,
  });
}

/** The same for equal texts, on any machine. */
export function templatesName(templates: Templates): string {
  return nameOf(textOf(templates));
}

const nameOf = (text: string | Uint8Array) => createHash('sha256').update(text).digest('hex').slice(0, 32);

export function templatesFile(templates: Templates): FileEntry {
  return { path: pathOf(templatesName(templates)), content: textOf(templates), mode: 0o600 };
}

/** Out of all files of the volume; null when they are not there or torn. */
export function keptTemplates(files: ReadonlyMap<string, Uint8Array>, name: string): Templates | null {
  const content = files.get(pathOf(name));
  // Torn, when its writer died.
  if (!content || nameOf(content) !== name) return null;
  return new Map(JSON.parse(Buffer.from(content).toString('utf8')) as [string, string][]);
}

/**
 * Has the volume keep what a release was opened with, if today's templates are that. Where they are not, the switch says
 * what it lacks.
 */
export async function keepTemplates(
  engine: Engine,
  project: string,
  opened: ProxyInputs,
  templateDir: string | null,
): Promise<void> {
  const volume = namesOf(project).volume.nginx;
  if (keptTemplates(await engine.readFiles(project, volume, ''), opened.templates)) return;
  const today = loadTemplates(templateDir);
  if (templatesName(today) === opened.templates)
    await engine.putFiles(project, volume, [templatesFile(today)]);
}

/** Paths of the sets that none of these names means. */
export function forgottenTemplates(
  files: ReadonlyMap<string, Uint8Array>,
  names: ReadonlySet<string>,
): string[] {
  const wanted = new Set([...names].map(pathOf));
  return [...files.keys()].filter((path) => path.startsWith(`${folderOfSets}/`) && !wanted.has(path));
}

const pathOf = (name: string) => `${folderOfSets}/${name}.json`;

/** Sorted, so that the order in which a folder is listed makes no other set. */
const textOf = (templates: Templates) => JSON.stringify([...templates].sort(([a], [b]) => (a < b ? -1 : 1)));
