/**
 * Migrations written as JavaScript or TypeScript, as far as node-pg-migrate allows. Promises: what asks the database
 * while it runs (`pgm.db`) is inside the migration's transaction; a down function whose SQL can be known beforehand is kept
 * as SQL, so that it works without the file. Any other down function needs the file.
 */
import { join } from 'node:path';
import type { MigrationBuilder } from 'node-pg-migrate';
import { messageOf } from '../server/connection.ts';
import { invalid, type Migration } from './files.ts';
import type { Direction } from './ledger.ts';

/** The exports of a file, as node-pg-migrate expects them. */
export interface Actions {
  up?: Action | false;
  down?: Action | false;
  shorthands?: object;
}
type Action = (pgm: MigrationBuilder, done?: () => void) => unknown;

/** @throws MIGRATION_INVALID */
export async function loadCode(dir: string, migration: Migration): Promise<Actions> {
  const { jiti } = await import('node-pg-migrate');
  try {
    const loaded = (await jiti.import(join(dir, migration.file))) as Actions & { default?: Actions };
    const actions = loaded.up === undefined && loaded.default?.up ? loaded.default : loaded;
    if (typeof actions.up !== 'function') throw new Error('it exports no function "up"');
    return actions;
  } catch (error) {
    throw invalid(migration.file, `can't be loaded: ${messageOf(error)}`);
  }
}

const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };

/** The SQL that it would run, or null when that depends on the database. Runs the code, touches no database. */
export async function sqlOf(actions: Actions, direction: Direction): Promise<string | null> {
  const isInferred = direction === 'down' && actions.down === undefined;
  const action = isInferred ? actions.up : actions[direction];
  if (typeof action !== 'function') return null;
  const { MigrationBuilder: Builder } = await import('node-pg-migrate');
  const refuse = () => {
    throw new Error('needs the database');
  };
  try {
    const pgm = new Builder(
      { query: refuse, select: refuse } as never,
      (actions.shorthands ?? {}) as never,
      false,
      silent as never,
    );
    if (isInferred) pgm.enableReverseMode();
    if (action.length === 2) await new Promise<void>((resolve) => action(pgm, resolve));
    else await action(pgm);
    return pgm.getSqlSteps().join('\n');
  } catch {
    return null;
  }
}
