/**
 * Applies migrations. Promises: each migration is applied completely or not at all; waiting for a lock never holds up
 * players longer than the lock timeout; two runs never apply the same migration; a failed run reverts the migrations that
 * it applied. Contract migrations are applied only by name: the previous release may need what they remove.
 */
import type pg from 'pg';
import { isOpsError, OpsError } from '../../errors.ts';
import { codeOf, type DatabaseEndpoint, isDisconnected } from '../server/connection.ts';
import { checksum, isSumOf } from '../sql/sums.ts';
import { entrySql, floorSql, removalSql } from './books.ts';
import { loadCode, sqlOf } from './code.ts';
import { rememberSchema } from './drift.ts';
import { byPrefix, invalid, listMigrations, type Migration } from './files.ts';
import { type AppliedMigration, floorOf, type Ledger, readLedger } from './ledger.ts';
import type { Task } from './one.ts';
import {
  type Done,
  migrationFailed,
  type Run,
  type RunOptions,
  runWithRetry,
  settleUnfinished,
  underLock,
} from './run.ts';

export interface PendingMigrations {
  /** Names that a deploy runs, in order. */
  expand: string[];
  /** Names that wait until they are asked for. */
  contract: string[];
}

/**
 * Changes nothing: not even the ledger is made. @throws MIGRATION_INVALID, also when a migration was changed after it was
 * applied
 */
export async function pendingMigrations(
  client: pg.ClientBase,
  dir: string,
  files?: readonly Migration[],
): Promise<PendingMigrations> {
  return pendingOf(files ?? (await listMigrations(dir)), await readLedger(client));
}

/** @throws MIGRATION_INVALID when a migration was changed after it was applied */
export function pendingOf(migrations: readonly Migration[], { applied }: Ledger): PendingMigrations {
  refuseChanged(migrations, applied);
  const names = new Set(applied.map(({ name }) => name));
  const pending = migrations.filter(({ name }) => !names.has(name));
  const namesIn = (phase: Migration['phase']) =>
    pending.filter((one) => one.phase === phase).map(({ name }) => name);
  return { expand: namesIn('expand'), contract: namesIn('contract') };
}

export async function appliedMigrations(client: pg.ClientBase): Promise<Set<string>> {
  return new Set((await readLedger(client)).applied.map(({ name }) => name));
}

export const isChanged = (file: Migration, { row }: AppliedMigration): boolean =>
  row !== null && !isSumOf(row.upSum, file.up);

function refuseChanged(files: readonly Migration[], applied: readonly AppliedMigration[]): void {
  const byName = new Map(files.map((file) => [file.name, file]));
  for (const one of applied) {
    const file = byName.get(one.name);
    if (file && isChanged(file, one)) throw changed(file);
  }
}

function changed({ file, name }: Migration): OpsError {
  return new OpsError('MIGRATION_INVALID', {
    message: `the migration ${file} was changed after it was applied, so this folder no longer leads to the schema of this database; nothing was run`,
    next: [
      `put the former text back, and write the change into a new migration (gameops db create <name>)`,
      'or prove that the new text leads to the same schema: gameops db baseline',
    ],
    facts: { file, migration: name },
  });
}

export interface MigrateOptions extends RunOptions {
  /** Migrations of the plan, of either phase; no others are applied. Default: every pending expand migration. */
  names?: readonly string[];
  /** The release that brings them; rolling it back finds its migrations by this number. */
  release?: number;
}

export type { Done as Applied };

/**
 * Safe to repeat: names that are applied already are skipped.
 * @throws MIGRATION_INVALID, MIGRATION_FAILED, MIGRATION_BUSY, DATABASE_UNREACHABLE; the reason of `signal`
 */
