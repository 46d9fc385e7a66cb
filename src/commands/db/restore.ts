/**
 * gameops db restore: brings back the database of a backup, or one that a restore has put aside. Asks first, because
 * everything written since is lost; holds the project's lock from the first change to the last.
 */

import { listBackups } from '../../database/backup/files.ts';
import { backupIdPattern, type Manifest } from '../../database/backup/model.ts';
import {
  findBackup,
  listUndos,
  type Restored,
  type RestoreMoment,
  restoreBackup,
  restoreUndo,
  unknown,
  writesSinceBackup,
} from '../../database/backup/restore.ts';
import type { BackupAccess } from '../../database/backup/take.ts';
import { readLedger } from '../../database/migrate/ledger.ts';
import type { DatabaseEndpoint } from '../../database/server/connection.ts';
import { isOpsError } from '../../errors.ts';
import { type Context, confirmLoss, type Outcome } from '../../operations/context.ts';
import { ageOf, backupResult, lossText } from '../../operations/database/backups.ts';
import { backupAccess, look } from '../../operations/database/database.ts';
import { fleetsNow, isInBackup, strandedBy } from '../../operations/database/stranding.ts';
import { lockImage, withLock } from '../../operations/project.ts';
import type { Release } from '../../release/model.ts';
import { formatMs } from '../../units.ts';

export interface RestoreOptions {
  /** Of a backup, or the name of a database that a restore has put aside. */
  id: string;
}

export async function run(context: Context, { id }: RestoreOptions): Promise<Outcome> {
  const access = await backupAccess(context);
  return backupIdPattern.test(id) ? toBackup(context, access, id) : toUndo(context, access, id);
}

async function toBackup(context: Context, access: BackupAccess, id: string): Promise<Outcome> {
  const backup = await findBackup(access.folder, id);
  const { manifest } = backup;
  const loss = await writesSinceBackup(access, manifest);
  const { database } = access.endpoint;
  const present = () => appliedIn(access.endpoint);
  const stranded = await strandedReleases(context, access, async () =>
    isInBackup(manifest.newestMigration, await present()),
  );
  const wayAlong = `gameops rollback --restore-backup ${id} moves players to an earlier release first; `;
  const lost = [lossText(manifest, loss), ...stranded.map((release) => strandedText(release, wayAlong))];
  await confirmLoss(
    context,
    `This takes ${database} back to ${manifest.takenAt} (${ageOf(manifest.takenAt)} ago). ${lost.join(' ')} The present database is kept under another name.`,
    id,
  );
  const began = performance.now();
  const restored = await locked(context, access, (held) =>
    restoreBackup(held, backup, (moment) => tell(context, moment)),
  );
  const result = {
    ...backupResult(backup),
    ...resultOf(access, restored, began),
    loss: { writes: loss.writes, tables: loss.tables },
    stranded: stranded.map((release) => release.id),
  };
  return { ok: true, result, text: () => text(access, restored, began, [...lost, schemaText(manifest)]) };
}

const appliedIn = async (endpoint: DatabaseEndpoint) =>
  (await look(endpoint, readLedger)).applied.map(({ name }) => name);

/**
 * A restore of players' data must not fail because of a server that it did not ask about: stranded releases are reported,
 * not refused, and a ledger that can't be read does not prevent the restore either.
 */
async function strandedReleases(
  context: Context,
  { engine }: BackupAccess,
  schema: () => Promise<(migration: string) => boolean>,
): Promise<Release[]> {
  try {
    return strandedBy(await schema(), await fleetsNow(context, engine));
  } catch (error) {
    if (!isOpsError(error)) throw error;
    const message = `it is unknown whether a running release needs more than is restored: ${error.message}`;
    context.emit({ type: 'note', level: 'warning', message });
    return [];
  }
}

const strandedText = ({ id, migrations }: Release, wayAlong: string) =>
  `Release ${id} runs and needs ${migrations?.needs}, which the restored database does not have: its servers miss what that migration added, and would not start again. ${wayAlong}gameops deploy applies the migration again.`;

/** Back to the database as it was before the last restore. @throws BACKUP_UNKNOWN */
async function toUndo(context: Context, access: BackupAccess, name: string): Promise<Outcome> {
  const undo = (await listUndos(access)).find((one) => one.name === name);
  if (!undo)
    throw unknown(
      name,
      (await listBackups(access.folder)).map(({ id }) => id),
      access.folder,
    );
  const { database } = access.endpoint;
  const stranded = await strandedReleases(context, access, async () => {
    const applied = await appliedIn({ ...access.endpoint, database: name });
    return (migration) => applied.includes(migration);
  });
  const lost = [
    `Everything written since it was ${undo.comment} is missing in it.`,
    ...stranded.map((release) => strandedText(release, '')),
  ];
  await confirmLoss(
    context,
    `This puts ${name} in the place of ${database}. ${lost.join(' ')} The present database is kept under another name.`,
    name,
  );
  const began = performance.now();
  const restored = await locked(context, access, (held) =>
    restoreUndo(held, name, (moment) => tell(context, moment)),
  );
  const result = {
    id: name,
    ...resultOf(access, restored, began),
    stranded: stranded.map((release) => release.id),
  };
  return { ok: true, result, text: () => text(access, restored, began, lost) };
}

/** Ctrl-C and a lost lock stop it while that is safe; the exchange of the databases is never interrupted. */
async function locked(
  context: Context,
  access: BackupAccess,
  act: (access: BackupAccess) => Promise<Restored>,
): Promise<Restored> {
  const image = (await lockImage(context, await access.engine.observe(context.project))) ?? access.image;
  return withLock(context, image, (lock) =>
    act({ ...access, signal: AbortSignal.any([context.signal, lock.lost]) }),
  );
}

const told: Partial<Record<RestoreMoment, string>> = {
  creating: 'making a new database',
  filling: 'restoring into it; players still use the old one',
  comparing: 'comparing rows and schema with the backup',
  swapping: 'exchanging the two databases',
};

function tell(context: Context, moment: RestoreMoment): void {
  const message = told[moment];
  if (message) context.emit({ type: 'note', level: 'info', message });
}

const schemaText = ({ newestMigration }: Manifest) =>
  newestMigration === null
    ? 'The backup has no migrations; gameops deploy applies them.'
    : `Its newest migration is ${newestMigration}; gameops deploy applies later ones.`;

function dropCommand({ endpoint }: BackupAccess, name: string): string {
  const { accessory, host, port, user } = endpoint;
  return accessory === null
    ? `dropdb -h ${host} -p ${port} -U ${user} ${name}`
    : `docker exec ${accessory} dropdb -U ${user} ${name}`;
}

function resultOf(access: BackupAccess, { undo, ms, connections }: Restored, began: number): object {
  return {
    database: access.endpoint.database,
    undo,
    goBack: `gameops db restore ${undo}`,
    drop: dropCommand(access, undo),
    restoreMs: Math.round(performance.now() - began),
    swapMs: ms,
    sessionsEnded: connections,
  };
}

function text(access: BackupAccess, restored: Restored, began: number, notes: string[]): string {
  const { undo, ms, connections } = restored;
  const took = formatMs(performance.now() - began);
  return [
    `${access.endpoint.database} is restored, in ${took}; no client could connect for ${ms} ms of that time, and ${connections} connections were ended`,
    ...notes.map((note) => `  ${note}`),
    `  go back:  gameops db restore ${undo}`,
    `  drop it:  ${dropCommand(access, undo)}`,
  ].join('\n');
}
