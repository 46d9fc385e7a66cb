/**
 * Which release may run on which schema, by the same rule that servers apply when they start. Promises to refuse before
 * anything is touched.
 */
import { imageNeeds, isBelow, mayBoot, type Phased, type SchemaSeen, statedNeeds } from '../../boot-rule.ts';
import { label } from '../../contract.ts';
import type { SchemaState } from '../../database/migrate/pending.ts';
import type { ImageInfo } from '../../engine/port.ts';
import { OpsError } from '../../errors.ts';
import type { ImageNeeds, Release, SchemaWork, World } from '../../release/model.ts';
import { originOfRelease } from '../../release/origin.ts';
import { liveRelease } from '../../release/position.ts';
import { counted } from '../../units.ts';
import type { Context } from '../context.ts';
import { forwardWork, type SchemaLook } from './database.ts';

/**
 * What the labels of the image say; without labels, what today's folder of migrations says.
 * @param applied given when pending migrations are not applied: the image serves without them, so only applied ones count
 */
export function needsOf(
  info: ImageInfo | null,
  files: readonly Phased[],
  applied: ReadonlySet<string> | null = null,
): ImageNeeds | null {
  const known = applied === null ? files : files.filter(({ name }) => applied.has(name));
  return (info && statedBy(info)) ?? (known.length > 0 ? imageNeeds(known) : null);
}

const statedBy = ({ labels }: ImageInfo) => statedNeeds(labels[label.needs], labels[label.knows]);

/** Else the folder beside the image says what it needs, and the image may well do without. */
export const statesNeeds = (image: Pick<Release, 'protocol'>, info: ImageInfo | undefined): boolean =>
  originOfRelease(image) === 'bundled' || (info !== undefined && statedBy(info) !== null);

/** The schema that a release meets when the work is done. */
export function schemaAfter(
  { applied, ledger }: SchemaState,
  { pending, contracts, wish }: SchemaWork,
): SchemaSeen {
  const goes = new Set(wish?.kind === 'take-back' ? wish.migrations : []);
  return {
    applied: new Set([...[...applied].filter((name) => !goes.has(name)), ...pending]),
    floor: contracts.at(-1) ?? ledger.floor,
  };
}

/**
 * Releases that run, or that a rollback can go back to. A failed release never served: its containers are kept for inspection.
 */
export function reachable(
  world: Pick<World, 'releases' | 'fleets'>,
): { release: Release; isRunning: boolean }[] {
  return world.fleets.flatMap((fleet) => {
    const release = world.releases.find(({ id }) => id === fleet.release);
    const isRunning = fleet.replicas.some(({ running }) => running);
    if (!release || (!isRunning && ['failed', 'abandoned'].includes(release.verdict))) return [];
    return [{ release, isRunning }];
  });
}

/** Releases that may still use what the contract migration removes, including those that do not say what they know. */
export function usersOf(contract: string, world: Pick<World, 'releases' | 'fleets'>): Release[] {
  return reachable(world)
    .map(({ release }) => release)
    .filter(({ migrations }) => migrations === null || isBelow(migrations.knows, contract));
}

/** Contract migrations whose removals no release misses, in order. */
export function ripeContracts(
  { pending }: SchemaState,
  world: Pick<World, 'releases' | 'fleets'>,
  candidate: ImageNeeds | null,
): string[] {
  const isKnown = (name: string) => candidate !== null && !isBelow(candidate.knows, name);
  return pending.contract.filter((name) => isKnown(name) && usersOf(name, world).length === 0);
}

interface Lack {
  /** Why a needed migration is not applied; null: the image may do without it. */
  why: string | null;
  next: [string, ...string[]];
}

/**
 * @param release to be started
 * @param world names the releases to go to instead
 * @throws IMAGE_TOO_OLD, SCHEMA_TOO_OLD
 */
