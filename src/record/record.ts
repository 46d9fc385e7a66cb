/**
 * The record: what must be shared between operators and can change. It lives in a volume on the engine, so that every
 * machine that reaches the engine reads the same one.
 *
 * putArchive neither renames nor fsyncs, so a file is never overwritten in place of the newest: a ring of slots holds
 * the last revisions, each with its own checksum, and the highest complete one counts. A torn write costs nothing.
 * Written only under the project's lock.
 */
import { createHash, randomBytes } from 'node:crypto';
import { z } from 'zod';
import { formatVersion, namesOf } from '../contract.ts';
import type { Engine } from '../engine/port.ts';
import { OpsError } from '../errors.ts';
import type { Intent, Release } from '../release/model.ts';

export interface HistoryEntry {
  at: string;
  by: string;
  verb: string;
  strategy: string;
  release: number;
  previous: number | null;
  outcome: 'done' | 'rolled back' | 'given up';
  reason: string | null;
  ms: number;
}

export interface ProjectRecord {
  format: number;
  /** Rises by one with every write. */
  revision: number;
  project: string;
  /** Opens Nginx's private side. */
  doorToken: string;
  /** Key of the settings fingerprints. */
  fingerprintKey: string;
  /** Host ports chosen once; the private one belongs to the loopback. */
  ports: { http: number; tls: number; private: number } | null;
  releases: Release[];
  intent: Intent | null;
  history: HistoryEntry[];
  /** The key that alone signs tokens, by its fingerprint; since when, and which release was live then. */
  soleKey?: { fingerprint: string; since: string; release: number };
}

const slots = 8;
const kept = { releases: 60, history: 300 };

/** Enough to refuse what is no record. Everything else in it is written by this file alone. */
const envelope = z.object({
  sha256: z.string(),
  record: z.looseObject({ format: z.int(), revision: z.int(), project: z.string() }),
});

export function newRecord(project: string): ProjectRecord {
  return {
    format: formatVersion,
    revision: 0,
    project,
    doorToken: randomBytes(24).toString('base64url'),
    fingerprintKey: randomBytes(32).toString('base64url'),
    ports: null,
    releases: [],
    intent: null,
    history: [],
  };
}

/** @returns null when the project has no record yet. @throws FORMAT_TOO_NEW, RECORD_UNREADABLE */
export async function readRecord(engine: Engine, project: string): Promise<ProjectRecord | null> {
  const files = await engine.readFiles(project, namesOf(project).volume.record, '');
  const complete = [...files.values()].map(parseSlot).filter((record) => record !== null);
  const newest = complete.sort((a, b) => b.revision - a.revision)[0];
  // A single torn slot is a first write that never ended, so nothing was deployed. Several torn ones are a loss.
  if (!newest && files.size > 1) throw unreadable(project, files.size);
  // The record is made before anything else, so something that serves without one had a record, which is lost.
  if (!newest && (await isDeployed(engine, project))) throw unreadable(project, 0);
  if (!newest) return null;
  if (newest.format > formatVersion) {
    throw new OpsError('FORMAT_TOO_NEW', {
      message: `Project ${project} was last changed by a newer gameops (format ${newest.format}, this one knows ${formatVersion}). Nothing was changed; players are where they were.`,
      next: ['upgrade gameops on this machine'],
      facts: { project, format: newest.format, known: formatVersion },
    });
  }
  return withLaterFields(newest);
}

/** Fields that a record may lack because an older gameops wrote it, and what their absence means. */
const laterFields = {
  release: { migrations: null, backup: null, unixSocket: false, proxy: null },
  intent: { skipMigrations: false, schema: null },
};

function withLaterFields(record: ProjectRecord): ProjectRecord {
  return {
    ...record,
    releases: record.releases.map((release) => ({ ...laterFields.release, ...release })),
    intent: record.intent && { ...laterFields.intent, ...record.intent },
  };
}

/** @returns the record as written, with its new revision. */
export async function writeRecord(
  engine: Engine,
  record: ProjectRecord,
  change: Partial<Omit<ProjectRecord, 'format' | 'revision' | 'project'>>,
): Promise<ProjectRecord> {
  const merged: ProjectRecord = { ...record, ...change, revision: record.revision + 1 };
  const next = {
    ...merged,
    releases: trimmed(merged),
    history: merged.history.slice(-kept.history),
  };
  const path = `record-${next.revision % slots}.json`;
  const content = JSON.stringify({ sha256: checksum(next), record: next });
  await engine.putFiles(next.project, namesOf(next.project).volume.record, [{ path, content, mode: 0o600 }]);
  return next;
}

async function isDeployed(engine: Engine, project: string): Promise<boolean> {
  return (await engine.observe(project)).some(({ role }) => role === 'proxy' || role === 'game');
}

function unreadable(project: string, slotsThere: number): OpsError {
  const volume = namesOf(project).volume.record;
  const what =
    slotsThere === 0
      ? `Project ${project} is deployed, but its record in volume ${volume} is gone`
      : `None of the ${slotsThere} revisions of the record in volume ${volume} can be read`;
  return new OpsError('RECORD_UNREADABLE', {
    message: `${what}, so it is not known which release is live. Nothing was changed; players are where they were.`,
    next: [
      `restore the volume ${volume} from a backup`,
      `or start over, which keeps the data but disconnects players for a moment: gameops down, docker volume rm ${volume}, gameops deploy`,
    ],
    facts: { project, volume, slots: slotsThere },
  });
}

/** Forgets the oldest releases, first those that never served; never the live one, nor those of the act under way. */
function trimmed({ releases, intent }: ProjectRecord): Release[] {
  const pinned = new Set([intent?.release, intent?.previous]);
  const isPinned = (release: Release) => release.verdict === 'live' || pinned.has(release.id);
  const worth = ({ verdict }: Release) => (verdict === 'failed' || verdict === 'abandoned' ? 0 : 1);
  const expendable = releases
    .filter((release) => !isPinned(release))
    .sort((a, b) => worth(a) - worth(b) || a.id - b.id)
    .slice(0, Math.max(0, releases.length - kept.releases));
  return releases.filter((release) => !expendable.includes(release));
}

function parseSlot(content: Uint8Array): ProjectRecord | null {
  try {
    const parsed = envelope.safeParse(JSON.parse(Buffer.from(content).toString('utf8')));
    if (!parsed.success) return null;
    const record = parsed.data.record as unknown as ProjectRecord;
    // A newer gameops may write another shape: enough to know that it did.
    if (record.format > formatVersion) return record;
    return checksum(record) === parsed.data.sha256 ? record : null;
  } catch {
    // A torn write: an older slot is complete.
    return null;
  }
}

const checksum = (record: object) => createHash('sha256').update(JSON.stringify(record)).digest('hex');
