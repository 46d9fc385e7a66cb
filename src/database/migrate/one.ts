/**
 * Runs one migration in one direction through node-pg-migrate's runner. Promises: the migration, node-pg-migrate's row and
 * the ledger's row are committed together or not at all; statements that can't be in a transaction are journaled one by
 * one. Never retries and never decides what to run.
 */
import { basename, dirname, extname, join } from 'node:path';
import type { MigrationBuilder } from 'node-pg-migrate';
import type pg from 'pg';
import { packageRoot } from '../../package-root.ts';
import { type Statement, splitStatements } from '../sql/split.ts';
import { beginsSumOf, checksum } from '../sql/sums.ts';
import { journalEndSql } from './books.ts';
import type { Actions } from './code.ts';
import { classify, reconcile, runLong, undoOf, undoStatement } from './concurrent.ts';
import { checkStatements, invalid } from './files.ts';
import { appliedTable, type Direction } from './ledger.ts';

export interface Task {
  name: string;
  file: string;
  direction: Direction;
  isTransactional: boolean;
  /** SQL, or the functions of a code file, which then must be transactional. */
  what: string | Actions;
  /** SQL that runs first in the same transaction. Without one, in the transaction of the first transactional statement. */
  before: string;
  /** SQL for the ledger, in the same transaction. */
  book: string;
}

export interface WaitLimits {
  lockMs: number;
  statementMs: number;
  /** How long a statement that holds up nobody may wait for a lock. */
  patienceMs: number;
}

/**
 * The runner needs a folder with a file, and any file will do: the loader supplies what runs, also when the migration's
 * own file is gone. The folder is small, because the runner lists it for each migration.
 */
const anyFile = join(packageRoot(), 'bin', 'gameops.js');

/** After a failure, the connection may be inside a failed transaction. */
export async function runMigration(client: pg.Client, task: Task, limits: WaitLimits): Promise<void> {
  const sink = task.isTransactional
    ? transactionalSink(client, task, limits)
    : journaledSink(client, task, limits);
  const { runner } = await import('node-pg-migrate');
  await runner({
    dbClient: { query: sink.query } as never,
    dir: dirname(anyFile),
    ignorePattern: `(?!${basename(anyFile).replaceAll('.', '\\.')}$).*`,
    direction: task.direction,
    count: 1,
    checkOrder: false,
    noLock: true,
    migrationsTable: appliedTable,
    singleTransaction: false,
    logger: silent,
    migrationLoaderStrategies: [
      {
        extensions: [extname(anyFile)],
        loader: async () => [{ id: `/${task.name}.sql`, filePaths: [], actions: actionsOf(task) as never }],
      },
    ],
  });
  if (!sink.isDone())
    throw invalid(task.file, 'calls pgm.noTransaction(): write "gameops: transaction=off" at the top');
}

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

function actionsOf({ what, isTransactional }: Task): Actions {
  if (typeof what !== 'string') return what;
  const run = (pgm: MigrationBuilder) => {
    if (!isTransactional) pgm.noTransaction();
    pgm.sql(what);
  };
  return { up: run, down: (pgm: MigrationBuilder) => run(pgm) };
}

interface StatementSink {
  /** The function that node-pg-migrate uses as its connection. */
  query(text: string | pg.QueryConfig, values?: unknown[]): Promise<unknown>;
  isDone(): boolean;
}

const nothing = { rows: [], rowCount: 0 };

/**
 * Answers the runner's questions about its own table, which exists, and about the applied migrations, which the caller
 * knows. The runner asks them first; every later query belongs to the migration.
 */
function answering({ name, direction }: Task): (text: string) => object | null {
  let isOver = false;
  return (text) => {
    if (isOver) return null;
    if (/^SELECT \w+ FROM information_schema\./.test(text)) return { rows: [{}], rowCount: 1 };
    if (!text.startsWith(`SELECT name FROM "public"."${appliedTable}"`)) return null;
    isOver = true;
    return { rows: direction === 'down' ? [{ name }] : [] };
  };
}

const isBookkeeping = (text: string): boolean =>
  /^(INSERT INTO|DELETE FROM) "public"\."pgmigrations" /.test(text);

/**
 * Everything runs inside one transaction, also what code asks while it builds its statements. BEGIN is sent with the first
 * statement; the ledger's row and COMMIT are sent with the last. An SQL migration asks nothing, so it is one round trip.
 */
function transactionalSink(client: pg.Client, task: Task, limits: WaitLimits): StatementSink {
  let isOpen = false;
  let isBegun = false;
  let isDone = false;
  let books = '';
  let sql = '';
  const maySet = typeof task.what !== 'string' || /\b(set|set_config|reset|discard)\b/i.test(task.what);
  const answerTo = answering(task);
  const opening = () => {
    const begin = isOpen ? '' : `BEGIN;\n${task.before}`;
    isOpen = true;
    return begin;
  };
  return {
    isDone: () => isDone,
    async query(text, values) {
      if (typeof text !== 'string' || values !== undefined) {
        if (!isOpen) await client.query(opening());
        return client.query(text as string, values);
      }
      const known = answerTo(text);
      if (known) return known;
      // The first BEGIN is the runner's own. Any other belongs to the migration, and is refused below.
      if (text === 'BEGIN;' && !isBegun) {
        isBegun = true;
        return nothing;
      }
      if (isBookkeeping(text)) {
        books = text;
        return nothing;
      }
      if (text === 'COMMIT;' && books !== '') {
        await client.query(
          `${opening()}${sql}${books}\n${task.book}\nCOMMIT;${maySet ? resetSql(limits) : ''}`,
        );
        isDone = true;
        return nothing;
      }
      if (typeof task.what === 'string') {
        // The text may end in a comment, and without a semicolon.
        sql += `${text}\n;\n`;
        return nothing;
      }
      checkStatements(task.file, text, true);
      return client.query(`${opening()}${text}`);
    },
  };
}

