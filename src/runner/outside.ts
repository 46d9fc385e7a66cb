/**
 * Everything outside of the runner that a plan may touch. The commands bring the real ones; the crash walk brings an in-memory
 * engine and door under the same proxy, record and runner code.
 */

import type { Clock } from '../clock.ts';
import type { Engine } from '../engine/port.ts';
import type { Players } from '../observe/players.ts';
import type { Door } from '../proxy/door.ts';
import type { Release } from '../release/model.ts';

export type { Engine, Players };

/** Values that a way back removed, and the table that keeps them. */
export interface Rescued {
  migration: string;
  table: string;
  /** Empty: the whole table. */
  columns: string[];
  rows: number;
  savedAs: string;
}

/** Does what plans say; what is to be done is read beside it, once per act. */
export interface Database {
  /**
   * A verified backup; older ones beyond those kept go. @returns its id
   * @throws BACKUP_FAILED, BACKUP_DAMAGED, DISK_TOO_FULL, DATABASE_UNREACHABLE
   */
  backup(request: BackupRequest, signal: AbortSignal): Promise<string>;
  /** @param release that brings them: a rollback of it finds them by that. @throws MIGRATION_FAILED, DATABASE_UNREACHABLE */
  migrate(names: readonly string[], release: number, signal: AbortSignal): Promise<void>;
  /** @throws MIGRATION_FAILED, MIGRATION_IRREVERSIBLE, CONFIRMATION_NEEDED, DATABASE_UNREACHABLE */
  takeBack(names: readonly string[], acceptLoss: boolean, signal: AbortSignal): Promise<Rescued[]>;
  /**
   * @param begun when the act began: what tells whether it was done already
   * @returns the database that was put aside. @throws BACKUP_DAMAGED, RESTORE_FAILED, DATABASE_UNREACHABLE
   */
  restore(backup: string, begun: string, signal: AbortSignal): Promise<string>;
}

export interface BackupRequest {
  /** The release whose migrations come after it. */
  before: number;
  /** The one that serves meanwhile. */
  serving: number | null;
  /** Ids that stay, however many there are. */
  pinned: readonly string[];
}

/** What a release gets beside its container: today's secrets, the page, the token its probes join with. */
export interface ReleaseInputs {
  /** Every setting as the container gets it, secrets included. Never printed, never recorded. */
  settings(release: Release): Record<string, string>;
  /** Signed token of a probing player. */
  probeToken(): string;
  /** Files of the web page; null for none (everything goes to the server). */
  page(release: Release): { path: string; content: Uint8Array }[] | null;
}

/** All that running a plan may touch. */
export interface Outside {
  engine: Engine;
  door: Door;
  clock: Clock;
  players: Players;
  database: Database;
  inputs: ReleaseInputs;
}
