/** gameops db migrate: applies pending migrations without a deploy; contract migrations only with --contract. */

import { unknownMigration } from '../../database/migrate/back.ts';
import type { Migration } from '../../database/migrate/files.ts';
import { migrateForward, pendingMigrations } from '../../database/migrate/forward.ts';
import { readLedger } from '../../database/migrate/ledger.ts';
import type { DatabaseEndpoint } from '../../database/server/connection.ts';
import { OpsError } from '../../errors.ts';
import type { Context, Outcome } from '../../operations/context.ts';
import { look, openEndpoint, readMigrations } from '../../operations/database/database.ts';
import { fleetsNow, refuseStranding } from '../../operations/database/stranding.ts';
import { withProjectLock } from '../../operations/project.ts';
import { formatMs } from '../../units.ts';

export interface DbMigrateOptions {
  /** Name of a migration. */
  to?: string;
  contract?: boolean;
  plan?: boolean;
}

export async function run(context: Context, options: DbMigrateOptions): Promise<Outcome> {
  const { dir, files } = await readMigrations(context);
  // The lock needs the engine; it connects while the database is read.
  if (!options.plan) context.engine().catch(() => {});
  const endpoint = await openEndpoint(context);
  const { chosen, left, isUntidy } = await choose(endpoint, dir, files, options);
  const isContract = (name: string) => files.some((one) => one.name === name && one.phase === 'contract');
  const contracts = chosen.filter(isContract);
  if (options.plan) {
    const result = {
      applied: [],
      reverted: [],
      pending: [...chosen, ...left],
      planned: chosen,
      findings: [],
    };
    return { ok: true, result, text: () => planText(chosen, left, files) };
  }
  const { emit } = context;
  // Migrations that somebody else applies in the meantime are skipped.
  const { applied } =
    chosen.length === 0 && !isUntidy
      ? { applied: [] }
      : await withProjectLock(context, async (engine, signal) => {
          if (contracts.length > 0) refuseStranding(contracts, await fleetsNow(context, engine));
          return migrateForward(endpoint, dir, { emit, signal, files, names: chosen });
        });
  const result = { applied, reverted: [], pending: left, findings: [] };
  return { ok: true, result, text: () => doneText(applied, left) };
}

interface Chosen {
  chosen: string[];
  left: string[];
  /** A killed run, or node-pg-migrate, left something that the next run puts in order even when nothing is pending. */
  isUntidy: boolean;
}

async function choose(
  endpoint: DatabaseEndpoint,
  dir: string,
  files: readonly Migration[],
  { to, contract }: DbMigrateOptions,
): Promise<Chosen> {
  const { pending, ledger } = await look(endpoint, async (client) => {
    const { expand, contract: later } = await pendingMigrations(client, dir, files);
    const names = new Set([...expand, ...later]);
    return { pending: files.filter(({ name }) => names.has(name)), ledger: await readLedger(client) };
  });
  const isApplied = ledger.applied.some(({ name }) => name === to);
  const isUntidy =
    ledger.unfinished.length + ledger.withdrawn.length > 0 || ledger.applied.some(({ row }) => !row);
  if (to !== undefined && !isApplied && !files.some(({ name }) => name === to))
    throw unknownMigration(
      to,
      files.map(({ name }) => name),
    );
  const last = to === undefined ? files.length : files.findIndex(({ name }) => name === to);
  const target = files[last];
  if (target?.phase === 'contract' && !contract && !isApplied) throw needsContract(target.name);
  const reach = pending.filter((one) => files.indexOf(one) <= last && (contract || one.phase === 'expand'));
  const chosen = reach.map(({ name }) => name);
  const left = pending.map(({ name }) => name).filter((name) => !chosen.includes(name));
  return { chosen, left, isUntidy };
}

function needsContract(name: string): OpsError {
  return new OpsError('USAGE', {
    message: `${name} is a contract migration: it removes what earlier releases still need. Nothing was run.`,
    next: [`gameops db migrate --to ${name} --contract, once those releases are gone`, 'gameops releases'],
    facts: { migration: name },
  });
}

function planText(chosen: readonly string[], left: readonly string[], files: readonly Migration[]): string {
  if (chosen.length === 0) return doneText([], left);
  const lines = chosen.map((name) => {
    const file = files.find((one) => one.name === name);
    const how = file?.isTransactional ? 'one transaction' : 'statement by statement, journaled';
    return `  ${name}  ${file?.phase}, ${how}, reversible: ${file?.reversible}`;
  });
  return [`would apply ${chosen.length}:`, ...lines, ...leftText(left)].join('\n');
}

function doneText(applied: readonly { name: string; ms: number }[], left: readonly string[]): string {
  const lines = applied.map(({ name, ms }) => `  ${name}  ${formatMs(ms)}`);
  const head =
    applied.length === 0
      ? 'nothing to do: every migration that may run is applied'
      : `applied ${applied.length}:`;
  return [head, ...lines, ...leftText(left)].join('\n');
}

const leftText = (left: readonly string[]): string[] =>
  left.length === 0 ? [] : [`${left.length} stay pending: ${left.join(', ')}`];