/** Resets what a migration may have SET on the connection, so that it does not affect the next migration. */
const resetSql = ({ lockMs, statementMs }: WaitLimits): string =>
  `RESET ROLE; RESET search_path; SET lock_timeout = ${lockMs}; SET statement_timeout = ${statementMs};`;

// Outside of a transaction ------------------------------------------------------------------------------------------

function journaledSink(client: pg.Client, task: Task, limits: WaitLimits): StatementSink {
  let isDone = false;
  const answerTo = answering(task);
  return {
    isDone: () => isDone,
    async query(text) {
      if (typeof text !== 'string') throw new Error('a journaled migration is plain SQL');
      const known = answerTo(text);
      if (known) return known;
      if (isBookkeeping(text)) {
        const books = `${text}\n${journalEndSql(task.name)}\n${task.book}`;
        await client.query(`BEGIN;\n${books}\nCOMMIT;`);
        isDone = true;
        return nothing;
      }
      await withPatience(client, limits, () => runStatements(client, task, limits, splitStatements(text)));
      return nothing;
    },
  };
}

interface JournalRow {
  step: number;
  sum: string;
  undo: string | null;
  done: boolean;
}

async function journalOf(client: pg.Client, name: string, direction: Direction): Promise<JournalRow[]> {
  const { rows } = await client.query<JournalRow>(
    'SELECT step, sum, undo, done FROM gameops.steps WHERE migration = $1 AND direction = $2 ORDER BY step',
    [name, direction],
  );
  return rows;
}

/** What tells that a statement of the journal is the one in the file. */
export const stepSum = (statement: string): string => checksum(statement).slice(0, 16);

async function runStatements(
  client: pg.Client,
  task: Task,
  limits: WaitLimits,
  statements: readonly Statement[],
): Promise<void> {
  let journal = await journalOf(client, task.name, task.direction);
  if (journal.some(({ step, sum }) => !beginsSumOf(sum, statements[step]?.text ?? ''))) {
    if (!(await revertStatements(client, task.name, task.direction)))
      throw invalid(
        task.file,
        "was half done with another text, and parts of that text can't be undone: put the former text back",
      );
    journal = [];
  }
  // Data must be saved before it is removed. A run that continues a killed one saves what is still there.
  let { before } = task;
  for (const [at, statement] of statements.entries()) {
    const row = journal.find(({ step }) => step === at);
    if (row?.done) continue;
    await runStatement(client, { ...task, before }, limits, { at, statement, row });
    if (classify(statement.code).kind === 'transactional') before = '';
  }
}

async function runStatement(
  client: pg.Client,
  { name, direction, before }: Task,
  { lockMs }: WaitLimits,
  { at, statement, row }: { at: number; statement: Statement; row: JournalRow | undefined },
): Promise<void> {
  const step = classify(statement.code);
  const note = (undo: string | null, done: boolean) => ({
    text: `INSERT INTO gameops.steps (migration, direction, step, sum, undo, done) VALUES ($1, $2, $3, $4, $5, $6)
           ON CONFLICT (migration, direction, step) DO UPDATE SET done = excluded.done`,
    values: [name, direction, at, stepSum(statement.text), undo, done],
  });
  if (step.kind === 'transactional') {
    await client.query(`BEGIN;\nSET LOCAL lock_timeout = ${lockMs};\n${before}${statement.text}`);
    await client.query(note(null, true));
    await client.query('COMMIT');
    return;
  }
  // An index that was there before this migration began is not the index that it makes.
  const isBegun = row !== undefined && (step.kind !== 'create-index' || row.undo !== null);
  if (!(await reconcile(client, step, isBegun))) {
    if (!row) await client.query(note(await undoOf(client, step), false));
    await runLong(client, statement.text);
  }
  await client.query(note(row?.undo ?? null, true));
}

/** @returns false, and nothing is changed, when a finished statement can't be undone */
export async function revertStatements(
  client: pg.Client,
  name: string,
  direction: Direction,
): Promise<boolean> {
  const journal = await journalOf(client, name, direction);
  if (journal.some(({ done, undo }) => done && undo === null)) return false;
  for (const { step, undo } of journal.reverse()) {
    if (undo !== null) await undoStatement(client, undo);
    await client.query('DELETE FROM gameops.steps WHERE migration = $1 AND direction = $2 AND step = $3', [
      name,
      direction,
      step,
    ]);
  }
  return true;
}

/**
 * Concurrent statements hold up neither readers nor writers, so they may wait long and run long; a short lock timeout would
 * only leave invalid indexes.
 */
export async function withPatience<T>(
  client: pg.Client,
  limits: WaitLimits,
  work: () => Promise<T>,
): Promise<T> {
  const timeouts = (lockMs: number, statementMs: number) =>
    client.query(`SET lock_timeout = ${lockMs}; SET statement_timeout = ${statementMs}`);
  await timeouts(Math.max(1, Math.round(limits.patienceMs)), 0);
  try {
    return await work();
  } finally {
    await client.query('ROLLBACK').catch(() => {});
    await timeouts(limits.lockMs, limits.statementMs).catch(() => {});
  }
}
