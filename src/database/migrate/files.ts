/**
 * Reads a folder of migrations, strictly: files that node-pg-migrate would run only in part, run twice or run without a
 * transaction are refused here, before a database is touched. Never connects to anything, never runs code of a file.
 */
import { isUtf8 } from 'node:buffer';
import { readFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { byPrefix, prefixOf } from '../../boot-rule.ts';
import { OpsError } from '../../errors.ts';
import { splitStatements, statementsOf } from '../sql/split.ts';
import { classify } from './concurrent.ts';

export { byPrefix, prefixOf };

export interface Migration {
  /** File name without its ending: the name in the table of applied migrations. */
  name: string;
  file: string;
  kind: 'sql' | 'code';
  /** expand: the previous release can live with it. contract: it may run only when that release is gone. */
  phase: 'expand' | 'contract';
  reversible: 'yes' | 'lossy' | 'no';
  /** false: its statements run one by one and are journaled, as CREATE INDEX CONCURRENTLY requires. */
  isTransactional: boolean;
  /** Rules of lint that this file may break. */
  allow: string[];
  /** SQL, or the whole source of a JavaScript or TypeScript file. */
  up: string;
  /** SQL; '' for code, whose down function is known when it is loaded. */
  down: string;
}

const namePattern = /^\d{1,17}[-_][\w.-]+\.(sql|[cm]?[jt]s)$/;
const marker = /^[^\S\n]*--[\s-]*(up|down)\s+migration\b.*$/gim;

/** In the order in which they run. An empty or absent folder has none. @throws MIGRATION_INVALID */
export async function listMigrations(dir: string): Promise<Migration[]> {
  const entries = await readdir(dir, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw unreadable(dir, error);
  });
  const files = entries.filter(({ name }) => isOfMigrations(name));
  for (const file of files) {
    if (namePattern.test(file.name) && !/\.d\.[cm]?ts$/.test(file.name) && !file.isDirectory()) continue;
    throw invalid(
      file.name,
      'is not named like a migration: <digits>_<name>.sql (or .js, .ts), of letters, digits, "-", "_" and "."',
    );
  }
  const names = files.map(({ name }) => name).sort(byPrefix);
  // One by one: a thousand small files are read four times as fast as through the thread pool.
  const migrations = names.map((name) => parseMigration(name, readText(dir, name)));
  const seen = new Map<string, string>();
  for (const { name, file } of migrations) {
    const twin = seen.get(name);
    if (twin !== undefined)
      throw invalid(file, `has the same name as ${twin}, so only one of them could ever run`);
    seen.set(name, file);
  }
  return migrations;
}

/** Neither a hidden file nor a page for people. */
export const isOfMigrations = (name: string): boolean => !name.startsWith('.') && !/\.(md|txt)$/i.test(name);

function readText(dir: string, file: string): string {
  let content: Buffer;
  try {
    content = readFileSync(join(dir, file));
  } catch (error) {
    throw unreadable(join(dir, file), error as NodeJS.ErrnoException);
  }
  if (!isUtf8(content)) throw invalid(file, 'is not UTF-8, so parts of it would be read wrongly');
  return content.toString('utf8');
}

export function unreadable(path: string, cause: NodeJS.ErrnoException): OpsError {
  return new OpsError('MIGRATION_INVALID', {
    message: `${path} can't be read (${cause.code ?? cause.message}); nothing was run`,
    next: [
      'make it a folder of files that this user can read',
      'or correct database.migrations in gameops.yaml',
    ],
    facts: { path, reason: cause.code ?? '' },
    cause,
  });
}

/**
 * A checkout with CRLF is the same migration: it has the same checksum, so it must also store the same texts and functions in
 * the database.
 */
export const plainLines = (content: string): string => content.replaceAll('\r\n', '\n');

