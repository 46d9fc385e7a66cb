/** The schema in acts: what is to be done to it, read once under the lock, and the port that does it. */

import type { SchemaSeen } from '../../boot-rule.ts';
import { findBackup, listUndos, restoreBackup } from '../../database/backup/restore.ts';
import { mustHaveRoomForBackup, pruneBackups, takeBackup } from '../../database/backup/take.ts';
import { type BackPlan, migrateBack, planBack } from '../../database/migrate/back.ts';
import { migrateForward } from '../../database/migrate/forward.ts';
import { type Ledger, readLedger } from '../../database/migrate/ledger.ts';
import { type SchemaState, schemaStateOf } from '../../database/migrate/pending.ts';
import { type DatabaseEndpoint, databaseEndpoint } from '../../database/server/connection.ts';
import type { Engine } from '../../engine/port.ts';
import type { Intent, SchemaWish, SchemaWork } from '../../release/model.ts';
import { noSchemaWork } from '../../runner/observe.ts';
import type { Database } from '../../runner/outside.ts';
import type { Context, EnvFile } from '../context.ts';
import { backupAccess } from './backups.ts';
import { answered, look } from './database.ts';

export interface ProjectDatabase extends Database {
  /** null: the settings name no database. @throws MIGRATION_INVALID, DATABASE_UNREACHABLE */
  state(): Promise<SchemaState | null>;
  /** Asks nothing of the folder of migrations. null: the settings name no database. @throws DATABASE_UNREACHABLE */
  ledger(): Promise<SchemaLedger | null>;
  /** Counts what would be lost. @throws DATABASE_UNREACHABLE, MIGRATION_INVALID */
  planBack(names: readonly string[]): Promise<BackPlan>;
  /** What the record's act still has to do to the schema. @throws DATABASE_UNREACHABLE */
  wishLeft(intent: Intent | null): Promise<SchemaWish | null>;
  /** @throws DISK_TOO_FULL */
  mustHaveRoom(): Promise<void>;
}

export interface SchemaLedger {
  ledger: Ledger;
  seen: SchemaSeen;
}

/** The way back is urgent: a database that is away is not waited for. */
const connectMs = 2_000;

/** All of it is read: a dump that unpacks is a backup. */
const proof = 'read';

/** @param dir of the migrations; null: this image brings none */
export function projectDatabase(
  context: Context,
  engine: Engine,
  env: EnvFile,
  dir: string | null,
): ProjectDatabase {
  const { database } = env.settings;
  const { emit, config } = context;
  const endpoint = (): Promise<DatabaseEndpoint> => {
    if (database === null) throw new Error('a plan has steps for a database that there is none of');
    return databaseEndpoint(engine, context.project, database);
  };
  const access = async (signal: AbortSignal) => ({ ...(await backupAccess(context, env)), signal });
  const ledger = async (): Promise<SchemaLedger | null> => {
    if (database === null) return null;
    const known = await look(await endpoint(), readLedger, { connectMs });
    const applied = new Set(known.applied.map(({ name }) => name));
    return { ledger: known, seen: { applied, floor: known.floor } };
  };
  return {
    async state() {
      if (database === null) return null;
      const at = await endpoint();
      return answered(at, () => schemaStateOf(at, dir));
    },
    ledger,
    planBack: async (names) => look(await endpoint(), (client) => planBack(client, dir, { names })),
    async wishLeft(intent) {
      const wish = intent?.schema ?? null;
      if (wish === null || intent === null || database === null) return null;
      if (wish.kind === 'take-back') return stillApplied(wish, (await ledger())?.seen.applied ?? new Set());
      const undos = await listUndos({ endpoint: await endpoint() });
      return undos.some(({ comment }) => comment.endsWith(markOf(intent.startedAt))) ? null : wish;
    },
    mustHaveRoom: async () => mustHaveRoomForBackup(await access(context.signal), proof),
    async backup({ before, serving, pinned }, signal) {
      const at = await access(signal);
      const reason = `before release ${before}`;
      const { id } = await takeBackup(at, { level: proof, release: serving, reason });
      const removed = await pruneBackups(at.folder, config.backup.keep, new Set([...pinned, id]));
      if (removed.length > 0)
        emit({ type: 'note', level: 'detail', message: `removed older backups: ${removed.join(', ')}` });
      return id;
    },
    async migrate(names, release, signal) {
      if (dir !== null) await migrateForward(await endpoint(), dir, { emit, signal, names, release });
    },
    async takeBack(names, acceptLoss, signal) {
      const { rescued } = await migrateBack(await endpoint(), dir, { names }, { emit, signal, acceptLoss });
      return rescued;
    },
    async restore(id, begun, signal) {
      const at = await access(signal);
      const backup = await findBackup(at.folder, id);
      return (await restoreBackup(at, backup, undefined, markOf(begun))).undo;
    },
  };
}

function stillApplied(
  wish: SchemaWish & { kind: 'take-back' },
  applied: ReadonlySet<string>,
): SchemaWish | null {
  const migrations = wish.migrations.filter((name) => applied.has(name));
  return migrations.length === 0 ? null : { ...wish, migrations };
}

export interface SchemaLook {
  /** null: there is no database of ours. */
  state: SchemaState | null;
  work: SchemaWork;
}

/** @throws MIGRATION_INVALID, DATABASE_UNREACHABLE */
export async function lookAtSchema(database: ProjectDatabase, intent: Intent | null): Promise<SchemaLook> {
  const state = await database.state();
  return { state, work: forwardWork(state, await database.wishLeft(intent)) };
}

/**
 * What a deploy finds to do. A rollback that is still to take something back leaves it to be applied anew.
 * @param ripe contract migrations that nobody misses any more
 */
export function forwardWork(
  state: SchemaState | null,
  wish: SchemaWish | null,
  ripe: readonly string[] = [],
): SchemaWork {
  if (state === null) return { ...noSchemaWork, wish };
  const goes = new Set(wish?.kind === 'take-back' ? wish.migrations : []);
  const wanted = new Set([...state.pending.expand, ...ripe]);
  const pending = state.files.filter(
    ({ name, phase }) => wanted.has(name) || (phase === 'expand' && goes.has(name)),
  );
  const namesOf = (files: typeof pending) => files.map(({ name }) => name);
  const contracts = namesOf(pending.filter(({ phase }) => phase === 'contract'));
  return { pending: namesOf(pending), contracts, isFilled: state.isFilled, wish };
}

/** By it a restore that was done by a process which then died is found again. */
const markOf = (startedAt: string) => ` for the rollback begun ${startedAt}`;