export function mustFit(release: Release, schema: SchemaSeen, world: World, lack: Lack): void {
  if (release.migrations === null) return;
  const verdict = mayBoot(release.migrations, schema);
  if (verdict === 'yes' || (verdict === 'schema-too-old' && lack.why === null)) return;
  const { needs, knows } = release.migrations;
  const facts = { release: release.id, needs, knows, floor: schema.floor };
  const name = `Release ${release.id} (${release.imageRef})`;
  const unchanged = `Nothing was changed; players are on ${liveRelease(world)?.id ?? 'nothing'}.`;
  const others = fittingReleases(world, schema, release.id).map((id) => `gameops rollback --to ${id}`);
  if (verdict === 'image-too-old') {
    const waysOut = [
      ...others.slice(0, 1),
      'gameops db backups, then gameops db restore <id>: brings back the schema it knows; everything written since is lost',
    ];
    throw new OpsError('IMAGE_TOO_OLD', {
      message: `${name} knows the schema up to ${knows ?? 'nothing'}. Since then the contract migration ${schema.floor} has removed what this release may still use. ${unchanged}`,
      next: ['gameops deploy: go forward with a release that knows that migration', ...waysOut],
      facts,
    });
  }
  throw new OpsError('SCHEMA_TOO_OLD', {
    message: `${name} needs the migration ${needs}, ${lack.why}. ${unchanged}`,
    next: [...lack.next, ...others.slice(0, 1)],
    facts,
  });
}

/** Newest first. */
function fittingReleases({ releases }: World, schema: SchemaSeen, besides: number): number[] {
  return releases
    .filter(({ id, verdict }) => id !== besides && ['superseded', 'rolled-back'].includes(verdict))
    .filter(({ migrations }) => migrations !== null && mayBoot(migrations, schema) === 'yes')
    .map(({ id }) => id)
    .sort((a, b) => b - a);
}

// In a deploy ------------------------------------------------------------------------------------------------------

/** A deploy brings contract migrations along once no release that runs or is kept uses what they remove. */
export function withContracts(
  { emit }: Context,
  { state, work }: SchemaLook,
  world: World,
  candidate: Release,
): SchemaWork {
  if (state === null) return work;
  const ripe = ripeContracts(state, world, candidate.migrations);
  const waiting = state.pending.contract.filter((name) => !ripe.includes(name));
  const users = waiting.slice(0, 1).flatMap((name) => usersOf(name, world).map(({ id }) => id));
  if (waiting.length > 0) {
    const what =
      users.length > 0
        ? `until release ${users.join(', ')} is neither running nor kept`
        : 'for a release that knows them';
    const message = `waiting ${what}: ${counted(waiting.length, 'contract migration')} (${waiting.join(', ')})`;
    emit({ type: 'note', level: 'info', message });
  }
  return forwardWork(state, work.wish, ripe);
}

/** Which migrations will be pending is unknown until the backup is restored. @throws UNFINISHED */
export function refuseBeforeRestore({ wish }: SchemaWork): void {
  if (wish?.kind !== 'restore') return;
  throw new OpsError('UNFINISHED', {
    message: `A rollback still has to restore the backup ${wish.backup}. Nothing was changed; players are where they were.`,
    next: ['gameops resume', 'gameops abort: leaves the database as it is', 'then gameops deploy'],
    facts: { backup: wish.backup },
  });
}

/** @throws IMAGE_TOO_OLD, SCHEMA_TOO_OLD */
export function mustFitSchema(
  { emit }: Context,
  candidate: Release,
  world: World,
  { state }: SchemaLook,
  { skipMigrations, isStated }: { skipMigrations: boolean; isStated: boolean },
): void {
  if (state === null) return;
  const work = world.schema;
  const schema = schemaAfter(state, skipMigrations ? { ...work, pending: [], contracts: [] } : work);
  const needed = candidate.migrations?.needs ?? '';
  const why = !work.pending.includes(needed)
    ? 'which is neither applied nor in the folder of migrations'
    : isStated
      ? 'which is pending and is not applied because of --skip-migrations'
      : null;
  mustFit(candidate, schema, world, { why, next: ['gameops deploy', 'gameops db status'] });
  if (!skipMigrations || work.pending.length === 0) return;
  emit({ type: 'note', level: 'warning', message: `left pending: ${work.pending.join(', ')}` });
}
