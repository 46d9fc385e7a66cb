/**
 * Reverts migrations, newest first, with the down script of the file or, when the file is gone, of the ledger. Promises: a
 * migration that can't be reverted is refused before anything runs; losing data needs a confirmation of its own; what is
 * lost is counted and saved in the transaction that removes it, or named as neither counted nor saved.
 */
import { distance } from 'fastest-levenshtein';
import type pg from 'pg';
import { isOpsError, OpsError } from '../../errors.ts';
import { codeOf, type DatabaseEndpoint, isDisconnected } from '../server/connection.ts';
import { rememberSchema } from './drift.ts';
import { listMigrations, type Migration } from './files.ts';
import { downTask, isChanged } from './forward.ts';
import { type AppliedMigration, type Ledger, type MigrationText, readLedger, readTexts } from './ledger.ts';
import { type Loss, lossesOf, type Rescue, rescueOf, type Uncounted } from './losses.ts';
import {
  type Done,
  migrationFailed,
  type Run,
  type RunOptions,
  runWithRetry,
  settleUnfinished,
  underLock,
} from './run.ts';

export type Choice =
  | { count: number }
  /** Every migration that was applied after this one. */
  | { to: string }
  /** Exactly these. */
  | { names: readonly string[] };

export interface WayBack {
  name: string;
  down: string;
  source: 'file' | 'ledger';
  isTransactional: boolean;
  kind: Migration['kind'];
  since: string;
}

export interface BackPlan {
  /** Newest first. */
  steps: WayBack[];
  refusals: { name: string; reason: string }[];
  losses: Loss[];
  /** What would be lost and is neither counted nor saved. */
  uncounted: Uncounted[];
}

/** @returns names, newest first. @throws MIGRATION_UNKNOWN */
function chooseBack(ledger: Ledger, choice: Choice): string[] {
  const names = ledger.applied.map(({ name }) => name);
  if ('count' in choice) return names.slice(Math.max(0, names.length - choice.count)).reverse();
  const known = 'to' in choice ? [choice.to] : choice.names;
  const unknown = known.filter((name) => !names.includes(name));
  // Safe to repeat: some of the migrations that a plan names may be reverted already.
  if ('names' in choice) return names.filter((name) => choice.names.includes(name)).reverse();
  if (unknown.length > 0) throw unknownMigration(choice.to, names);
  return names.slice(names.indexOf(choice.to) + 1).reverse();
}

export function unknownMigration(name: string, known: readonly string[]): OpsError {
  const isNear = (one: string) =>
    one.includes(name) || name.includes(one) || distance(one, name) <= name.length / 4;
  const near = known.filter(isNear).slice(0, 3);
  return new OpsError('MIGRATION_UNKNOWN', {
    message: `there is no migration ${name}. ${near.length > 0 ? `Did you mean ${near.join(' or ')}? ` : ''}Nothing was run.`,
    next: ['gameops db status'],
    facts: { migration: name },
  });
}

/**
 * Migrations that are still applied and that later releases brought, failed ones included; newest first. A migration that
 * was applied by hand belongs to no release.
 */
export function migrationsAfter(ledger: Ledger, release: number): string[] {
  return ledger.applied
    .filter(({ row }) => (row?.release ?? 0) > release)
    .map(({ name }) => name)
    .reverse();
}

/** Reads and counts, changes nothing. @throws MIGRATION_UNKNOWN, MIGRATION_INVALID */
export async function planBack(client: pg.ClientBase, dir: string | null, choice: Choice): Promise<BackPlan> {
  const files = dir === null ? [] : await listMigrations(dir);
  return planWith(client, await readLedger(client), files, choice);
}

