/**
 * The data that reverting a migration would destroy: found in its down script, counted in the live tables, and saved
 * before it is removed. Counting changes nothing. What can be neither counted nor saved is named separately, so that
 * nobody takes it for safe.
 */
import type pg from 'pg';
import { quoted, quotedText } from '../server/facts.ts';
import { keepsValues, quotedPath, type Removal, removalsIn, wordsOf } from '../sql/removals.ts';

export interface Loss {
  migration: string;
  /** Qualified and quoted. */
  table: string;
  /** Empty: the whole table. */
  columns: string[];
  /** Rows of the table, or rows with a value in one of the columns. A condition in the script may destroy fewer. */
  rows: number;
  /** ISO time: when the migration that brought it was applied. */
  since: string;
}

export interface Uncounted {
  migration: string;
  /** What its down script does: "drops the schema shop and everything that depends on it" */
  what: string;
}

export interface Losses {
  losses: Loss[];
  /** Neither counted nor saved. */
  uncounted: Uncounted[];
}

interface Back {
  name: string;
  down: string;
  since: string;
}

/**
 * An empty or absent table loses nothing. What the script does counts, whatever the header of the file claims.
 * @param isLossy its header says that reverting loses data
 * @param renamed new names that this and earlier down scripts give: a table can't be counted under its new name yet
 */
export async function lossesOf(
  client: pg.ClientBase,
  { name: migration, down, since }: Back,
  isLossy: boolean,
  renamed: Set<string>,
): Promise<Losses> {
  const { removals, unsaved, isOpaque, renamed: names } = await removalsIn(down);
  for (const name of names) renamed.add(name);
  const losses: Loss[] = [];
  const what = [...unsaved];
  for (const written of new Set(removals.map(quotedPath))) {
    const mine = removals.filter((one) => quotedPath(one) === written);
    const there = await tableAt(client, written);
    const absent = mine.filter(
      (one) => isAbsent(one, there) && partsOf(one).some((part) => renamed.has(part)),
    );
    what.push(...absent.map((one) => `${wordsOf(one)}, which has another name at present`));
    if (there === null) continue;
    if (!there.isTable) {
      const writes = mine.filter(({ how }) => how === 'writes over' || how === 'deletes rows of');
      what.push(...writes.map((one) => `${wordsOf(one)}, which is not a table`));
      continue;
    }
    const columns = columnsLost(mine, there);
    if (columns === null) continue;
    const rows = await countOf(client, `${there.table} ${whereAny(columns)}`);
    if (rows > 0) losses.push({ migration, table: there.table, columns, rows, since });
    if (rows > 0 && mine.some(({ how }) => how === 'deletes rows of'))
      what.push(...(await takenAlong(client, there.table)));
  }
  if (isLossy && (isOpaque || removals.length + unsaved.length === 0))
    what.push("is marked as lossy (reversible=lossy), and gameops can't see what is lost");
  return { losses, uncounted: [...new Set(what)].map((one) => ({ migration, what: one })) };
}

interface Table {
  /** Qualified and quoted. */
  table: string;
  isTable: boolean;
  /** Name → name of its type. */
  columns: Record<string, string>;
}

async function tableAt(client: pg.ClientBase, written: string): Promise<Table | null> {
  const { rows } = await client.query<Table>(
    `SELECT format('%I.%I', n.nspname, c.relname) AS "table", c.relkind IN ('r', 'p') AS "isTable",
            (SELECT coalesce(json_object_agg(a.attname, t.typname), '{}') FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
              WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass($1)`,
    [written],
  );
  return rows[0] ?? null;
}

const partsOf = ({ path, column }: Removal): string[] => (column === null ? [...path] : [...path, column]);

const isAbsent = ({ column }: Removal, there: Table | null): boolean =>
  there === null || (column !== null && !Object.hasOwn(there.columns, column));

