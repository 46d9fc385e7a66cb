/**
 * What Nginx needs to start before there is any release: a generation that answers "in a moment". It is written only when there
 * is no complete one that could serve here, so calling it again never takes players off their routes. A generation that was
 * made for another network names addresses that nobody has, and one for another record expects a token that is lost.
 */
import { namesOf, nginxUid } from '../contract.ts';
import type { Engine, FileEntry } from '../engine/port.ts';
import { featuresOf } from './features.ts';
import { filesOf, nextGeneration, pointedGeneration, pointerFile } from './generation.ts';
import { renderConfig } from './render.ts';
import { configInput, contentsOf, doorFingerprint, type ProxySettings } from './switch.ts';
import { loadTemplates, templatesFile } from './templates.ts';

/** Files of generation `number`, the pointer last. */
export function firstGeneration(settings: ProxySettings, number = 1): FileEntry[] {
  const templates = loadTemplates(settings.templateDir);
  const generation = {
    generation: number,
    routes: [],
    targets: [],
    backups: [],
    pageRelease: null,
    door: doorFingerprint(settings),
    contents: contentsOf({ ...settings, tls: null }, templates),
  };
  // The container is not there to be asked for its version: the oldest features do for an answer like this.
  const { features } = featuresOf('');
  const config = renderConfig(templates, configInput(settings, generation, features));
  const kept = filesOf(generation, config).slice(0, 2);
  return [
    templatesFile(templates),
    ...kept,
    { path: pointerFile, content: config, mode: 0o640, uid: 0, gid: nginxUid },
  ];
}

/** Before the container is started; never while it runs. @returns whether it wrote one */
export async function ensureFirstGeneration(
  engine: Engine,
  project: string,
  settings: ProxySettings,
): Promise<boolean> {
  const volume = namesOf(project).volume.nginx;
  const files = await engine.readFiles(project, volume, '');
  if (pointedGeneration(files)?.door === doorFingerprint(settings)) return false;
  await engine.putFiles(project, volume, firstGeneration(settings, nextGeneration(files)));
  return true;
}
