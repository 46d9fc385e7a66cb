/**
 * A deploy that changes nothing but secrets: the live release with its image, page, shape and settings under a new number,
 * and today's secrets from .env. So a rotation never deploys changes that somebody else has prepared.
 */

import { label } from '../contract.ts';
import { checkRoom } from '../engine/capacity.ts';
import type { Engine } from '../engine/port.ts';
import { OpsError } from '../errors.ts';
import { actOnProject } from '../operations/act.ts';
import type { Context } from '../operations/context.ts';
import { nothingThere } from '../operations/project.ts';
import { causeOf, findPage, hashPage, rekeyedCandidate, valuesFor } from '../operations/release-inputs.ts';
import { headingOf } from '../operations/result.ts';
import type { ProjectRecord } from '../record/record.ts';
import { newIntent } from '../release/intent.ts';
import type { Release } from '../release/model.ts';
import { originOfRelease } from '../release/origin.ts';
import { planAct } from '../release/plan.ts';
import { liveRelease } from '../release/position.ts';
import { fleetsAtOnce } from '../release/strategy.ts';
import type { RotateOptions } from './model.ts';

/** @throws what a deploy throws; after a failure before the switch the next call continues */
export async function deploySecrets(
  context: Context,
  { watchMs, drainMs }: RotateOptions,
  cause: string,
): Promise<void> {
  await actOnProject(context, async (act, world, { env }) => {
    const live = liveRelease(world);
    if (!live) throw nothingThere(context);
    mustHavePage(context, live);
    mustBeOurs(act.record, live);
    await mustHaveRoom(context, act.outside.engine, live);
    const values = valuesFor(context, env, live);
    const at = new Date().toISOString();
    const candidate = rekeyedCandidate(act.record, live, values, { by: context.operator, at });
    const { deploy } = context.config;
    const intent = newIntent({
      verb: 'deploy',
      strategy: deploy.strategy,
      release: candidate.id,
      readyMs: deploy.readyMs,
      watchMs: watchMs ?? deploy.watchMs,
      drainMs: drainMs ?? deploy.drainMs,
      keep: deploy.keep,
      skipMigrations: true,
      startedAt: at,
      by: context.operator,
    });
    const changed = causeOf(candidate, live);
    const plan = planAct(world, intent, { candidate, cause: `${cause}; ${changed}`, again: false });
    return { plan, heading: headingOf(plan, world, candidate.replicas) };
  });
}

/** @throws MEMORY_TOO_SMALL, DISK_TOO_FULL */
async function mustHaveRoom({ project, config }: Context, engine: Engine, live: Release): Promise<void> {
  const { replicas, shape } = live;
  // Only an image of the foundation is sure to hold `df`.
  const proxy = (await engine.observe(project)).find(({ role }) => role === 'proxy');
  const fleets = fleetsAtOnce(config.deploy.strategy, replicas);
  const { memoryBytes } = shape;
  await checkRoom(engine, { project, image: proxy?.image ?? live.image, replicas, fleets, memoryBytes });
}

/** A deploy that somebody else began is theirs to finish: it may bring migrations. @throws ROTATION_REFUSED */
function mustBeOurs({ intent, releases }: ProjectRecord, live: Release): void {
  const begun = releases.find(({ id }) => id === intent?.release);
  if (intent?.stage !== 'open' || !begun || begun.image === live.image) return;
  throw new OpsError('ROTATION_REFUSED', {
    message: `The ${intent.verb} of release ${intent.release} by ${intent.by} is unfinished, and it changes more than secrets. Nothing was changed; players are on release ${live.id}.`,
    next: ['gameops resume, or gameops abort', 'then the same command again'],
    facts: { release: intent.release, by: intent.by },
  });
}

/** @throws RELEASE_UNKNOWN */
export function mustBeLive(context: Context, record: ProjectRecord | null): Release {
  const live = record?.releases.find(({ verdict }) => verdict === 'live');
  if (!live) throw nothingThere(context);
  return live;
}

/** The new release publishes today's page again, so that has to be the page of the live one. @throws ROTATION_REFUSED */
function mustHavePage(context: Context, live: Release): void {
  if (hashPage(findPage(context, originOfRelease(live))) === live.page) return;
  throw deployFirst(`The page of release ${live.id} differs from today's page`, live);
}

/** @throws ROTATION_REFUSED for a server that accepts tokens of the signing key only */
export async function mustAcceptKeys(engine: Engine, live: Release): Promise<void> {
  const image = await engine.image(live.image);
  if (image === null || image.labels[label.keyRing] !== undefined) return;
  if (originOfRelease(live) === 'bundled')
    throw deployFirst(
      `Release ${live.id} was deployed by an older gameops, whose server accepts only one key`,
      live,
    );
  throw new OpsError('ROTATION_REFUSED', {
    message: `The image of release ${live.id} does not say that it accepts tokens of JWT_SECRET_NEXT and JWT_SECRET_PREVIOUS, so a new key would log its players out. Nothing was changed.`,
    next: [
      `make its server accept both, build the image with LABEL ${label.keyRing}=1, then gameops deploy`,
      'gameops env rotate jwt',
    ],
    facts: { release: live.id, image: live.imageRef },
  });
}

function deployFirst(why: string, live: Release): OpsError {
  return new OpsError('ROTATION_REFUSED', {
    message: `${why}, and a rotation changes nothing but secrets. Nothing was changed; players are where they were.`,
    next: ['gameops deploy', 'then the same command again'],
    facts: { release: live.id },
  });
}