/** []: the whole table. null: nothing of it. */
function columnsLost(mine: readonly Removal[], there: Table): string[] | null {
  if (mine.some(({ column }) => column === null)) return [];
  const lost = mine.flatMap(({ column, to }) => {
    if (column === null || !Object.hasOwn(there.columns, column)) return [];
    return to && keepsValues(to, there.columns[column] ?? null) ? [] : [column];
  });
  return lost.length === 0 ? null : [...new Set(lost)];
}

/** Tables with rows that refer to deleted rows, and are deleted or lose a value with them. */
async function takenAlong(client: pg.ClientBase, table: string): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT DISTINCT conrelid::regclass::text AS name FROM pg_constraint
      WHERE contype = 'f' AND confrelid = to_regclass($1) AND conrelid <> confrelid AND confdeltype IN ('c', 'n', 'd') ORDER BY 1`,
    [table],
  );
  const taken: string[] = [];
  for (const { name } of rows)
    if ((await countOf(client, `(SELECT FROM ${name} LIMIT 1) one`)) > 0)
      taken.push(
        `deletes rows of ${table}, and with them deletes or changes rows of ${name} that refer to them`,
      );
  return taken;
}

async function countOf(client: pg.ClientBase, from: string): Promise<number> {
  const { rows } = await client.query<{ n: string }>(`SELECT count(*) AS n FROM ${from}`);
  return Number(rows[0]?.n ?? 0);
}

const whereAny = (columns: readonly string[]): string =>
  columns.length === 0
    ? ''
    : `WHERE ${columns.map((column) => `${quoted(column)} IS NOT NULL`).join(' OR ')}`;

// Saving ----------------------------------------------------------------------------------------------------------

export interface Rescue {
  loss: Loss;
  /** Table that holds the values now. */
  savedAs: string;
  /** For the transaction that reverts. Writers wait while it copies, readers do not. */
  sql: string;
}

/**
 * Copies whole rows of a dropped table. Of dropped or changed columns it copies the values with the primary key beside
 * them, or whole rows when there is no key, because nothing else would tell whose value it was.
 * @returns null when an earlier down script removed the table already
 */
export async function rescueOf(
  client: pg.ClientBase,
  loss: Loss,
  at: Date,
  nth: number,
): Promise<Rescue | null> {
  const { rows } = await client.query<{ name: string; isKey: boolean; isOurs: boolean }>(
    `SELECT a.attname::text AS name, n.nspname <> 'pg_catalog' AS "isOurs",
            EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary AND a.attnum = ANY(i.indkey)) AS "isKey"
       FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace n ON n.oid = t.typnamespace
      WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`,
    [loss.table],
  );
  const columns = loss.columns.filter((column) => rows.some(({ name }) => name === column));
  if (rows.length === 0 || (columns.length === 0 && loss.columns.length > 0)) return null;
  const stamp = at.toISOString().replace(/\D/g, '').slice(0, 17);
  const savedAs = `gameops.rescue_${stamp}_${nth}`;
  const isWhole = loss.columns.length === 0 || !rows.some(({ isKey }) => isKey);
  const what = rows
    .filter(({ name, isKey }) => isWhole || isKey || columns.includes(name))
    // The down script may drop the type next: that would fail, or with CASCADE drop the saved values.
    .map(({ name, isOurs }) => (isOurs ? `${quoted(name)}::text AS ${quoted(name)}` : quoted(name)));
  return {
    loss,
    savedAs,
    sql: `LOCK TABLE ${loss.table} IN SHARE ROW EXCLUSIVE MODE;
CREATE TABLE ${savedAs} AS SELECT ${what.join(', ')} FROM ${loss.table} ${whereAny(columns)};
INSERT INTO gameops.rescues (migration, source, columns, saved_as)
  VALUES (${quotedText(loss.migration)}, ${quotedText(loss.table)}, ARRAY[${loss.columns.map(quotedText).join(', ')}]::text[], ${quotedText(savedAs)});\n`,
  };
}
