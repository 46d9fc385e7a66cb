/** gameops rollback: an earlier release with its image and settings, and today's secrets; instant while its fleet is kept. */

import { OpsError } from '../errors.ts';
import { actOnProject, findLost, planLost, requestOf } from '../operations/act.ts';
import type { Context, EnvFile, Outcome } from '../operations/context.ts';
import { migrationsDir, projectDatabase } from '../operations/database/database.ts';
import {
  confirmSchemaLoss,
  type SchemaBack,
  schemaBack,
  withWishAsked,
} from '../operations/database/schema-back.ts';
import { nothingThere, readProject } from '../operations/project.ts';
import { isRekeyed, revivedCandidate, valuesFor } from '../operations/release-inputs.ts';
import { headingOf, planOutcome } from '../operations/result.ts';
import type { ProjectRecord } from '../record/record.ts';
import { newIntent } from '../release/intent.ts';
import type { Plan, Release, ReleaseStep, World } from '../release/model.ts';
import { originOfImage } from '../release/origin.ts';
import { planAct, planStay } from '../release/plan.ts';
import { liveRelease } from '../release/position.ts';
import { setWish } from '../runner/act.ts';

export interface RollbackOptions {
  /** Release number. */
  to?: number;
  schema?: boolean;
  /** Id of a backup. */
  restoreBackup?: string;
  acceptLoss?: boolean;
  plan?: boolean;
}

export async function run(context: Context, options: RollbackOptions): Promise<Outcome> {
  if (options.plan) return showPlan(context, options);
  return actOnProject(context, async (act, world, { env, database }) => {
    const target = chooseTarget(context, act.record, world, options.to);
    const request = { options, target, world, database, env };
    const back = await schemaBack(context, request);
    await confirmSchemaLoss(context, request, back);
    const asked = await withWishAsked(context, request, back);
    // Recorded first, so that whoever continues from here does what was asked last.
    if (asked.intent && asked.intent !== world.intent) await setWish(act, asked.intent.schema);
    const plan = planFor(context, env, act.record, asked, target, back);
    return { plan, heading: headingOf(plan, world, target.replicas) };
  });
}

async function showPlan(context: Context, options: RollbackOptions): Promise<Outcome> {
  const { engine, record, observed } = await readProject(context);
  if (!record || !observed) throw nothingThere(context);
  const { world } = observed;
  const { image } = requestOf(record);
  const env = context.readEnv(image);
  const dir = migrationsDir(context, originOfImage(image));
  const database = projectDatabase(context, engine, env, dir);
  const target = chooseTarget(context, record, world, options.to);
  const request = { options, target, world, database, env };
  const back = await schemaBack(context, request);
  const asked = await withWishAsked(context, request, back);
  const plan = planFor(context, env, record, asked, target, back);
  const lost = await findLost(engine, context.project, plan, record.releases);
  const whole: Plan = { ...plan, steps: [...planLost(lost), ...plan.steps] };
  return withLosses(planOutcome(whole, headingOf(plan, world, target.replicas)), back);
}

function withLosses(outcome: Outcome, { loss, losses }: SchemaBack): Outcome {
  return {
    ...outcome,
    result: { ...outcome.result, losses },
    text: (style) => [outcome.text?.(style) ?? '', ...(loss === null ? [] : [loss])].join('\n'),
  };
}

function planFor(
  context: Context,
  env: EnvFile,
  record: ProjectRecord,
  world: World,
  target: Release,
  back: SchemaBack,
): Plan<ReleaseStep> {
  const { deploy } = context.config;
  // Secrets that changed since are deployed by a deploy; here the live release is only repaired.
  if (liveRelease(world)?.id === target.id) return planStay(world, back.wish, back.left ?? target.id);
  const candidate = revivedCandidate(record, target, valuesFor(context, env, target));
  const intent = newIntent({
    verb: 'rollback',
    strategy: 'blue-green',
    release: target.id,
    readyMs: deploy.readyMs,
    // Going back is urgent, and the release has served before: the probes of the gate are enough.
    watchMs: 0,
    drainMs: deploy.drainMs,
    keep: deploy.keep,
    schema: back.wish,
    startedAt: new Date().toISOString(),
    by: context.operator,
  });
  const cause = `rollback asked for; ${liveRelease(world)?.id ?? 'nothing'} is live`;
  // The same image and settings under another number are still another fleet, and the operator asked for it.
  return planAct(world, intent, { candidate, cause, again: true });
}

/**
 * The newest release that served before the live one, unless the operator names another. Releases that a rotation left
 * behind are skipped, because they would come back equal to the live one; they are used only when there is no other.
 */
export function chooseTarget(
  context: Context,
  record: ProjectRecord,
  world: World,
  to: number | undefined,
): Release {
  const live = liveRelease(world);
  const served = record.releases.filter((release) => ['superseded', 'rolled-back'].includes(release.verdict));
  const known = served.map((release) => String(release.id));
  if (to !== undefined) {
    const named = record.releases.find((release) => release.id === to);
    if (named && (named.id === live?.id || served.includes(named))) return named;
    const why = named ? `never served (it is ${named.verdict})` : 'is not on record';
    throw new OpsError('RELEASE_UNKNOWN', {
      message: `Release ${to} ${why}. Nothing was changed; players are where they were.`,
      next: [
        known.length > 0 ? `gameops rollback --to ${known.at(-1)}` : 'gameops deploy',
        'gameops releases',
      ],
      facts: { release: to, served: known },
    });
  }
  // An interrupted rollback that is asked for again goes to the same release, not to an earlier one.
  const begun = record.releases.find(({ id }) => id === world.intent?.release);
  if (begun && world.intent?.verb === 'rollback' && world.intent.stage !== 'condemned') return begun;
  const before = served
    .filter((release) => release.verdict === 'superseded' && release.id < (live?.id ?? Infinity))
    .sort((a, b) => b.id - a.id);
  const target = before.find((release) => !(live && isRekeyed(release, live))) ?? before[0];
  if (target) return target;
  throw noTarget(context.project, world, known);
}

function noTarget(project: string, world: World, served: readonly string[]): OpsError {
  const live = liveRelease(world);
  const before = live ? `before release ${live.id}` : 'so far';
  const others: [string, ...string[]] =
    served.length > 0
      ? [`gameops rollback --to ${served.at(-1)}`]
      : ['gameops releases', 'gameops deploy --image <ref>'];
  return new OpsError('NOTHING_TO_ROLL_BACK_TO', {
    message: `No release of ${project} served ${before}. Nothing was changed; players are where they were.`,
    // Whoever interrupted a deploy and then asks for a rollback wants to be rid of what that deploy has begun.
    next: world.intent ? ['gameops abort', 'gameops resume', ...others] : others,
    facts: { live: live?.id ?? null, served },
  });
}
