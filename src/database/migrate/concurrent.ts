/**
 * Statements that Postgres runs only outside of a transaction, one at a time. Promises: a statement that was killed
 * half-way is recognized by what it left in the catalogue, removed and run again; a finished statement is not run twice;
 * when a later statement fails, every statement that can be undone is undone.
 */
import type pg from 'pg';
import { namePattern, unquoted } from '../sql/split.ts';

export type StatementClass =
  | { kind: 'create-index'; index: string; table: string }
  | { kind: 'drop-index'; index: string }
  | { kind: 'reindex' }
  | { kind: 'detach'; table: string; partition: string }
  /** Harmless to repeat. */
  | { kind: 'repeatable' }
  /** Runs in a transaction of its own, together with its line in the journal. */
  | { kind: 'transactional' }
  | { kind: 'refused'; why: string };

const rx = (source: string) => new RegExp(source.replaceAll('NAME', `(${namePattern})`), 'i');
const createIndex = rx(
  String.raw`^create\s+(?:unique\s+)?index\s+concurrently\s+(?:if\s+not\s+exists\s+)?NAME\s+on\s+(?:only\s+)?NAME`,
);
const dropIndex = rx(
  String.raw`^drop\s+index\s+concurrently\s+(?:if\s+exists\s+)?NAME(?:\s+(?:restrict|cascade))?$`,
);
const detach = rx(
  String.raw`^alter\s+table\s+(?:if\s+exists\s+)?NAME\s+detach\s+partition\s+NAME\s+concurrently$`,
);

/** @param code without comments, see `Statement.code` */
export function classify(code: string): StatementClass {
  const created = createIndex.exec(code);
  // When the name reads `ON`, the index has no name.
  if (created?.[1] && created[2] && !/^on$/i.test(created[1]))
    return { kind: 'create-index', index: created[1], table: created[2] };
  if (/^create\s+(unique\s+)?index\s+concurrently\b/i.test(code))
    return {
      kind: 'refused',
      why: 'builds a concurrent index without a name, which could not be found again after a crash',
    };
  const dropped = dropIndex.exec(code);
  if (dropped?.[1]) return { kind: 'drop-index', index: dropped[1] };
  const detached = detach.exec(code);
  if (detached?.[1] && detached[2]) return { kind: 'detach', table: detached[1], partition: detached[2] };
  if (/^drop\s+index\s+concurrently\b/i.test(code))
    return {
      kind: 'refused',
      why: 'drops several indexes concurrently in one statement, which Postgres does not allow',
    };
  if (/^reindex\b.*\bconcurrently\b/is.test(code)) return { kind: 'reindex' };
  if (/^vacuum\b/i.test(code)) return { kind: 'repeatable' };
  if (/^((create|drop|alter)\s+(database|tablespace|subscription)|alter\s+system)\b/i.test(code))
    return {
      kind: 'refused',
      why: 'changes the server and not the schema, so it does not belong in a migration',
    };
  return { kind: 'transactional' };
}

/** Building an index may take long; the limits of the connection are for all other statements. */
export async function runLong(client: pg.ClientBase, sql: string): Promise<void> {
  await client.query({ text: sql, query_timeout: 86_400_000 } as pg.QueryConfig);
}

interface Index {
  /** Qualified and quoted. */
  name: string;
  /** null: the object of this name is not an index. */
  valid: boolean | null;
  definition: string | null;
}

async function indexOn(client: pg.ClientBase, table: string, index: string): Promise<Index | null> {
  const { rows } = await client.query<Index>(
    `SELECT format('%I.%I', n.nspname, c.relname) AS name, i.indisvalid AS valid, pg_get_indexdef(i.indexrelid) AS definition
       FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace
       JOIN pg_class c ON c.relnamespace = t.relnamespace AND c.relname = $2
       LEFT JOIN pg_index i ON i.indexrelid = c.oid
      WHERE t.oid = to_regclass($1)`,
    [table, unquoted(index)],
  );
  return rows[0] ?? null;
}

async function indexNamed(client: pg.ClientBase, index: string): Promise<Index | null> {
  const { rows } = await client.query<Index>(
    `SELECT format('%I.%I', n.nspname, c.relname) AS name, i.indisvalid AS valid, pg_get_indexdef(i.indexrelid) AS definition
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_index i ON i.indexrelid = c.oid
      WHERE c.oid = to_regclass($1)`,
    [index],
  );
  return rows[0] ?? null;
}

/** SQL that undoes the statement, or null when nothing does. Must be asked before the statement runs. */
export async function undoOf(client: pg.ClientBase, step: StatementClass): Promise<string | null> {
  if (step.kind === 'create-index') {
    const there = await indexOn(client, step.table, step.index);
    if (there?.valid) return null;
    const { rows } = await client.query<{ schema: string | null }>(
      `SELECT format('%I', n.nspname) AS schema FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = to_regclass($1)`,
      [step.table],
    );
    return rows[0]?.schema ? `DROP INDEX CONCURRENTLY IF EXISTS ${rows[0].schema}.${step.index}` : null;
  }
  if (step.kind === 'drop-index') {
    const there = await indexNamed(client, step.index);
    return there?.definition?.replace(/^CREATE (UNIQUE )?INDEX /, 'CREATE $1INDEX CONCURRENTLY ') ?? null;
  }
  return step.kind === 'repeatable' || step.kind === 'reindex' ? '' : null;
}

/**
 * Removes what a killed or failed attempt left. @returns true when the statement is done already.
 * @param begun an earlier attempt began it, and the object that it makes was not there before that attempt
 */
export async function reconcile(
  client: pg.ClientBase,
  step: StatementClass,
  begun: boolean,
): Promise<boolean> {
  switch (step.kind) {
    case 'create-index': {
      const there = await indexOn(client, step.table, step.index);
      if (there?.valid === false) await runLong(client, `DROP INDEX CONCURRENTLY IF EXISTS ${there.name}`);
      return begun && there?.valid === true;
    }
    case 'drop-index':
      return begun && (await indexNamed(client, step.index)) === null;
    case 'reindex': {
      const { rows } = await client.query<{ name: string }>(
        `SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
           JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE NOT i.indisvalid AND c.relname ~ '_cc(new|old)[0-9]*$'`,
      );
      for (const { name } of rows) await runLong(client, `DROP INDEX CONCURRENTLY IF EXISTS ${name}`);
      return false;
    }
    case 'detach':
      return reconcileDetach(client, step, begun);
    default:
      return false;
  }
}

async function reconcileDetach(
  client: pg.ClientBase,
  { table, partition }: StatementClass & { kind: 'detach' },
  begun: boolean,
): Promise<boolean> {
  const { rows } = await client.query<{ pending: boolean }>(
    `SELECT inhdetachpending AS pending FROM pg_inherits
      WHERE inhparent = to_regclass($1) AND inhrelid = to_regclass($2)`,
    [table, partition],
  );
  if (rows[0]?.pending) await runLong(client, `ALTER TABLE ${table} DETACH PARTITION ${partition} FINALIZE`);
  return rows[0]?.pending === true || (begun && rows.length === 0);
}

/** Safe to repeat: the object that the undo makes may be there already, complete or not. */
export async function undoStatement(client: pg.ClientBase, undo: string): Promise<void> {
  if (undo === '') return;
  const step = classify(undo);
  const isBack = await reconcile(client, step, true);
  if (!isBack) await runLong(client, undo);
}