async function planWith(
  client: pg.ClientBase,
  ledger: Ledger,
  files: readonly Migration[],
  choice: Choice,
  isRehearsal = false,
): Promise<BackPlan> {
  const names = chooseBack(ledger, choice);
  const isKept = ledger.applied.some(({ row }) => row !== null);
  const texts = isKept ? await readTexts(client, names) : new Map<string, MigrationText>();
  const plan: BackPlan = { steps: [], refusals: [], losses: [], uncounted: [] };
  const renamed = new Set<string>();
  for (const name of names) {
    const applied = ledger.applied.find((one) => one.name === name) as AppliedMigration;
    const file = files.find((one) => one.name === name);
    const reason = whyNot(applied, file, texts.get(name) ?? null, isRehearsal);
    if (reason !== null) {
      plan.refusals.push({ name, reason });
      continue;
    }
    const step = wayBackOf(applied, file, texts.get(name) ?? null);
    plan.steps.push(step);
    if (isRehearsal) continue;
    const saysSo = (file?.reversible ?? applied.row?.reversible) === 'lossy';
    const { losses, uncounted } = await lossesOf(client, step, saysSo, renamed);
    plan.losses.push(...losses);
    plan.uncounted.push(...uncounted);
  }
  return plan;
}

function whyNot(
  { row }: AppliedMigration,
  file: Migration | undefined,
  text: MigrationText | null,
  isRehearsal: boolean,
): string | null {
  const one = row ?? file;
  if (!one)
    return 'was applied by node-pg-migrate alone and its file is gone, so its down script is not known';
  if (one.phase === 'contract' && !isRehearsal)
    return 'is a contract migration, and no script can bring back what it removed';
  if (one.reversible === 'no') return 'is marked as irreversible (reversible=no)';
  if (!file && (text?.down ?? null) === null)
    return 'is code whose down function asks the database, and its file is gone';
  return null;
}

/** When the up script of the file is the applied one, its down script counts: it may have been corrected since. */
function wayBackOf(
  applied: AppliedMigration,
  file: Migration | undefined,
  text: MigrationText | null,
): WayBack {
  const { name, appliedAt: since, row } = applied;
  if (file && (text === null || !isChanged(file, applied))) {
    const { isTransactional, kind } = file;
    return { name, since, isTransactional, kind, source: 'file', down: file.down || (text?.down ?? '') };
  }
  return {
    name,
    since,
    source: 'ledger',
    kind: 'sql',
    down: text?.down ?? '',
    isTransactional: row?.isTransactional ?? true,
  };
}

// Running it ------------------------------------------------------------------------------------------------------

export interface BackOptions extends RunOptions {
  /** Data may be lost; it is saved first. */
  acceptLoss?: boolean;
  /** On a throw-away database: contract migrations are reverted, too, and nothing is saved. */
  isRehearsal?: boolean;
}

export interface Reverted extends Done {
  /** Where the down script came from. */
  source: WayBack['source'];
}

export interface BackResult {
  reverted: Reverted[];
  rescued: (Omit<Loss, 'since'> & { savedAs: string })[];
}

/**
 * @throws MIGRATION_IRREVERSIBLE, CONFIRMATION_NEEDED (loss not accepted), MIGRATION_UNKNOWN, MIGRATION_FAILED,
 * MIGRATION_BUSY, DATABASE_UNREACHABLE; the reason of `signal`
 */
export async function migrateBack(
  endpoint: DatabaseEndpoint,
  dir: string | null,
  choice: Choice,
  options: BackOptions,
): Promise<BackResult> {
  return underLock(endpoint, dir, options, async (run) => {
    const names = chooseBack(run.ledger, choice);
    await settleUnfinished(run, (name, direction) => direction === 'down' && names.includes(name));
    const { isRehearsal = false } = options;
    const plan = await planWith(run.client, run.ledger, run.files, { names }, isRehearsal);
    refuseIrreversible(plan);
    if (!options.acceptLoss && !isRehearsal) refuseLoss(plan);
    const done: BackResult = { reverted: [], rescued: [] };
    for (const step of plan.steps) {
      options.signal?.throwIfAborted();
      await revertOne(run, plan, step, done);
    }
    if (done.reverted.length > 0) await rememberSchema(run.client);
    return done;
  });
}

