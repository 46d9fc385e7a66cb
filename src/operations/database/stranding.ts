/**
 * Which releases a change of the schema would leave without something that they use. Checked under the lock, before
 * anything runs.
 */
import { byPrefix, mayBoot, type SchemaSeen } from '../../boot-rule.ts';
import type { Engine } from '../../engine/port.ts';
import { OpsError } from '../../errors.ts';
import { readRecord } from '../../record/record.ts';
import type { Release, World } from '../../release/model.ts';
import { fleetsOf } from '../../runner/fleet.ts';
import type { Context } from '../context.ts';
import { reachable, usersOf } from './compatibility.ts';

type Fleets = Pick<World, 'releases' | 'fleets'>;

/** Without an engine, or without a record on it, no release runs. */
export async function fleetsNow({ project }: Context, engine: Engine | null): Promise<Fleets> {
  const record = engine && (await readRecord(engine, project));
  if (!engine || !record) return { releases: [], fleets: [] };
  return { releases: record.releases, fleets: fleetsOf(await engine.observe(project), record.releases) };
}

const named = (releases: readonly Release[]) => releases.map(({ id }) => id).join(', ');

/** @param contracts that are to run, in order. @throws RELEASE_NEEDS_SCHEMA */
export function refuseStranding(contracts: readonly string[], fleets: Fleets): void {
  const last = contracts.at(-1);
  const users = last === undefined ? [] : usersOf(last, fleets);
  if (last === undefined || users.length === 0) return;
  const running = reachable(fleets).filter(({ isRunning }) => isRunning);
  const isPlayed = users.some((user) => running.some(({ release }) => release.id === user.id));
  throw new OpsError('RELEASE_NEEDS_SCHEMA', {
    message: `Release ${named(users)} may still use what ${last} removes: ${isPlayed ? 'players are on it' : 'it is kept for rollback'}. Nothing was run; players are where they were.`,
    next: isPlayed
      ? ['gameops deploy: brings a release that knows the migration', 'gameops releases']
      : [
          'gameops prune --keep 1: removes it, so that no rollback goes back to it',
          'or wait: a later deploy applies the migration by itself',
        ],
    facts: { migration: last, releases: users.map(({ id }) => String(id)) },
  });
}

/**
 * @param after the schema once the migrations are reverted
 * @returns kept releases that no rollback could go back to any more. @throws RELEASE_NEEDS_SCHEMA for a release that runs
 */
export function refuseTakingAway(after: SchemaSeen, fleets: Fleets): Release[] {
  const lost = reachable(fleets).filter(
    ({ release }) => release.migrations !== null && mayBoot(release.migrations, after) === 'schema-too-old',
  );
  const played = lost.filter(({ isRunning }) => isRunning).map(({ release }) => release);
  if (played.length === 0) return lost.map(({ release }) => release);
  throw new OpsError('RELEASE_NEEDS_SCHEMA', {
    message: `Release ${named(played)} runs and needs ${played[0]?.migrations?.needs}, which would be reverted. Nothing was run; players are where they were.`,
    next: ['gameops rollback --schema: moves the players first, then reverts the schema', 'gameops releases'],
    facts: { releases: played.map(({ id }) => String(id)) },
  });
}

/** Running releases that need a migration which the schema would not have. */
export function strandedBy(has: (migration: string) => boolean, fleets: Fleets): Release[] {
  return reachable(fleets)
    .filter(({ isRunning }) => isRunning)
    .map(({ release }) => release)
    .filter(({ migrations }) => typeof migrations?.needs === 'string' && !has(migrations.needs));
}

/**
 * @param newest newest migration in the backup; null: it has none
 * @param applied migrations of the present database, in order; others are ordered by their names
 */
export function isInBackup(
  newest: string | null,
  applied: readonly string[],
): (migration: string) => boolean {
  return (migration) => {
    if (newest === null) return false;
    const [at, then] = [applied.indexOf(migration), applied.indexOf(newest)];
    return at < 0 || then < 0 ? byPrefix(migration, newest) <= 0 : at <= then;
  };
}
