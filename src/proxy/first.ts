/**
 * What Nginx needs to come up before any release: a generation that answers "in a moment". Written only where no
 * complete one is, so that calling it again never takes players off their routes.
 */
import { namesOf, nginxUid } from '../contract.ts';
import type { Engine, FileEntry } from '../engine/port.ts';
import { featuresOf } from './features.ts';
import { filesOf, generationOf, nextGeneration, pointerFile, textOf } from './generation.ts';
import { loadTemplates, renderConfig } from './render.ts';
import { configInput, type ProxySettings } from './switch.ts';

/** Files of generation `number`, the pointer last. */
function firstGeneration(settings: ProxySettings, number = 1): FileEntry[] {
  const generation = { generation: number, routes: [], targets: [], backups: [], pageRelease: null };
  // The container is not there to be asked for its version: the oldest features do for an answer like this.
  const { features } = featuresOf('');
  const config = renderConfig(
    loadTemplates(settings.templateDir),
    configInput({ ...settings, tls: null }, generation, features),
  );
  const kept = filesOf(generation, config).slice(0, 2);
  return [...kept, { path: pointerFile, content: config, mode: 0o640, uid: 0, gid: nginxUid }];
}

/** Before the container is started for the first time. @returns whether it wrote one */
export async function ensureFirstGeneration(
  engine: Engine,
  project: string,
  settings: ProxySettings,
): Promise<boolean> {
  const volume = namesOf(project).volume.nginx;
  const files = await engine.readFiles(project, volume, '');
  if (generationOf(textOf(files, pointerFile)) !== null) return false;
  await engine.putFiles(project, volume, firstGeneration(settings, nextGeneration(files)));
  return true;
}
