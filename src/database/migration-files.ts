/**
 * Reads a folder of SQL migrations, strictly: what node-pg-migrate would run in part, run twice or run without a
 * transaction is refused here, before a database is touched. Never connects to anything.
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { OpsError } from '../errors.ts';
import { statementsOf } from './sql.ts';

export interface Migration {
  /** File name without `.sql`: the name in the table of applied migrations. */
  name: string;
  /** expand: the release before can live with it. contract: only after that one is gone. */
  phase: 'expand' | 'contract';
  reversible: 'yes' | 'lossy' | 'no';
  up: string;
  down: string;
}

const namePattern = /^\d{1,17}[-_][\w.-]+\.sql$/;
const marker = /^[^\S\n]*--[\s-]*(up|down)\s+migration\b.*$/gim;

/** In the order in which they run. An empty or absent folder has none. @throws MIGRATION_INVALID */
export async function listMigrations(dir: string): Promise<Migration[]> {
  const entries = await readdir(dir, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  const files = entries.filter(({ name }) => !name.startsWith('.') && !/\.(md|txt)$/i.test(name));
  for (const file of files) {
    if (namePattern.test(file.name) && !file.isDirectory()) continue;
    throw invalid(
      file.name,
      'is not named like a migration: <digits>_<name>.sql, of letters, digits, "-", "_" and "."',
    );
  }
  const names = files.map(({ name }) => name).sort(byPrefix);
  return Promise.all(
    names.map(async (name) => parseMigration(name, await readFile(join(dir, name), 'utf8'))),
  );
}

/** node-pg-migrate's order: by number; 17 digits are a UTC date, others milliseconds or an index. */
function byPrefix(a: string, b: string): number {
  return prefixOf(a) - prefixOf(b) || (a < b ? -1 : 1);
}

function prefixOf(name: string): number {
  const digits = /^\d+/.exec(name)?.[0] ?? '';
  if (digits.length !== 17) return Number(digits);
  const [, year, month, day, hour, minute, second, ms] =
    /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d{3})$/.exec(digits) ?? [];
  return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}.${ms}Z`);
}

/** @throws MIGRATION_INVALID */
export function parseMigration(file: string, text: string): Migration {
  const markers = [...text.matchAll(marker)];
  const [first, second] = markers;
  if (!first || !second || markers.length !== 2 || isDown(first) || !isDown(second)) {
    throw invalid(
      file,
      'must hold exactly one line "-- Up Migration" and after it exactly one "-- Down Migration" (no other comment may begin so)',
    );
  }
  const head = text.slice(0, first.index);
  const up = text.slice(first.index + first[0].length, second.index).trim();
  const down = text.slice(second.index + second[0].length).trim();
  if (statementsOf(head).length > 0)
    throw invalid(file, 'has SQL above "-- Up Migration", which would never run');
  const { phase, reversible } = headerOf(file, head);
  if (statementsOf(up).length === 0)
    throw invalid(file, 'does nothing: the part after "-- Up Migration" is empty');
  if (statementsOf(down).length === 0 && reversible !== 'no') {
    throw invalid(
      file,
      'has an empty "-- Down Migration": write how to go back, or "-- gameops: reversible=no" on top',
    );
  }
  for (const statement of [...statementsOf(up), ...statementsOf(down)])
    refuseTransactionControl(file, statement);
  return { name: file.replace(/\.sql$/, ''), phase, reversible, up, down };
}

function isDown(match: RegExpMatchArray): boolean {
  return match[1]?.toLowerCase() === 'down';
}

const allowed = {
  phase: ['expand', 'contract'],
  reversible: ['yes', 'lossy', 'no'],
} as const;

/** `-- gameops: phase=expand reversible=yes`, which is also what holds without a header. */
function headerOf(file: string, head: string): Pick<Migration, 'phase' | 'reversible'> {
  const header = { phase: 'expand', reversible: 'yes' };
  for (const [, words] of head.matchAll(/^[^\S\n]*--[^\S\n]*gameops:(.*)$/gim)) {
    for (const word of (words ?? '').trim().split(/\s+/).filter(Boolean)) {
      const [key = '', value = ''] = word.split('=');
      const values: readonly string[] | undefined = Object.hasOwn(allowed, key)
        ? allowed[key as keyof typeof allowed]
        : undefined;
      if (!values?.includes(value)) {
        throw invalid(
          file,
          `has "${word}" in its gameops header; known: phase=expand|contract, reversible=yes|lossy|no`,
        );
      }
      header[key as keyof typeof header] = value;
    }
  }
  return header as Pick<Migration, 'phase' | 'reversible'>;
}

function refuseTransactionControl(file: string, statement: string): void {
  if (!/^(begin|commit|rollback|abort|end|start\s+transaction|prepare\s+transaction)\b/i.test(statement))
    return;
  if (/^rollback\s+(work\s+|transaction\s+)?to\b/i.test(statement)) return;
  throw invalid(
    file,
    `controls the transaction itself ("${statement.split(/\s+/, 2).join(' ')}"): each migration runs in one of its own, so that a failure leaves nothing behind`,
  );
}

function invalid(file: string, why: string): OpsError {
  return new OpsError('MIGRATION_INVALID', {
    message: `the migration ${file} ${why}; nothing was run`,
    next: [`correct ${file} and run the command again`],
    facts: { file },
  });
}
