/**
 * A running act: what a verb holds while it works through its plans, which settings its replicas get, and what it
 * puts on record about backups and wishes. Promises that `record` is always the newest one written.
 */
import { OpsError } from '../errors.ts';
import type { ProxySettings } from '../proxy/switch.ts';
import { strangeKeys } from '../record/fingerprints.ts';
import type { Journal } from '../record/journal.ts';
import { type ProjectRecord, writeRecord } from '../record/record.ts';
import type { Release, ReleaseStep, SchemaWish } from '../release/model.ts';
import { backedUp } from '../release/position.ts';
import type { Emit } from '../report/events.ts';
import type { ProbeCounts } from './gate.ts';
import type { Outside, Rescued } from './outside.ts';

/** What Nginx is rendered from beside the routes; fixed for one run. */
export type ProxyBase = Omit<ProxySettings, 'passAll' | 'foreignPage'>;

export interface StepReport {
  kind: string;
  phase: string;
  cause: string;
  ms: number;
  ok: boolean;
}

export interface RunningAct {
  project: string;
  outside: Outside;
  record: ProjectRecord;
  proxy: ProxyBase;
  emit: Emit;
  journal: Journal;
  /** Aborts on Ctrl-C. */
  signal: AbortSignal;
  /** Aborts when the lock is gone. */
  lockLost: AbortSignal;
  interruptedBy: () => 'SIGINT' | 'SIGTERM' | null;
  by: string;
  steps: StepReport[];
  /** Releases whose page this run has seen in the web volume, or put there. */
  pages: Set<number>;
  probes: ProbeCounts;
  /** What this run did to the schema. */
  schema: {
    backup: string | null;
    applied: string[];
    reverted: string[];
    rescued: Rescued[];
    /** Name of the database that a restore has put aside. */
    undo: string | null;
  };
  /** null: nobody could be asked. */
  players: { online: number | null; moved: number | null; closed: number | null; lost: number | null };
}

// Its settings -----------------------------------------------------------------------------------------------------

/**
 * Promises that replicas of one fleet never have two secrets, whoever resumes an act and with whatever .env.
 * @returns the settings that the release was opened with; on the way back, whatever settings there are
 * @throws SETTINGS_CHANGED when neither today's .env nor the fleet's files have them
 */
export async function settingsFor(act: RunningAct, release: Release): Promise<Record<string, string>> {
  const { engine, inputs } = act.outside;
  const today = inputs.settings(release);
  const changed = strangeKeys(act.record, release, today);
  if (changed.length === 0) return today;
  const kept = keptSettings(await engine.fleetFiles(act.project, release.id));
  if (kept && strangeKeys(act.record, release, kept).length === 0) {
    const message = `release ${release.id} keeps the settings that it was opened with. Changed since then: ${changed.join(', ')}. The next deploy uses the new ones`;
    act.emit({ type: 'note', level: 'warning', message });
    return kept;
  }
  // Going back is never refused: for players, today's secrets are better than no server.
  const isGoal = act.record.intent?.release === release.id && act.record.intent.stage !== 'condemned';
  if (!isGoal) return kept ?? today;
  throw new OpsError('SETTINGS_CHANGED', {
    message: `Settings changed since release ${release.id} was opened: ${changed.join(', ')}.`,
    next: ['restore the former values in .env, then gameops resume', 'gameops abort, then gameops deploy'],
    facts: { release: release.id, keys: changed },
  });
}

/** The settings that a fleet was started with; null when there are none. */
function keptSettings(files: ReadonlyMap<string, Uint8Array>): Record<string, string> | null {
  const content = files.get('settings.json');
  try {
    return content ? (JSON.parse(Buffer.from(content).toString('utf8')) as Record<string, string>) : null;
  } catch {
    // The file is incomplete: its writer died.
    return null;
  }
}

// Its part of the schema -------------------------------------------------------------------------------------------

/**
 * Backups that a rollback may need: those of the newest releases that served, of the live release, of every later release
 * (migrations of a failed release stay applied, and the next rollback of the schema reverts them) and of the act under way.
 * @param keep number of releases kept for rollback, besides the live one
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

/** Without the lock somebody else may be changing the same schema. */
export const untilLockLost = ({ signal, lockLost }: Pick<RunningAct, 'signal' | 'lockLost'>): AbortSignal =>
  AbortSignal.any([signal, lockLost]);

/** The backup is on record before the first change that it could undo. */
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
 * The last request wins. Changing the wish also resets `startedAt`, because a finished restore is recognised by that time.
 * null: an act whose traffic has moved may end without changing the schema, because the schema fits both releases.
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
    return `the previous database is kept as ${act.schema.undo}`;
  }
  const rescued = await outside.database.takeBack(step.migrations, step.acceptLoss, signal);
  act.schema.reverted.push(...step.migrations);
  act.schema.rescued.push(...rescued);
  return rescued.length === 0 ? '' : `saved as ${rescued.map(({ savedAs }) => savedAs).join(', ')}`;
}
