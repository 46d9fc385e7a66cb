/**
 * Images that are gone from the engine while releases on record still need them: had again by digest, so that what runs
 * is what ran, wherever a tag points today. Before the first step of a plan: nothing that runs was touched.
 */

import type { Engine } from '../engine/port.ts';
import { isOpsError, OpsError } from '../errors.ts';
import { pullTold } from '../images/pull.ts';
import { planImages } from '../release/foundation.ts';
import type { FoundationStep, Plan, Release, ReleaseStep } from '../release/model.ts';
import { fleetsOf } from '../runner/fleet.ts';
import type { Context } from './context.ts';

export type Lost = Release & { digestRef: string };

/**
 * Releases that the plan makes containers of without their image. Kept containers start without one.
 * @throws IMAGE_NOT_FOUND for an image that never was in a registry
 */
export async function findLost(
  engine: Engine,
  project: string,
  plan: Plan<ReleaseStep>,
  known: readonly Release[],
): Promise<Lost[]> {
  const started = new Map<number, number[]>();
  for (const step of plan.steps) {
    if (step.kind !== 'start-fleet') continue;
    started.set(step.release, [...(started.get(step.release) ?? []), ...step.replicas]);
  }
  const opened = plan.steps.flatMap((step) => (step.kind === 'open' ? [step.candidate] : []));
  const releases = [...opened, ...known.filter(({ id }) => !opened.some((one) => one.id === id))];
  const lost = await Promise.all(
    releases.map(async (release) => {
      const replicas = started.get(release.id);
      if (!replicas || (await engine.image(release.image))) return [];
      const [fleet] = fleetsOf(await engine.observe(project, release.id), [release]);
      const isKept = (n: number) => fleet?.replicas.some((one) => one.n === n && one.current);
      return replicas.every(isKept) ? [] : [release];
    }),
  );
  return lost.flat().map(againByDigest);
}

function againByDigest(release: Release): Lost {
  const { id, imageRef, image, digestRef } = release;
  if (digestRef !== null) return { ...release, digestRef };
  throw new OpsError('IMAGE_NOT_FOUND', {
    message: `The image of release ${id} (${imageRef}) is not on the engine any more, and it never was in a registry. Nothing that runs was touched; players are where they were.`,
    next: ['gameops rollback --to <another release>', 'gameops releases'],
    facts: { release: id, image },
  });
}

export const planLost = (lost: readonly Lost[]): FoundationStep[] =>
  planImages({ missingImages: lost.map(({ digestRef }) => digestRef), imageToBuild: null });

/** @throws what a pull throws, naming the release */
export async function pullLost(engine: Engine, lost: readonly Lost[], context: Context): Promise<void> {
  for (const { id, digestRef } of lost) {
    await pullTold(engine, digestRef, context).catch((error: unknown) => {
      if (!isOpsError(error)) throw error;
      throw new OpsError(error.code, {
        message: `The image of release ${id} is not on the engine any more. ${error.message}`,
        next: [error.next[0], ...error.next.slice(1), 'gameops releases'],
        facts: { ...error.facts, release: id },
        cause: error,
      });
    });
  }
}