export async function migrateForward(
  endpoint: DatabaseEndpoint,
  dir: string,
  options: MigrateOptions,
): Promise<{ applied: Done[] }> {
  return underLock(endpoint, dir, options, async (run) => {
    const { files, ledger } = run;
    refuseChanged(files, ledger.applied);
    // Read under the lock: another run may have applied some of them a moment ago.
    const there = new Set(ledger.applied.map(({ name }) => name));
    const chosen = chooseMigrations(files, options.names).filter(({ name }) => !there.has(name));
    await settleUnfinished(
      run,
      (name, direction) => direction === 'up' && chosen.some((one) => one.name === name),
    );
    tellOutOfOrder(run, chosen);
    const applied: Done[] = [];
    try {
      for (const migration of chosen) {
        options.signal?.throwIfAborted();
        const ms = await applyOne(run, migration, options.release ?? null);
        applied.push({ name: migration.name, ms });
        const message = `migration ${migration.name} applied in ${ms} ms`;
        options.emit({ type: 'note', level: 'info', message });
      }
    } catch (error) {
      if (options.signal?.aborted || !(await isStillThere(run, error))) throw error;
      throw await afterFailure(run, chosen[applied.length] as Migration, applied, error);
    }
    if (applied.length > 0) await rememberSchema(run.client);
    return { applied };
  });
}

function chooseMigrations(
  migrations: readonly Migration[],
  names: readonly string[] | undefined,
): Migration[] {
  if (!names) return migrations.filter(({ phase }) => phase === 'expand');
  const known = new Set(migrations.map(({ name }) => name));
  const missing = names.filter((name) => !known.has(name));
  if (missing.length > 0) {
    throw new OpsError('MIGRATION_INVALID', {
      message: `the plan names migrations that are no longer in the folder: ${missing.join(', ')}; nothing was run`,
      next: ['gameops deploy --plan'],
      facts: { missing },
    });
  }
  const wanted = new Set(names);
  return migrations.filter(({ name }) => wanted.has(name));
}

/** Two branches were merged, and each was right by itself: a warning, not a refusal. The ledger keeps the real order. */
function tellOutOfOrder({ ledger, options }: Run, chosen: readonly Migration[]): void {
  const newest = newestExpand(ledger.applied);
  const late = chosen.filter(({ name, phase }) => phase === 'expand' && newest && byPrefix(name, newest) < 0);
  if (late.length === 0) return;
  const message = `applying ${late.map(({ name }) => name).join(', ')} out of order: the later ${newest} is applied already`;
  options.emit({ type: 'note', level: 'warning', message });
}

/** By number. Contract migrations wait on purpose, so they are never late. */
export function newestExpand(applied: readonly AppliedMigration[]): string | null {
  const names = applied.filter(({ row }) => row?.phase !== 'contract').map(({ name }) => name);
  return names.sort(byPrefix).at(-1) ?? null;
}

async function applyOne(run: Run, migration: Migration, release: number | null): Promise<number> {
  const task = await upTask(run, migration, release);
  const ms = await runWithRetry(run, task);
  run.ledger.applied.push({
    name: migration.name,
    appliedAt: new Date().toISOString(),
    row: {
      release,
      phase: migration.phase,
      reversible: migration.reversible,
      kind: migration.kind,
      isTransactional: migration.isTransactional,
      upSum: checksum(migration.up),
      downSum: null,
      origin: 'applied',
    },
  });
  return ms;
}

async function upTask(run: Run, migration: Migration, release: number | null): Promise<Task> {
  const { name, file, isTransactional, phase } = migration;
  let what: Task['what'] = migration.up;
  let down: string | null = migration.down;
  if (migration.kind === 'code') {
    const actions = await loadCode(run.dir ?? '', migration);
    const up = isTransactional ? null : await sqlOf(actions, 'up');
    if (!isTransactional && up === null)
      throw invalid(
        file,
        'asks the database while it builds its statements, which works only with transaction=on',
      );
    if (actions.down === false && migration.reversible !== 'no')
      throw invalid(file, 'has down = false: write "gameops: reversible=no" at the top');
    what = up ?? actions;
    down = await sqlOf(actions, 'down');
  }
  const floor = [...(phase === 'contract' ? [name] : []), ...(run.ledger.floor ? [run.ledger.floor] : [])];
  const newFloor = floor.sort(byPrefix).at(-1) ?? null;
  run.ledger.floor = newFloor;
  const book = `${entrySql({ migration, down, release, origin: 'applied' })}${phase === 'contract' ? floorSql(newFloor) : ''}${run.options.beforeCommit ?? ''}`;
  return { name, file, direction: 'up', isTransactional, what, before: '', book };
}

