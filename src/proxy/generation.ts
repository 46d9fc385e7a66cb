/**
 * Generations of the configuration, as they lie in the volume. PURE.
 *
 *     nginx.conf              what Nginx loads at its next start or HUP: the pointer, replaced by one rename
 *     next-<n>                a candidate for it, complete before it is renamed
 *     g-<n>/nginx.conf        the same bytes, kept to go back to
 *     g-<n>/generation.json   what it was rendered from
 *     templates/<name>.json   the templates that one or more of them were rendered from
 *
 * The pointer is a file, not a link: it can be read through the engine, and it says by itself which generation it is
 * and whether it is complete.
 */
import { nginxUid } from '../contract.ts';
import type { FileEntry } from '../engine/port.ts';
import type { ProxyInputs, Route } from '../release/model.ts';

/** How Nginx comes to a replica. */
export interface Reach {
  address: string;
  port: number;
  /** Path of a Unix socket, taken instead of address and port. Absent: written by a gameops that knew none. */
  unixSocket?: string | null;
}

export interface Target extends Reach {
  release: number;
  replica: number;
}

/** All that a configuration was rendered from, but for the secret. */
export interface Generation {
  generation: number;
  routes: Route[];
  targets: Target[];
  /** Replicas that this switch leaves: asked only when no target answers, gone with the next generation. */
  backups: Target[];
  pageRelease: number | null;
  /** Fingerprint of the network and of the secret that it was made for: useless in another one. */
  door: string;
  /** Absent: written by a gameops that kept none. */
  contents?: Contents;
}

/** What is rendered around the routes. */
export interface Contents extends ProxyInputs {
  /** Paths in the container; null until there is a certificate. */
  tls: { certificate: string; key: string } | null;
  /** The static files are the operator's: no content security policy and no eternal caching is assumed for them. */
  foreignPage: boolean;
  /** Nginx's worker processes. */
  workers: number;
}

export const pointerFile = 'nginx.conf';
/** Removed down to the lower one when there are more than the upper: a removal costs a switch about 0.1 s. */
const generationsKept = { atLeast: 5, atMost: 10 };

export const folderOf = (generation: number) => `g-${generation}`;
export const candidateOf = (generation: number) => `next-${generation}`;

export function routesOf(targets: readonly Target[]): Route[] {
  const releases = [...new Set(targets.map(({ release }) => release))].sort((a, b) => a - b);
  return releases.map((release) => ({
    release,
    replicas: targets
      .filter((target) => target.release === release)
      .map(({ replica }) => replica)
      .sort((a, b) => a - b),
  }));
}

/** A configuration between the lines that name it; no template can forget them. */
export function enclosed(generation: number, config: string): string {
  return `# gameops generation ${generation}\n${config.trimEnd()}\n# end of generation ${generation}\n`;
}

/** Number of the generation that a configuration is; null when it is torn or not ours. */
export function generationOf(config: string): number | null {
  const first = /^# gameops generation (\d+)\n/.exec(config)?.[1];
  return first !== undefined && config.endsWith(`\n# end of generation ${first}\n`) ? Number(first) : null;
}

/** The generation that Nginx loads next, out of all files of the volume. */
export function pointedGeneration(files: ReadonlyMap<string, Uint8Array>): Generation | null {
  const number = generationOf(textOf(files, pointerFile));
  return number === null ? null : readGeneration(files, number);
}

export function readGeneration(files: ReadonlyMap<string, Uint8Array>, number: number): Generation | null {
  try {
    const parsed = JSON.parse(textOf(files, `${folderOf(number)}/generation.json`)) as Generation;
    return parsed.generation === number ? parsed : null;
  } catch {
    return null;
  }
}

/** Higher than all that were ever begun, so that the leavings of a dead process are never taken for this one. */
export function nextGeneration(files: ReadonlyMap<string, Uint8Array>): number {
  return Math.max(0, generationOf(textOf(files, pointerFile)) ?? 0, ...[...files.keys()].map(numberIn)) + 1;
}

/** Files of one generation; the candidate comes last. The secret in them is for root and Nginx alone. */
export function filesOf(generation: Generation, config: string): FileEntry[] {
  const owned = { uid: 0, gid: nginxUid, mode: 0o640 };
  const folder = folderOf(generation.generation);
  return [
    { path: `${folder}/generation.json`, content: `${JSON.stringify(generation)}\n`, ...owned },
    { path: `${folder}/${pointerFile}`, content: config, ...owned },
    candidateFile(generation.generation, config),
  ];
}

export function candidateFile(generation: number, config: string): FileEntry {
  return { path: candidateOf(generation), content: config, uid: 0, gid: nginxUid, mode: 0o640 };
}

/** Names in the volume that nobody goes back to once `current` is proven: old folders and abandoned candidates. */
export function prunable(files: ReadonlyMap<string, Uint8Array>, current: number): string[] {
  const names = [...new Set([...files.keys()].map((path) => path.split('/')[0] ?? ''))];
  const folders = names
    .filter((name) => /^g-\d+$/.test(name) && numberIn(name) < current)
    .sort((a, b) => numberIn(b) - numberIn(a));
  const candidates = names.filter((name) => /^next-\d+$/.test(name) && numberIn(name) < current);
  // `files` was read before the current one was written.
  const tooMany = folders.length + 1 > generationsKept.atMost;
  return [...(tooMany ? folders.slice(generationsKept.atLeast - 1) : []), ...candidates];
}

export function textOf(files: ReadonlyMap<string, Uint8Array>, path: string): string {
  return Buffer.from(files.get(path) ?? []).toString('utf8');
}

const numberIn = (path: string) => Number(/^(?:g|next)-(\d+)(?:\/|$)/.exec(path)?.[1] ?? 0);
