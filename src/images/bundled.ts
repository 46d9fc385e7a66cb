/**
 * The image of the bundled game server, built through the Engine API from dist/server and tagged by content:
 * nothing is rebuilt when nothing changed. Runs no program of the image and needs no network.
 */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { label } from '../contract.ts';
import type { Engine, ImageInfo } from '../engine/port.ts';
import { OpsError } from '../errors.ts';
import { packageRoot } from '../package-root.ts';
import type { Emit } from '../report/events.ts';

const repository = 'gameops-game';

/** Relative path → content, of everything in dist/server. */
export type ServerFiles = ReadonlyMap<string, Uint8Array>;

/**
 * @param nodeImage reference or id of an image with `node` in PATH; must be on the engine
 * @throws IMAGE_NOT_FOUND when the base is not there, IMAGE_BUILD_FAILED
 */
export async function gameImage(
  engine: Engine,
  { nodeImage, emit }: { nodeImage: string; emit: Emit },
): Promise<ImageInfo & { tag: string }> {
  const base = await engine.image(nodeImage);
  if (!base) {
    throw new OpsError('IMAGE_NOT_FOUND', {
      message: `The image ${nodeImage}, which the game server is built on, is not on the engine.`,
      next: ['gameops images prepare'],
      facts: { image: nodeImage },
    });
  }
  const files = await serverFiles();
  const tag = gameImageTag(files, base.id);
  const present = await engine.image(tag);
  if (present) return { ...present, tag };
  emit({ type: 'note', level: 'info', message: `building ${tag} from dist/server` });
  const context = [...files].map(([path, content]) =>
    path === 'Dockerfile'
      ? { path, content: dockerfileOn(Buffer.from(content).toString('utf8'), base.id) }
      : { path, content },
  );
  // The Dockerfile itself names the wire protocol.
  const labels = { [label.role]: 'image', [label.content]: contentHash(files, base.id) };
  const built = await engine.buildImage({ tag, context, labels }, ({ message }) =>
    emit({ type: 'note', level: 'detail', message }),
  );
  return { ...built, tag };
}

/** Pure: the tag that `gameImage` would give, so that a plan can name the image without building it. */
export function gameImageTag(files: ServerFiles, baseId: string): string {
  return `${repository}:${contentHash(files, baseId).slice(0, 16)}`;
}

export const isBundledTag = (reference: string): boolean => reference.startsWith(`${repository}:`);

function contentHash(files: ServerFiles, baseId: string): string {
  const hash = createHash('sha256').update(`1\0${baseId}\0`);
  for (const path of [...files.keys()].sort()) {
    const content = files.get(path) as Uint8Array;
    hash.update(`${path}\0${content.byteLength}\0`).update(content);
  }
  return hash.digest('hex');
}

/** Pure. The id, not the name: a name may mean another image by the time the engine reads the line. */
export function dockerfileOn(dockerfile: string, baseId: string): string {
  return dockerfile.replace(/^ARG BASE\b.*\n/m, '').replaceAll(/\$\{BASE\}|\$BASE\b/g, baseId);
}

/** Everything in dist/server, as the build left it. */
export async function serverFiles(
  folder = join(packageRoot(), 'dist', 'server'),
): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    files.set(relative(folder, path).split(sep).join('/'), await readFile(path));
  }
  if (files.has('Dockerfile')) return files;
  throw new OpsError('IMAGE_BUILD_FAILED', {
    message: `The game server is not built: there is no ${join(folder, 'Dockerfile')}.`,
    next: ['npm run build'],
  });
}
