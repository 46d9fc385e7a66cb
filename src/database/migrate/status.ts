/**
 * Compares a database with a folder of migrations: applied, pending, changed, missing, out of order, unfinished, drifted.
 * Changes nothing and decides nothing.
 */
import type pg from 'pg';
import { imageNeeds } from '../../boot-rule.ts';
import type { Finding } from '../../report/findings/model.ts';
import { isSumOf } from '../sql/sums.ts';
import { type Drift, driftOf } from './drift.ts';
import { byPrefix, type Migration } from './files.ts';
import { isChanged, newestExpand } from './forward.ts';
import { type AppliedMigration, type Ledger, readLedger } from './ledger.ts';

export interface SchemaStatus {
  applied: {
    name: string;
    appliedAt: string;
    release: number | null;
    phase: Migration['phase'] | null;
    reversible: Migration['reversible'] | null;
    onFile: boolean;
  }[];
  pending: { name: string; phase: Migration['phase']; reversible: Migration['reversible'] }[];
  /** Newest applied contract migration: images that do not know it are too old. */
  floor: string | null;
  /** The migration that an image with this folder needs, and the newest that it knows. */
  needs: string | null;
  knows: string | null;
  fingerprint: string;
  /** null: there is nothing to compare with. */
  isDrifted: boolean | null;
  findings: Finding[];
}

export async function statusOf(client: pg.ClientBase, files: readonly Migration[]): Promise<SchemaStatus> {
  const ledger = await readLedger(client);
  return compare(ledger, files, await driftOf(client, ledger));
}

export function compare(ledger: Ledger, files: readonly Migration[], drift: Drift): SchemaStatus {
  const onFile = new Map(files.map((file) => [file.name, file]));
  const applied = new Set(ledger.applied.map(({ name }) => name));
  const pending = files.filter(({ name }) => !applied.has(name));
  return {
    applied: ledger.applied.map(({ name, appliedAt, row }) => ({
      name,
      appliedAt,
      release: row?.release ?? null,
      phase: row?.phase ?? null,
      reversible: row?.reversible ?? null,
      onFile: onFile.has(name),
    })),
    pending: pending.map(({ name, phase, reversible }) => ({ name, phase, reversible })),
    floor: ledger.floor,
    ...imageNeeds(files),
    fingerprint: drift.fingerprint,
    isDrifted: drift.known ? driftFindings(drift).length > 0 : null,
    findings: [
      ...ledger.applied.flatMap((one) => findingsOf(one, onFile.get(one.name))),
      ...ledger.unfinished.map(({ name, direction }) =>
        finding(
          'unfinished',
          'warning',
          `${name}.sql`,
          `a run was killed while it ${direction === 'up' ? 'applied' : 'reverted'} it; the next run continues it by itself`,
        ),
      ),
      ...outOfOrder(ledger, pending),
      ...driftFindings(drift),
    ],
  };
}

const finding = (rule: string, severity: Finding['severity'], file: string, message: string): Finding => ({
  rule,
  severity,
  file,
  line: 1,
  column: 1,
  message,
});

function findingsOf(applied: AppliedMigration, file: Migration | undefined): Finding[] {
  const { name, row } = applied;
  if (!file) {
    const way = row
      ? 'the ledger has its text, so it can still be reverted'
      : "its text is lost, so it can't be reverted";
    return [
      finding(
        'missing',
        row ? 'info' : 'warning',
        `${name}.sql`,
        `is applied, but not in this folder; ${way}`,
      ),
    ];
  }
  if (isChanged(file, applied))
    return [
      finding(
        'changed',
        'error',
        file.file,
        'was changed after it was applied, so this folder leads to another schema',
      ),
    ];
  if (row?.downSum && file.kind === 'sql' && !isSumOf(row.downSum, file.down))
    return [
      finding(
        'changed-down',
        'info',
        file.file,
        'its down script was changed after it was applied; the script in the file counts',
      ),
    ];
  return row
    ? []
    : [
        finding(
          'not-in-ledger',
          'info',
          file.file,
          'was applied by node-pg-migrate; the next run adds it to the ledger',
        ),
      ];
}

function outOfOrder(ledger: Ledger, pending: readonly Migration[]): Finding[] {
  const newest = newestExpand(ledger.applied);
  return pending
    .filter(({ name, phase }) => phase === 'expand' && newest !== null && byPrefix(name, newest) < 0)
    .map(({ file }) =>
      finding('out-of-order', 'warning', file, `is pending, but the later ${newest} is applied`),
    );
}

function driftFindings(drift: Drift): Finding[] {
  if (!drift.known) return [];
  const line = (what: string) => (text: string) => finding('drift', 'warning', '', `${what}: ${text}`);
  return [
    ...drift.missing.map(line('removed without a migration')),
    ...drift.extra.map(line('added without a migration')),
  ];
}