// Back to where it began --------------------------------------------------------------------------------------------

async function isStillThere({ client }: Run, error: unknown): Promise<boolean> {
  if (isDisconnected(error)) return false;
  return client.query('SELECT 1').then(
    () => true,
    () => false,
  );
}

async function afterFailure(
  run: Run,
  failed: Migration,
  applied: readonly Done[],
  error: unknown,
): Promise<OpsError> {
  const names = applied.map(({ name }) => name);
  const { reverted, kept } = await goBack(run, names);
  const facts = { applied: kept, reverted };
  const what = [
    run.partly.has(failed.name)
      ? "Part of it is done and can't be undone: the next run continues after that part"
      : 'It was rolled back completely',
    ...(reverted.length > 0
      ? [`${reverted.join(', ')}, applied before it, ${wasOrWere(reverted)} reverted, too`]
      : []),
    ...(kept.length > 0
      ? [
          `${kept.join(', ')}, applied before it, ${kept.length === 1 ? 'stays' : 'stay'} applied, because reverting is not safe`,
        ]
      : []),
  ].join('; ');
  if (isOpsError(error)) {
    const { code, message, next } = error;
    const more = names.length > 0 ? `. ${what}` : '';
    return new OpsError(code, {
      message: `${message}${more}`,
      next,
      facts: { ...error.facts, ...facts },
      cause: error,
    });
  }
  const next = [`correct ${failed.file} and run the command again`, 'gameops db status'] as const;
  return migrationFailed(run, failed.name, error, { what, next: [...next], facts });
}

const wasOrWere = (names: readonly string[]): string => (names.length === 1 ? 'was' : 'were');

/** Newest first, until a migration can't be reverted or has destroyed data already. */
async function goBack(run: Run, names: readonly string[]): Promise<{ reverted: string[]; kept: string[] }> {
  const kept = [...names];
  const reverted: string[] = [];
  for (const name of [...names].reverse()) {
    const migration = run.files.find((file) => file.name === name);
    const isSafe =
      migration?.reversible === 'yes' || (migration?.reversible === 'lossy' && migration.phase === 'expand');
    if (!migration || !isSafe) break;
    try {
      await runWithRetry(run, await downTask(run, name, migration));
    } catch (error) {
      const message = `migration ${name} could not be reverted (${codeOf(error) || 'unknown reason'})`;
      run.options.emit({ type: 'note', level: 'warning', message });
      break;
    }
    reverted.push(name);
    kept.pop();
  }
  return { reverted, kept };
}

/** @param before SQL that runs first in the same transaction */
export async function downTask(
  run: Run,
  name: string,
  migration: Pick<Migration, 'file' | 'kind' | 'isTransactional' | 'down'> & Partial<Migration>,
  before = '',
): Promise<Task> {
  const { file, isTransactional } = migration;
  let what: Task['what'] = migration.down;
  if (migration.kind === 'code') {
    const actions = await loadCode(run.dir ?? '', migration as Migration);
    what = isTransactional ? actions : ((await sqlOf(actions, 'down')) ?? '');
  }
  run.ledger.applied = run.ledger.applied.filter((one) => one.name !== name);
  const floor = floorOf(run.ledger.applied);
  const floorBook = floor === run.ledger.floor ? '' : floorSql(floor);
  run.ledger.floor = floor;
  return {
    name,
    file,
    direction: 'down',
    isTransactional,
    what,
    before,
    book: `${removalSql(name)}${floorBook}${run.options.beforeCommit ?? ''}`,
  };
}