/** @throws MIGRATION_INVALID */
export function parseMigration(file: string, content: string): Migration {
  const text = plainLines(content);
  const name = file.slice(0, -extname(file).length);
  if (!file.endsWith('.sql'))
    return { name, file, kind: 'code', ...headerOf(file, text), up: text, down: '' };
  const markers = [...text.matchAll(marker)];
  const [first, second] = markers;
  if (!first || !second || markers.length !== 2 || isDown(first) || !isDown(second)) {
    throw invalid(
      file,
      'must have exactly one line "-- Up Migration" and after it exactly one "-- Down Migration"; no other comment may begin with these words',
    );
  }
  const head = text.slice(0, first.index);
  const up = text.slice(first.index + first[0].length, second.index).trim();
  const down = text.slice(second.index + second[0].length).trim();
  if (statementsOf(head).length > 0)
    throw invalid(file, 'has SQL above "-- Up Migration", which would never run');
  const header = headerOf(file, head);
  if (statementsOf(up).length === 0)
    throw invalid(file, 'does nothing, because the part after "-- Up Migration" is empty');
  if (statementsOf(down).length === 0 && header.reversible !== 'no') {
    throw invalid(
      file,
      'has an empty "-- Down Migration": write SQL that reverts it, or "-- gameops: reversible=no" at the top',
    );
  }
  for (const sql of [up, down]) checkStatements(file, sql, header.isTransactional);
  return { name, file, kind: 'sql', ...header, up, down };
}

/** @throws MIGRATION_INVALID for statements that could take effect only in part */
export function checkStatements(file: string, sql: string, isTransactional: boolean): void {
  for (const statement of splitStatements(sql)) {
    refuseTransactionControl(file, statement.bare);
    const step = classify(statement.code);
    if (step.kind === 'refused') throw invalid(file, step.why);
    if (isTransactional && step.kind !== 'transactional') {
      throw invalid(
        file,
        `has "${shortened(statement.code)}", which Postgres runs only outside of a transaction: write "-- gameops: transaction=off" at the top`,
      );
    }
  }
}

const shortened = (code: string): string => (code.length > 60 ? `${code.slice(0, 60)}…` : code);

function isDown(match: RegExpMatchArray): boolean {
  return match[1]?.toLowerCase() === 'down';
}

type Header = Pick<Migration, 'phase' | 'reversible' | 'isTransactional' | 'allow'>;

const allowed = {
  phase: ['expand', 'contract'],
  reversible: ['yes', 'lossy', 'no'],
  transaction: ['on', 'off'],
} as const;

/** `-- gameops: phase=expand reversible=yes transaction=on`, which is also the default without a header. */
function headerOf(file: string, head: string): Header {
  const header = { phase: 'expand', reversible: 'yes', transaction: 'on' };
  const allow: string[] = [];
  for (const [, words] of head.matchAll(/^[^\S\n]*(?:--|\/\/|\*)[^\S\n]*gameops:(.*)$/gim)) {
    for (const word of (words ?? '').trim().split(/\s+/).filter(Boolean)) {
      const [key = '', value = ''] = word.split('=');
      if (key === 'allow' && /^[a-z-]+(,[a-z-]+)*$/.test(value)) {
        allow.push(...value.split(','));
        continue;
      }
      const values: readonly string[] | undefined = Object.hasOwn(allowed, key)
        ? allowed[key as keyof typeof allowed]
        : undefined;
      if (!values?.includes(value)) {
        throw invalid(
          file,
          `has "${word}" in its gameops header; allowed are phase=expand|contract, reversible=yes|lossy|no, transaction=on|off, allow=<rule of lint>`,
        );
      }
      header[key as keyof typeof header] = value;
    }
  }
  const { phase, reversible } = header as Pick<Header, 'phase' | 'reversible'>;
  return { phase, reversible, isTransactional: header.transaction === 'on', allow };
}

function refuseTransactionControl(file: string, statement: string): void {
  if (!/^(begin|commit|rollback|abort|end|start\s+transaction|prepare\s+transaction)\b/i.test(statement))
    return;
  if (/^rollback\s+(work\s+|transaction\s+)?to\b/i.test(statement)) return;
  throw invalid(
    file,
    `controls the transaction itself ("${statement.split(/\s+/, 2).join(' ')}"): gameops runs each migration in its own transaction, so that a failure leaves nothing behind`,
  );
}

export function invalid(file: string, why: string): OpsError {
  return new OpsError('MIGRATION_INVALID', {
    message: `the migration ${file} ${why}; nothing was run`,
    next: [`correct ${file} and run the command again`],
    facts: { file },
  });
}
