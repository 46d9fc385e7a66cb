/** The schema's part of an act: what goes on record with it, and which backups must stay. */

import { type ProjectRecord, writeRecord } from '../record/record.ts';
import type { Release, ReleaseStep, SchemaWish } from '../release/model.ts';
import { backedUp } from '../release/position.ts';
import type { RunningAct } from './act.ts';

/**
 * Backups that a way back may need: those of the newest that served, of the live one, of every later one (migrations of
 * a release that failed stay applied, and go with the next way back) and of the act under way.
 * @param keep releases kept for rollback, besides the live one
 */
export function pinnedBackups(
  { releases, intent }: Pick<ProjectRecord, 'releases' | 'intent'>,
  keep: number,
) {
  const hasServed = ({ verdict }: Release) => ['live', 'superseded', 'rolled-back'].includes(verdict);
  const newest = releases.filter(hasServed).sort((a, b) => b.id - a.id);
  const kept = [...newest.slice(0, keep + 1), ...newest.filter(({ verdict }) => verdict === 'live')];
  const oldest = Math.min(...kept.map(({ id }) => id));
  const pinned = releases.filter(({ id }) => id >= oldest || id === intent?.release);
  return [...new Set(pinned.flatMap(({ backup }) => backup ?? []))];
}

/** Without the lock somebody else may be at the same schema. */
export const untilLockLost = ({ signal, lockLost }: Pick<RunningAct, 'signal' | 'lockLost'>): AbortSignal =>
  AbortSignal.any([signal, lockLost]);

/** On record before anything is changed that it could bring back. */
export async function takeBackup(act: RunningAct, step: ReleaseStep & { kind: 'backup' }): Promise<string> {
  const { record, outside } = act;
  const pinned = pinnedBackups(record, record.intent?.keep ?? 1);
  const serving = record.releases.find(({ verdict }) => verdict === 'live')?.id ?? null;
  const request = { before: step.release, serving, pinned };
  const id = await outside.database.backup(request, untilLockLost(act));
  act.schema.backup = id;
  const releases = backedUp(record.releases, step.release, id);
  act.record = await writeRecord(outside.engine, record, { releases });
  return id;
}

/**
 * What was asked last counts. With another wish the act begins anew: by when it began a restore that is done is known.
 * null: an act whose traffic has moved may end without the rest, for the schema fits both sides, or it would not have begun.
 */
export async function setWish(act: RunningAct, wish: SchemaWish | null): Promise<void> {
  const { record, outside } = act;
  const begun = wish === null ? {} : { startedAt: new Date(outside.clock.now()).toISOString() };
  const intent = record.intent && { ...record.intent, schema: wish, ...begun };
  act.record = await writeRecord(outside.engine, record, { intent });
}

export async function takeSchemaBack(
  act: RunningAct,
  step: ReleaseStep & { kind: 'take-back' | 'restore' },
): Promise<string> {
  const { outside } = act;
  const signal = untilLockLost(act);
  if (step.kind === 'restore') {
    act.schema.undo = await outside.database.restore(step.backup, act.record.intent?.startedAt ?? '', signal);
    return `the one before is kept as ${act.schema.undo}`;
  }
  const rescued = await outside.database.takeBack(step.migrations, step.acceptLoss, signal);
  act.schema.reverted.push(...step.migrations);
  act.schema.rescued.push(...rescued);
  return rescued.length === 0 ? '' : `saved as ${rescued.map(({ savedAs }) => savedAs).join(', ')}`;
}
