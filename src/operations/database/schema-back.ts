/**
 * What a rollback wants of the schema: which migrations go back, or which backup comes back. All that can't be done is
 * refused here, before anything is touched; what would be lost is told and needs a yes.
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
  /** The newest release that is left: whose migrations go. */
  left: number | null;
  /** What would be lost, for people; null: nothing. */
  loss: string | null;
  /** The same for scripts. */
  losses: object[];
  /** What of it nobody saves. */
  uncounted: BackPlan['uncounted'];
}

const nothing: SchemaBack = { wish: null, left: null, loss: null, losses: [], uncounted: [] };

/** What `gameops rollback` was asked about the schema. */
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
  schema: ProjectDatabase;
  env: EnvFile;
}

/**
 * @throws IMAGE_TOO_OLD, SCHEMA_TOO_OLD, MIGRATION_IRREVERSIBLE, BACKUP_UNKNOWN, BACKUP_DAMAGED, BACKUP_TOO_OLD; with
 * --schema or --restore-backup also DATABASE_UNREACHABLE. Without them no database can keep anybody from going back.
 */
export async function schemaBack(context: Context, request: BackRequest): Promise<SchemaBack> {
  const { options, target, world } = request;
  const isAsked = options.schema === true || options.restoreBackup !== undefined;
  const ledger = await request.schema.ledger().catch((error: unknown) => {
    if (isAsked || !(error instanceof OpsError)) throw error;
    const message = `whether release ${target.id} fits the schema is not known: ${error.message}`;
    context.emit({ type: 'note', level: 'warning', message });
    return null;
  });
  if (ledger === null) {
    if (isAsked) throw noDatabase(context);
    return nothing;
  }
  // Traffic goes first, so the target has to run on the schema as it is, whatever becomes of that.
  mustFit(target, ledger.seen, world, {
    why: 'which is not applied any more',
    next: ['gameops deploy: applies it anew with its image'],
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
 * What is unfinished, with what is asked now; tells when that is another thing. Without a wish no database is asked.
 * @throws DATABASE_UNREACHABLE
 */
export async function withWishAsked(
  { emit }: Pick<Context, 'emit'>,
  { options, target, world, schema: database }: BackRequest,
  { wish }: SchemaBack,
): Promise<World> {
  const { intent } = world;
  const asked = withNewestWish(world, target.id, wish);
  if (intent === null || intent.stage === 'condemned') return world;
  if (asked.intent === intent)
    return { ...world, schema: { ...world.schema, wish: await database.wishLeft(intent) } };
  // Of what was to be taken back some may be back by now.
  const isRest =
    options.schema === true && intent.schema?.kind === 'take-back' && intent.release === target.id;
  const message = `the rollback to release ${intent.release} that ${intent.by} began was to ${wordsOf(intent.schema)}; asked last, it is to ${wordsOf(asked.intent?.schema ?? null)}; what is done already stays`;
  if (!isRest) emit({ type: 'note', level: 'warning', message });
  return asked;
}

function wordsOf(wish: SchemaWish | null): string {
  if (wish === null) return 'leave the schema as it is';
  return wish.kind === 'restore'
    ? `restore the backup ${wish.backup}`
    : `take back ${wish.migrations.join(', ')}`;
}

// By the ways back -------------------------------------------------------------------------------------------------

async function takenBack(request: BackRequest, { ledger, seen }: SchemaLedger): Promise<SchemaBack> {
  const { target, world, schema: database, options } = request;
  const names = migrationsAfter(ledger, target.id);
  if (names.length === 0) return nothing;
  refuseUndermining(ledger, names, world, target);
  const plan = await database.planBack(names);
  refuseNoWayBack(plan, world, target, backupBefore(ledger, names, world));
  const applied = new Set([...seen.applied].filter((name) => !names.includes(name)));
  mustFit(target, { applied, floor: seen.floor }, world, {
    why: 'which would be taken back, too',
    next: ['gameops rollback: the app alone'],
  });
  const loses = isLossy(plan);
  const left = ledger.applied.find(({ name }) => name === names[0])?.row?.release ?? null;
  return {
    wish: { kind: 'take-back', migrations: names, acceptLoss: loses || options.acceptLoss === true },
    left,
    loss: loses ? `Taking the schema back loses what players made. ${lossText(plan)}` : null,
    losses: [...plan.losses, ...plan.uncounted],
    uncounted: plan.uncounted,
  };
}

/** What stays may stand on what goes, when it was applied after it. @throws MIGRATION_IRREVERSIBLE */
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
    message: `The schema can't go back past ${oldest}: ${stays.join(', ')} came after it, not with a release, so would stay, and may stand on it. Nothing was changed; players are on ${liveRelease(world)?.id ?? 'nothing'}.`,
    next: [
      `gameops rollback --to ${target.id}: the app alone; release ${target.id} can run on this schema`,
      `then, to take all of it back: gameops db rollback ${all}`,
    ],
    facts: { migration: oldest ?? null, stays },
  });
}

function refuseNoWayBack({ refusals }: BackPlan, world: World, target: Release, backup: string | null): void {
  const [first] = refusals;
  if (!first) return;
  const to = `--to ${target.id}`;
  throw new OpsError('MIGRATION_IRREVERSIBLE', {
    message: `The schema can't go back past ${first.name}: it ${first.reason}. Nothing was changed; players are on ${liveRelease(world)?.id ?? 'nothing'}.`,
    next: [
      `gameops rollback ${to}: the app alone; release ${target.id} can run on this schema`,
      backup === null
        ? `gameops rollback ${to} --restore-backup <id>: a backup from before (gameops db backups); what was written since is lost`
        : `gameops rollback ${to} --restore-backup ${backup}: the database as it was before; what was written since is lost`,
      'gameops db create <name>: go forward with a migration that mends it',
    ],
    facts: { migration: first.name, refused: refusals.map(({ name }) => name), backup },
  });
}

/** Taken before the oldest migration that goes. Of another release it may lack what stays, or hold what goes. */
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
    next: ['gameops db backups: a newer one', 'gameops rollback: the app alone'],
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

/** A manifest names the newest one only; what was applied before it, the ledger of today still knows. */
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
    message: `${envPath} names no database (DB_HOST), so there is no schema to take back. Nothing was changed.`,
    next: ['gameops rollback', 'set DB_HOST, DB_NAME, DB_USER and DB_PASSWORD'],
  });
}
