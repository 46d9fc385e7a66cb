/**
 * What a way back would destroy: found in its SQL, counted in the live tables, and saved before it goes. Counting
 * changes nothing. What a DO block or a function destroys is not seen; then the file's own header has to say "lossy".
 */
import type pg from 'pg';
import { quoted, quotedText } from './facts.ts';
import { namePattern, splitStatements, unquoted } from './sql.ts';

export interface Loss {
  migration: string;
  /** Qualified and quoted. */
  table: string;
  /** Empty: the whole table. */
  columns: string[];
  /** Rows of the table, or rows that have a value in one of the columns. */
  rows: number;
  /** ISO time: when the migration that brought it was applied. */
  since: string;
}

interface Removal {
  /** As written. */
  table: string;
  /** null: all rows. */
  column: string | null;
}

const list = `${namePattern}(?:\\s*,\\s*${namePattern})*`;
const rx = (source: string) =>
  new RegExp(source.replaceAll('LIST', `(${list})`).replaceAll('NAME', `(${namePattern})`), 'i');
const dropTable = rx(String.raw`^drop\s+(?:foreign\s+)?table\s+(?:if\s+exists\s+)?LIST`);
const truncate = rx(String.raw`^truncate\s+(?:table\s+)?(?:only\s+)?LIST`);
const deletion = rx(String.raw`^delete\s+from\s+(?:only\s+)?NAME`);
const alterTable = rx(String.raw`^alter\s+table\s+(?:if\s+exists\s+)?(?:only\s+)?NAME\s*\*?\s+`);
const dropColumn = new RegExp(
  String.raw`(?:^|,)\s*drop\s+(?:column\s+)?(?!constraint\b|expression\b)(?:if\s+exists\s+)?(${namePattern})`,
  'gi',
);

/** In SQL's own words. */
export function removalsIn(sql: string): Removal[] {
  return splitStatements(sql).flatMap(({ code }) => {
    const whole = dropTable.exec(code)?.[1] ?? truncate.exec(code)?.[1] ?? deletion.exec(code)?.[1];
    if (whole) return whole.split(/\s*,\s*/).map((table): Removal => ({ table, column: null }));
    const altered = alterTable.exec(code);
    if (!altered?.[1]) return [];
    const table = altered[1];
    return [...code.slice(altered[0].length).matchAll(dropColumn)].map(
      ([, column = '']): Removal => ({
        table,
        column,
      }),
    );
  });
}

/** Nothing is lost with what is empty or not there. */
export async function lossesOf(
  client: pg.ClientBase,
  migration: string,
  sql: string,
  since: string,
): Promise<Loss[]> {
  const losses: Loss[] = [];
  const removals = removalsIn(sql);
  for (const written of new Set(removals.map(({ table }) => table))) {
    const found = await client.query<{ table: string; columns: string[] }>(
      `SELECT format('%I.%I', n.nspname, c.relname) AS "table",
              ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS columns
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.oid = to_regclass($1) AND c.relkind IN ('r', 'p')`,
      [written],
    );
    const there = found.rows[0];
    if (!there) continue;
    const mine = removals.filter(({ table }) => table === written).map(({ column }) => column);
    const columns = mine.includes(null)
      ? []
      : mine.map((column) => unquoted(column ?? '')).filter((column) => there.columns.includes(column));
    if (!mine.includes(null) && columns.length === 0) continue;
    const { rows } = await client.query<{ n: string }>(
      `SELECT count(*) AS n FROM ${there.table} ${whereAny(columns)}`,
    );
    const count = Number(rows[0]?.n ?? 0);
    if (count > 0) losses.push({ migration, table: there.table, columns, rows: count, since });
  }
  return losses;
}

const whereAny = (columns: readonly string[]): string =>
  columns.length === 0
    ? ''
    : `WHERE ${columns.map((column) => `${quoted(column)} IS NOT NULL`).join(' OR ')}`;

export interface Rescue {
  loss: Loss;
  /** Table that holds the values now. */
  savedAs: string;
  /** For the transaction of the way back. Writers wait while it copies, readers do not. */
  sql: string;
}

/** Whole rows of a table that goes; of columns that go, those with a value, with the primary key beside them. */
export async function rescueOf(client: pg.ClientBase, loss: Loss, at: Date, nth: number): Promise<Rescue> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT a.attname::text AS name FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)
      WHERE i.indrelid = to_regclass($1) AND i.indisprimary`,
    [loss.table],
  );
  const stamp = at.toISOString().replace(/\D/g, '').slice(0, 17);
  const savedAs = `gameops.rescue_${stamp}_${nth}`;
  const key = rows.map(({ name }) => name).filter((name) => !loss.columns.includes(name));
  const what = loss.columns.length === 0 ? '*' : [...key, ...loss.columns].map(quoted).join(', ');
  return {
    loss,
    savedAs,
    sql: `LOCK TABLE ${loss.table} IN SHARE ROW EXCLUSIVE MODE;
CREATE TABLE ${savedAs} AS SELECT ${what} FROM ${loss.table} ${whereAny(loss.columns)};
INSERT INTO gameops.rescues (migration, source, columns, saved_as)
  VALUES (${quotedText(loss.migration)}, ${quotedText(loss.table)}, ARRAY[${loss.columns.map(quotedText).join(', ')}]::text[], ${quotedText(savedAs)});\n`,
  };
}
