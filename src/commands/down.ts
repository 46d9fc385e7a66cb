/** gameops down: removes everything that carries the project's label; volumes, and with them the data, only with --volumes. */

import { namesOf } from '../contract.ts';
import type { Engine, Lock } from '../engine/port.ts';
import { type Context, confirmLoss, type Outcome } from '../operations/context.ts';
import { lockImage, withLock } from '../operations/project.ts';
import { counted } from '../units.ts';

export interface DownOptions {
  volumes?: boolean;
}

export async function run(context: Context, options: DownOptions): Promise<Outcome> {
  const engine = await context.engine();
  const { project } = context;
  const [containers, volumes, network] = await Promise.all([
    engine.observe(project),
    engine.volumes(project),
    engine.network(project),
  ]);
  if (containers.length === 0 && network === null && (volumes.length === 0 || !options.volumes)) {
    return outcome(context, [], volumes);
  }
  if (options.volumes)
    await confirmLoss(
      context,
      `This removes all data of ${project}: the volumes ${volumes.join(', ')}.`,
      '--volumes',
    );
  const image = await lockImage(context, containers);
  const remove = (lock?: Lock) => removeAll(engine, project, options.volumes === true, lock);
  // Without any image nobody else can hold the lock or begin a deploy either.
  const removed = image ? await withLock(context, image, remove) : await remove();
  return outcome(context, removed, options.volumes ? [] : volumes);
}

/** Nginx is removed before the servers: the other way round players would get errors from it. */
async function removeAll(
  engine: Engine,
  project: string,
  withVolumes: boolean,
  lock?: Lock,
): Promise<string[]> {
  const names = namesOf(project);
  const removed: string[] = [];
  const all = (await engine.observe(project)).filter((one) => one.role !== 'lock');
  const first = all.filter((one) => one.name === names.proxy);
  for (const container of [...first, ...all.filter((one) => one.name !== names.proxy)]) {
    lock?.lost.throwIfAborted();
    await engine.removeContainer(project, container.name);
    removed.push(container.name);
  }
  if (await engine.network(project)) {
    await engine.removeNetwork(project);
    removed.push(names.network);
  }
  if (!withVolumes) return removed;
  for (const volume of await engine.volumes(project)) {
    lock?.lost.throwIfAborted();
    await engine.removeVolume(project, volume);
    removed.push(volume);
  }
  return removed;
}

function outcome(context: Context, removed: string[], keptVolumes: string[]): Outcome {
  const kept =
    keptVolumes.length === 0
      ? []
      : [
          `kept ${counted(keptVolumes.length, 'volume')} with data and record; gameops down --volumes removes ${keptVolumes.length === 1 ? 'it' : 'them'}`,
        ];
  const done =
    removed.length === 0
      ? `${context.project}: nothing to remove`
      : `removed ${removed.length}: ${removed.join(', ')}`;
  return { ok: true, result: { removed, keptVolumes }, text: () => [done, ...kept].join('\n') };
}
