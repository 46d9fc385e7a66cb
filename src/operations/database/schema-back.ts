/**
 * What a rollback does to the schema: which migrations it reverts, or which backup it restores. Promises to refuse what
 * can't be done before anything is touched, and to ask before data is lost.
 */
import type { SchemaSeen } from '../../boot-rule.ts';
import type { Manifest, WritesSince } from '../../database/backup/model.ts';
import { findBackup, writesSinceBackup } from '../../database/backup/restore.ts';
import {
  type BackPlan,
  isLossy,
  lossText,
  migrationsAfter,
  waysToAccept,
} from '../../database/migrate/back.ts';
import { OpsError } from '../../errors.ts';
import type { Release, SchemaWish, World } from '../../release/model.ts';
import { withNewestWish } from '../../release/plan.ts';
import { liveRelease } from '../../release/position.ts';
import { type Context, confirmLoss, confirmWayBack, type EnvFile } from '../context.ts';
import { ageOf, lossText as restoreLossText } from './backups.ts';
import { mustFit } from './compatibility.ts';
import type { ProjectDatabase, SchemaLedger } from './database.ts';
import { backupAccess } from './database.ts';
import { isInBackup } from './stranding.ts';

export interface SchemaBack {
  wish: SchemaWish | null;
  /** The newest release that the rollback leaves: its migrations are reverted. */
  left: number | null;
  /** What would be lost, in words; null: nothing. */
  loss: string | null;
  /** The same for scripts. */
  losses: object[];
  /** Losses that can't be counted, so are not saved. */
  uncounted: BackPlan['uncounted'];
}

const nothing: SchemaBack = { wish: null, left: null, loss: null, losses: [], uncounted: [] };

/** The options of `gameops rollback` that concern the schema. */
export interface SchemaBackOptions {
  /** Release number. */
  to?: number;
  schema?: boolean;
  /** Id of a backup. */
  restoreBackup?: string;
  acceptLoss?: boolean;
}

export interface BackRequest {
  options: SchemaBackOptions;
  target: Release;
  world: World;
  database: ProjectDatabase;
  env: EnvFile;
}

/**
 * @throws IMAGE_TOO_OLD, SCHEMA_TOO_OLD, MIGRATION_IRREVERSIBLE, BACKUP_UNKNOWN, BACKUP_DAMAGED, BACKUP_TOO_OLD; with
 * --schema or --restore-backup also DATABASE_UNREACHABLE. Without these options no database can prevent a rollback.
 */
export async function schemaBack(context: Context, request: BackRequest): Promise<SchemaBack> {
  const { options, target, world } = request;
  const isAsked = options.schema === true || options.restoreBackup !== undefined;
  const ledger = await request.database.ledger().catch((error: unknown) => {
    if (isAsked || !(error instanceof OpsError)) throw error;
    const message = `it is unknown whether release ${target.id} fits the schema: ${error.message}`;
    context.emit({ type: 'note', level: 'warning', message });
    return null;
  });
  if (ledger === null) {
    if (isAsked) throw noDatabase(context);
    return nothing;
  }
  // Traffic moves first, so the target has to run on the present schema, whatever happens to the schema afterwards.
  mustFit(target, ledger.seen, world, {
    why: 'which is not applied any more',
    next: ['gameops deploy: applies it again, with its image'],
  });
  if (options.restoreBackup !== undefined) return toBackup(context, request, ledger, options.restoreBackup);
  return options.schema === true ? takenBack(request, ledger) : nothing;
}

/** @throws CONFIRMATION_NEEDED */
export async function confirmSchemaLoss(
  context: Context,
  { options, target }: Pick<BackRequest, 'options' | 'target'>,
  { wish, loss, uncounted }: SchemaBack,
): Promise<void> {
  if (loss === null || options.acceptLoss) return;
  const to = options.to === undefined ? '' : ` --to ${target.id}`;
  if (wish?.kind === 'restore') return confirmLoss(context, loss, `--restore-backup ${wish.backup}${to}`);
  await confirmWayBack(
    context,
    loss,
    waysToAccept(uncounted, `gameops rollback --schema${to} --accept-loss`),
  );
}

/**
 * Merges this request into an unfinished rollback, and warns when it replaces another schema wish. Without a wish no
 * database is asked.
 * @throws DATABASE_UNREACHABLE
 */
export async function withWishAsked(
  { emit }: Pick<Context, 'emit'>,
  { options, target, world, database }: BackRequest,
  { wish }: SchemaBack,
): Promise<World> {
  const { intent } = world;
  const asked = withNewestWish(world, target.id, wish);
  if (intent === null || intent.stage === 'condemned') return world;
  if (asked.intent === intent)
    return { ...world, schema: { ...world.schema, wish: await database.wishLeft(intent) } };
  // Some of the migrations may be reverted already.
  const isRest =
    options.schema === true && intent.schema?.kind === 'take-back' && intent.release === target.id;
  const message = `the unfinished rollback to release ${intent.release} by ${intent.by} was to ${wordsOf(intent.schema)}; from this request on it is to ${wordsOf(asked.intent?.schema ?? null)}; finished steps stay done`;
  if (!isRest) emit({ type: 'note', level: 'warning', message });
  return asked;
}

function wordsOf(wish: SchemaWish | null): string {
  if (wish === null) return 'leave the schema as it is';
  return wish.kind === 'restore'
    ? `restore the backup ${wish.backup}`
    : `revert ${wish.migrations.join(', ')}`;
}

// By down migrations -------------------------------------------------------------------------------------------------

