/**
 * Which settings the replicas of a release get. Promises that replicas of one fleet never have two secrets, whoever resumes
 * an act and with whatever .env.
 */
import { OpsError } from '../errors.ts';
import { strangeKeys } from '../record/fingerprints.ts';
import type { Release } from '../release/model.ts';
import type { RunningAct } from './act.ts';

/**
 * @returns the settings that the release was opened with, or for the way back what there is of them
 * @throws SETTINGS_CHANGED when neither today's .env nor the fleet's files have them
 */
export async function settingsFor(act: RunningAct, release: Release): Promise<Record<string, string>> {
  const { engine, inputs } = act.outside;
  const today = inputs.settings(release);
  const changed = strangeKeys(act.record, release, today);
  if (changed.length === 0) return today;
  const kept = keptSettings(await engine.fleetFiles(act.project, release.id));
  if (kept && strangeKeys(act.record, release, kept).length === 0) {
    const message = `release ${release.id} keeps the settings it was opened with; changed since: ${changed.join(', ')}. The next deploy has them`;
    act.emit({ type: 'note', level: 'warning', message });
    return kept;
  }
  // The way back is never held up: players are better off with today's secrets than with nothing.
  const isGoal = act.record.intent?.release === release.id && act.record.intent.stage !== 'condemned';
  if (!isGoal) return kept ?? today;
  throw new OpsError('SETTINGS_CHANGED', {
    message: `Settings changed since release ${release.id} was opened: ${changed.join(', ')}.`,
    next: ['put them back, then gameops resume', 'gameops abort, then gameops deploy'],
    facts: { release: release.id, keys: changed },
  });
}

/** The settings that a fleet was started with; null when there are none. */
function keptSettings(files: ReadonlyMap<string, Uint8Array>): Record<string, string> | null {
  const content = files.get('settings.json');
  try {
    return content ? (JSON.parse(Buffer.from(content).toString('utf8')) as Record<string, string>) : null;
  } catch {
    // Torn: its writer died.
    return null;
  }
}
