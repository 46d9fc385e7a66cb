/**
 * Moves a finished build into dist/. Promises that every path a running deploy or test may open is there at every
 * moment: each file is replaced by one rename, pieces before what names them.
 */
import { mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';

const keptMs = 3_600_000;
const stagePrefix = '.stage-';
/** What names other files comes last. */
const entryPoints = [
  'server/server.mjs',
  'web/index.html',
  'web/manifest.json',
  'audience.cjs',
  'help.cjs',
  'env.cjs',
  'cli.cjs',
];

/** An empty folder on the file system of dist/, so that renames are atomic. Removes what killed builds left. */
export async function openStage(dist) {
  await mkdir(dist, { recursive: true });
  for (const name of await readdir(dist)) {
    if (name.startsWith(stagePrefix) && (await ageMs(join(dist, name))) > keptMs)
      await rm(join(dist, name), { recursive: true, force: true });
  }
  return mkdtemp(join(dist, stagePrefix));
}

/** @returns how many files were moved */
export async function install(stage, dist) {
  const files = await filesIn(stage);
  const rank = (file) => entryPoints.indexOf(file);
  for (const file of files.sort((a, b) => rank(a) - rank(b))) {
    await mkdir(join(dist, dirname(file)), { recursive: true });
    await rename(join(stage, file), join(dist, file));
  }
  await rm(stage, { recursive: true, force: true });
  await removeOld(dist, new Set(files));
  return files.length;
}

async function removeOld(dist, current) {
  for (const file of await filesIn(dist)) {
    if (!current.has(file) && !file.startsWith(stagePrefix)) await rm(join(dist, file), { force: true });
  }
}

async function filesIn(folder) {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));
}

async function ageMs(path) {
  const found = await stat(path).catch(() => null);
  return found === null ? 0 : Date.now() - found.mtimeMs;
}