async function takenBack(request: BackRequest, { ledger, seen }: SchemaLedger): Promise<SchemaBack> {
  const { target, world, database, options } = request;
  const names = migrationsAfter(ledger, target.id);
  if (names.length === 0) return nothing;
  refuseUndermining(ledger, names, world, target);
  const plan = await database.planBack(names);
  refuseNoWayBack(plan, world, target, backupBefore(ledger, names, world));
  const applied = new Set([...seen.applied].filter((name) => !names.includes(name)));
  mustFit(target, { applied, floor: seen.floor }, world, {
    why: 'which would be reverted, too',
    next: ['gameops rollback: goes back without the schema'],
  });
  const loses = isLossy(plan);
  const left = ledger.applied.find(({ name }) => name === names[0])?.row?.release ?? null;
  return {
    wish: { kind: 'take-back', migrations: names, acceptLoss: loses || options.acceptLoss === true },
    left,
    loss: loses ? `Reverting these migrations loses data of players. ${lossText(plan)}` : null,
    losses: [...plan.losses, ...plan.uncounted],
    uncounted: plan.uncounted,
  };
}

/** A migration that stays may depend on an earlier one that would be reverted. @throws MIGRATION_IRREVERSIBLE */
function refuseUndermining(
  { applied }: SchemaLedger['ledger'],
  names: readonly string[],
  world: World,
  target: Release,
): void {
  const oldest = names.at(-1);
  const at = applied.findIndex(({ name }) => name === oldest);
  const stays = applied.slice(at).flatMap(({ name }) => (names.includes(name) ? [] : [name]));
  if (stays.length === 0) return;
  const before = applied[at - 1]?.name;
  const all = before === undefined ? `--count ${applied.length}` : `--to ${before}`;
  throw new OpsError('MIGRATION_IRREVERSIBLE', {
    message: `The schema can't be reverted past ${oldest}: ${stays.join(', ')} was applied after it and without a release, so it would stay, and it may depend on ${oldest}. Nothing was changed; players are on ${liveRelease(world)?.id ?? 'nothing'}.`,
    next: [
      `gameops rollback --to ${target.id}: goes back without the schema; release ${target.id} can run on the present one`,
      `then, to revert all of them: gameops db rollback ${all}`,
    ],
    facts: { migration: oldest ?? null, stays },
  });
}

function refuseNoWayBack({ refusals }: BackPlan, world: World, target: Release, backup: string | null): void {
  const [first] = refusals;
  if (!first) return;
  const to = `--to ${target.id}`;
  throw new OpsError('MIGRATION_IRREVERSIBLE', {
    message: `The schema can't be reverted past ${first.name}: it ${first.reason}. Nothing was changed; players are on ${liveRelease(world)?.id ?? 'nothing'}.`,
    next: [
      `gameops rollback ${to}: goes back without the schema; release ${target.id} can run on the present one`,
      backup === null
        ? `gameops rollback ${to} --restore-backup <id>: restores an earlier backup (gameops db backups lists them); everything written since is lost`
        : `gameops rollback ${to} --restore-backup ${backup}: restores the database as it was before; everything written since is lost`,
      'gameops db create <name>: go forward with a migration that corrects it',
    ],
    facts: { migration: first.name, refused: refusals.map(({ name }) => name), backup },
  });
}

/** The backup taken before the oldest migration to revert. Another release's may lack migrations that stay, or have some that are reverted. */
function backupBefore(
  { applied }: SchemaLedger['ledger'],
  names: readonly string[],
  { releases }: World,
): string | null {
  const oldest = applied.find(({ name }) => name === names.at(-1));
  return releases.find(({ id }) => id === oldest?.row?.release)?.backup ?? null;
}

// By a backup ------------------------------------------------------------------------------------------------------

async function toBackup(
  context: Context,
  { target, world, env }: BackRequest,
  { ledger, seen }: SchemaLedger,
  id: string,
): Promise<SchemaBack> {
  const access = await backupAccess(context, env);
  const { manifest } = await findBackup(access.folder, id);
  mustFit(target, schemaOfBackup(manifest, ledger, seen), world, {
    why: `which the backup ${id} does not have yet`,
    next: ['gameops db backups: lists newer ones', 'gameops rollback: goes back without the database'],
  });
  const loss = await writesSinceBackup(access, manifest);
  const left = liveRelease(world)?.id ?? null;
  return {
    wish: { kind: 'restore', backup: id },
    left,
    loss: restoreText(access.endpoint.database, manifest, loss),
    losses: loss.tables,
    uncounted: [],
  };
}

/** A manifest names only the newest migration; today's ledger still knows those applied before it. */
function schemaOfBackup(
  { newestMigration }: Manifest,
  { applied }: SchemaLedger['ledger'],
  seen: SchemaSeen,
): SchemaSeen {
  const names = applied.map(({ name }) => name);
  const then = names.filter(isInBackup(newestMigration, names));
  return { applied: new Set(then), floor: seen.floor };
}

function restoreText(database: string, manifest: Manifest, loss: WritesSince): string {
  const { id, takenAt } = manifest;
  return `This takes ${database} back to the backup ${id} of ${takenAt} (${ageOf(takenAt)} ago). ${restoreLossText(manifest, loss)} The present database is kept under another name.`;
}

function noDatabase({ envPath }: Context): OpsError {
  return new OpsError('NO_DATABASE', {
    message: `${envPath} names no database (DB_HOST is not set), so there is no schema to revert. Nothing was changed.`,
    next: ['gameops rollback', 'set DB_HOST, DB_NAME, DB_USER and DB_PASSWORD'],
  });
}
