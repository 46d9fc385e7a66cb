/**
 * gameops db restore: the database as it was in a backup, or the one that a restore has put aside. Asks, because what
 * was written since is lost; holds the project's lock from the first change to the last.
 */

import { listBackups } from '../../database/backup/files.ts';
import { backupIdPattern, type Manifest } from '../../database/backup/model.ts';
import {
  findBackup,
  listUndos,
  type Restored,
  restoreBackup,
  restoreUndo,
  type Stage,
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
  const wayAlong = `gameops rollback --restore-backup ${id} takes the players to the release before first; `;
  const lost = [lossText(manifest, loss), ...stranded.map((release) => strandedText(release, wayAlong))];
  await confirmLoss(
    context,
    `This takes ${database} back to ${manifest.takenAt} (${ageOf(manifest.takenAt)} ago). ${lost.join(' ')} The present database is kept under another name.`,
    id,
  );
  const began = performance.now();
  const restored = await locked(context, access, (held) =>
    restoreBackup(held, backup, (stage) => tell(context, stage)),
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
 * A way back to players' data must not end at a server that was not asked about: it is told, not refused, and neither can
 * books that are beyond reading hold up who restores because of that.
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
    const message = `whether a release that runs needs more than is restored is not known: ${error.message}`;
    context.emit({ type: 'note', level: 'warning', message });
    return [];
  }
}

const strandedText = ({ id, migrations }: Release, wayAlong: string) =>
  `Release ${id} runs and needs ${migrations?.needs}, which is not in there: its servers miss what that added, and do not start again. ${wayAlong}gameops deploy brings the schema forward again.`;

/** The one before the last restore, or before the last going back. @throws BACKUP_UNKNOWN */
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
    `What was written since it was ${undo.comment} is not in it.`,
    ...stranded.map((release) => strandedText(release, '')),
  ];
  await confirmLoss(
    context,
    `This puts ${name} in the place of ${database}. ${lost.join(' ')} The present database is kept under another name.`,
    name,
  );
  const began = performance.now();
  const restored = await locked(context, access, (held) =>
    restoreUndo(held, name, (stage) => tell(context, stage)),
  );
  const result = {
    ...{ id: name, ...resultOf(access, restored, began) },
    stranded: stranded.map((release) => release.id),
  };
  return { ok: true, result, text: () => text(access, restored, began, lost) };
}

/** Ctrl-C and a lost lock end it while it may still end; the exchange itself is over before they are seen. */
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

const told: Partial<Record<Stage, string>> = {
  creating: 'making a new database',
  filling: 'restoring into it; players are still on the old one',
  comparing: 'comparing rows and schema with what was dumped',
  swapping: 'exchanging the two',
};

function tell(context: Context, stage: Stage): void {
  const message = told[stage];
  if (message) context.emit({ type: 'note', level: 'info', message });
}

const schemaText = ({ newestMigration }: Manifest) =>
  newestMigration === null
    ? 'The backup knows no migrations; gameops deploy brings the schema forward.'
    : `Its newest migration is ${newestMigration}; gameops deploy brings the schema forward.`;

function dropCommand({ endpoint }: BackupAccess, name: string): string {
  const { accessory, host, port, user } = endpoint;
  return accessory === null
    ? `dropdb -h ${host} -p ${port} -U ${user} ${name}`
    : `docker exec ${accessory} dropdb -U ${user} ${name}`;
}

function resultOf(access: BackupAccess, { undo, ms, sessions }: Restored, began: number): object {
  return {
    ...{ database: access.endpoint.database, undo },
    ...{ goBack: `gameops db restore ${undo}`, drop: dropCommand(access, undo) },
    ...{ restoreMs: Math.round(performance.now() - began), swapMs: ms, sessionsEnded: sessions },
  };
}

function text(access: BackupAccess, restored: Restored, began: number, notes: string[]): string {
  const { undo, ms, sessions } = restored;
  const took = formatMs(performance.now() - began);
  return [
    `${access.endpoint.database} is restored, in ${took}; nobody could connect for ${ms} ms of them, ${sessions} sessions were ended`,
    ...notes.map((note) => `  ${note}`),
    `  go back:  gameops db restore ${undo}`,
    `  drop it:  ${dropCommand(access, undo)}`,
  ].join('\n');
}
