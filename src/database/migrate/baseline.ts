/**
 * Enters an existing database into the ledger. Promises: only when the migrations, run on an empty database, lead to
 * exactly the schema that it has; writes rows of the ledger and nothing else.
 */
import { catalogueOf, type Difference, differenceOf } from '../server/catalogue.ts';
import { type DatabaseEndpoint, withClient } from '../server/connection.ts';
import { entrySql, floorSql, removalSql } from './books.ts';
import { loadCode, sqlOf } from './code.ts';
import { rememberSchema } from './drift.ts';
import type { Migration } from './files.ts';
import { migrateForward } from './forward.ts';
import { appliedTable, floorOf, readLedger } from './ledger.ts';
import { type RunOptions, underLock } from './run.ts';

/** @param empty a throw-away database */
export async function schemaOfFiles(
  empty: DatabaseEndpoint,
  dir: string,
  names: readonly string[],
  options: RunOptions,
): Promise<string[]> {
  await migrateForward(empty, dir, { ...options, emit: () => undefined, names });
  return (await withClient(empty, catalogueOf)).lines;
}

export async function compareWith(
  endpoint: DatabaseEndpoint,
  expected: readonly string[],
): Promise<Difference> {
  return differenceOf(expected, (await withClient(endpoint, catalogueOf)).lines);
}

/** An applied migration keeps its place and gets the text of the file. @returns names that are new in the ledger */
export async function adopt(
  endpoint: DatabaseEndpoint,
  dir: string,
  chosen: readonly Migration[],
  options: RunOptions,
): Promise<string[]> {
  return underLock(endpoint, dir, options, async ({ client, ledger }) => {
    const there = new Map(ledger.applied.map((one) => [one.name, one]));
    const sql: string[] = [];
    for (const migration of chosen) {
      const before = there.get(migration.name);
      const down =
        migration.kind === 'sql' ? migration.down : await sqlOf(await loadCode(dir, migration), 'down');
      const release = before?.row?.release ?? null;
      const origin = before?.row?.origin ?? 'baseline';
      const appliedAt = before ? { appliedAt: before.appliedAt } : {};
      sql.push(removalSql(migration.name), entrySql({ migration, down, release, origin, ...appliedAt }));
    }
    const added = chosen.map(({ name }) => name).filter((name) => !there.has(name));
    for (const name of added)
      sql.push(`INSERT INTO public.${appliedTable} (name, run_on) VALUES ('${name}', now());`);
    try {
      await client.query(`BEGIN;\n${sql.join('\n')}\nCOMMIT;`);
    } catch (error) {
      await client.query('ROLLBACK').catch(() => {});
      throw error;
    }
    const after = await readLedger(client);
    await client.query(floorSql(floorOf(after.applied)));
    await rememberSchema(client);
    return added;
  });
}