async function revertOne(run: Run, plan: BackPlan, step: WayBack, done: BackResult): Promise<void> {
  const { client, options } = run;
  const rescues: Rescue[] = [];
  for (const loss of plan.losses.filter(({ migration }) => migration === step.name)) {
    const rescue = await rescueOf(client, loss, new Date(), done.rescued.length + rescues.length + 1);
    if (rescue) rescues.push(rescue);
  }
  const file = run.files.find(({ name }) => name === step.name)?.file ?? `${step.name}.sql`;
  const task = await downTask(run, step.name, { ...step, file }, rescues.map(({ sql }) => sql).join(''));
  try {
    const ms = await runWithRetry(run, task);
    done.reverted.push({ name: step.name, ms, source: step.source });
    for (const { loss, savedAs } of rescues) {
      const { since: _, ...rest } = loss;
      done.rescued.push({ ...rest, savedAs });
    }
    const message = `migration ${step.name} reverted in ${ms} ms${step.source === 'ledger' ? ', with the down script in the ledger' : ''}`;
    options.emit({ type: 'note', level: 'info', message });
  } catch (error) {
    if (isOpsError(error) || isDisconnected(error) || codeOf(error) === '') throw error;
    const reverted = done.reverted.map(({ name }) => name);
    const kept = reverted.length > 0 ? `; ${reverted.join(', ')}, which came after it, stay reverted` : '';
    throw migrationFailed(run, step.name, error, {
      what: `Its down script was rolled back completely${kept}`,
      next: [`correct the "Down Migration" of ${step.name} and run the command again`, 'gameops db status'],
      facts: { reverted },
    });
  }
}

export function refuseIrreversible({ refusals }: BackPlan): void {
  const [first] = refusals;
  if (!first) return;
  throw new OpsError('MIGRATION_IRREVERSIBLE', {
    message: `the schema can't go back past ${first.name}: it ${first.reason}. Nothing was changed, and players stay where they are`,
    next: [
      'gameops rollback: only the app, when the previous release can live with this schema',
      'gameops db restore <id>: restore an older backup; what was written since is lost',
      'gameops db create <name>: write a new migration that corrects the schema',
    ],
    facts: { migration: first.name, refused: refusals.map(({ name }) => name) },
  });
}

export const isLossy = ({ losses, uncounted }: Pick<BackPlan, 'losses' | 'uncounted'>): boolean =>
  losses.length + uncounted.length > 0;

function refuseLoss(plan: BackPlan): void {
  if (!isLossy(plan)) return;
  const { losses, uncounted } = plan;
  throw new OpsError('CONFIRMATION_NEEDED', {
    message: `reverting these migrations destroys what players made. ${lossText(plan)} Nothing was changed, because the loss was not accepted.`,
    next: ['gameops db rollback --plan', ...waysToAccept(uncounted, 'gameops db rollback --accept-loss')],
    facts: {
      tables: losses.map(({ table }) => table),
      migrations: [...new Set(uncounted.map(({ migration }) => migration))],
    },
  });
}

/** @param command that accepts the loss */
export function waysToAccept(uncounted: readonly Uncounted[], command: string): [string, ...string[]] {
  return uncounted.length === 0
    ? [`${command} (saves the values first)`]
    : ['gameops db backup: keeps what is not saved otherwise', command];
}

/** In sentences. What is saved and what is not saved are two sentences. */
export function lossText({ losses, uncounted }: Pick<BackPlan, 'losses' | 'uncounted'>): string {
  const counted = losses.map(
    ({ table, columns, rows, since }) =>
      `${table}${columns.length > 0 ? ` (${columns.join(', ')})` : ''}: ${rows} row${rows === 1 ? '' : 's'} since ${since.slice(0, 16).replace('T', ' ')}`,
  );
  const other = uncounted.map(({ migration, what }) => `${migration} ${what}`);
  return [
    ...(counted.length > 0 ? [`Saved before it is removed: ${counted.join('; ')}.`] : []),
    ...(other.length > 0
      ? [`NOT counted and NOT saved: ${other.join('; ')}. Only a backup has it (gameops db backup).`]
      : []),
  ].join(' ');
}
