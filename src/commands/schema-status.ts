/** The schema in `status`, compared with the migrations of the newest release. Promises to report whatever prevents that. */

import { listMigrations } from '../database/migrate/files.ts';
import { statusOf } from '../database/migrate/status.ts';
import { codeOf, databaseEndpoint, messageOf, withClient } from '../database/server/connection.ts';
import type { Engine } from '../engine/port.ts';
import { isOpsError } from '../errors.ts';
import { requestOf } from '../operations/act.ts';
import type { Context, Style } from '../operations/context.ts';
import { migrationsDir } from '../operations/database/database.ts';
import type { ProjectRecord } from '../record/record.ts';
import { originOfImage } from '../release/origin.ts';

export interface SchemaStatus {
  /** Why the rest is unknown; null: it is known. */
  unknown: string | null;
  /** Newest applied migration. */
  current: string | null;
  applied: number;
  /** Names; the next deploy runs those that are expand. */
  pending: string[];
  /** Newest contract migration: images that do not know it are too old. */
  floor: string | null;
  /** Whether somebody changed the schema without a migration; null: there is nothing to compare with. */
  drift: boolean | null;
  /** Migrations that a killed run had begun: the next run continues them. */
  unfinished: string[];
}

const connectMs = 2_000;

/** @returns null when there is no database: the settings name none, or nothing was ever deployed here */
export async function schemaStatus(
  context: Context,
  engine: Engine,
  record: ProjectRecord | null,
): Promise<SchemaStatus | null> {
  if (record === null) return null;
  const { image } = requestOf(record);
  try {
    const { database } = context.readEnv(image).settings;
    if (database === null) return null;
    const dir = migrationsDir(context, originOfImage(image));
    const files = dir === null ? [] : await listMigrations(dir);
    const endpoint = await databaseEndpoint(engine, context.project, database);
    const state = await withClient(endpoint, (client) => statusOf(client, files), { connectMs });
    return {
      unknown: null,
      current: state.applied.at(-1)?.name ?? null,
      applied: state.applied.length,
      pending: state.pending.map(({ name }) => name),
      floor: state.floor,
      drift: state.isDrifted,
      unfinished: state.findings
        .filter(({ rule }) => rule === 'unfinished')
        .map(({ file }) => file.replace('.sql', '')),
    };
  } catch (error) {
    if (!isOpsError(error) && codeOf(error) === '') throw error;
    const nothing = { current: null, applied: 0, pending: [], floor: null, drift: null, unfinished: [] };
    return { unknown: messageOf(error), ...nothing };
  }
}

export function schemaText(style: Style, schema: SchemaStatus): string {
  if (schema.unknown !== null) return `schema   ${style.yellow('unknown')}: ${schema.unknown}`;
  const parts = [
    schema.current ?? 'no migration applied',
    ...(schema.pending.length > 0 ? [style.yellow(`${schema.pending.length} pending`)] : []),
    ...(schema.floor === null ? [] : [`floor ${schema.floor}`]),
    ...(schema.unfinished.length > 0 ? [style.yellow(`unfinished: ${schema.unfinished.join(', ')}`)] : []),
    ...(schema.drift ? [style.yellow('drifted (see gameops db status)')] : []),
  ];
  return `schema   ${parts.join(' · ')}`;
}
