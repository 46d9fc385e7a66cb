/** gameops prune: removes what old releases keep. Promises to remove only labelled objects, and nothing that serves, is kept for rollback or is part of an act. */

import { label } from '../contract.ts';
import type { Engine } from '../engine/port.ts';
import type { Context, Outcome } from '../operations/context.ts';
import { lockImage, readProject, withLock } from '../operations/project.ts';
import type { World } from '../release/model.ts';
import { servedReplicas } from '../release/position.ts';
import { retained } from '../release/rules.ts';
import { stopGraceMs } from '../runner/fleet.ts';

export interface PruneOptions {
  keep?: number;
}

export async function run(context: Context, options: PruneOptions): Promise<Outcome> {
  const { engine, observed } = await readProject(context);
  if (!observed) return outcome([]);
  const image = await lockImage(context, observed.containers);
  if (!image) return outcome([]);
  return withLock(context, image, async (lock) => {
    // Read again under the lock: a deploy may have ended in between.
    const { observed: now } = await readProject(context);
    if (!now) return outcome([]);
    const old = oldReleases(now.world, options.keep ?? context.config.deploy.keep);
    const removed: string[] = [];
    for (const release of old) {
      lock.lost.throwIfAborted();
      removed.push(...(await engine.forgetFleet(context.project, release, stopGraceMs)));
    }
    removed.push(...(await removeUnusedImages(engine, context, now.world, old)));
    return outcome(removed);
  });
}

function oldReleases(world: World, keep: number): number[] {
  const kept = retained(world, keep);
  return world.fleets
    .map((fleet) => fleet.release)
    .filter((id) => !kept.has(id) && servedReplicas(world, id).length === 0);
}

/** Images that gameops built and that only removed releases of this project used. */
async function removeUnusedImages(
  engine: Engine,
  context: Context,
  world: World,
  old: number[],
): Promise<string[]> {
  const containers = await Promise.all((await engine.projects()).map((project) => engine.observe(project)));
  const inUse = new Set(containers.flat().map((one) => one.image));
  const removed: string[] = [];
  for (const release of world.releases.filter((one) => old.includes(one.id))) {
    const image = await engine.image(release.image);
    if (!image || inUse.has(image.id) || image.labels[label.role] !== 'image') continue;
    const isGone = await engine.removeImage(release.image);
    if (isGone) removed.push(release.imageRef);
    const message = isGone
      ? `removed image ${release.imageRef}`
      : `kept image ${release.imageRef}: another image is built on it`;
    context.emit({ type: 'note', level: 'detail', message });
  }
  return [...new Set(removed)];
}

function outcome(removed: string[]): Outcome {
  const text =
    removed.length === 0 ? 'nothing to remove' : `removed ${removed.length}: ${removed.join(', ')}`;
  return { ok: true, result: { removed }, text: () => text };
}
