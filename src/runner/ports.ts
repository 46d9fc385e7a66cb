/**
 * What running a plan needs from the world. The commands wire the real ones; the crash walk wires an in-memory
 * engine and door under the same proxy, record and runner code.
 */
import type { Engine } from '../engine/port.ts';
import type { Players } from '../observe/players.ts';
import type { Reach } from '../proxy/generation.ts';
import type { Release } from '../release/model.ts';

export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Rejects with the signal's reason when it aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** The work, or STEP_TIMED_OUT: a frozen engine must not freeze the operator. */
  bounded<T>(work: Promise<T>, ms: number, what: string): Promise<T>;
}

export interface HttpAnswer {
  status: number;
  body: string;
  /** Value of `x-gameops-served-by`, "" when absent. */
  servedBy: string;
}

/** A failed answer is data here: probing decides nothing. Silence is the time-out of the one who asked. */
type NoAnswer = { ok: false; reason: string; isSilence?: true };
export type Answer = { ok: true; answer: HttpAnswer } | NoAnswer;
export type JoinAnswer = { ok: true; servedBy: string } | NoAnswer;

/**
 * The two ways to the project's Nginx: its private side (loopback publish and a secret header) and its public one.
 * Every call uses a fresh connection, so that it meets the workers that new players would meet.
 */
export interface Door {
  /** Private: path such as /generation or /status. */
  ask(path: string, timeoutMs: number): Promise<Answer>;
  /** Private: HTTP GET to a replica through Nginx, on the way that players' requests will take. */
  askReplica(at: Reach, path: string, timeoutMs: number): Promise<Answer>;
  /** Private: a WebSocket player joins this replica and leaves. */
  joinReplica(at: Reach, token: string, timeoutMs: number): Promise<JoinAnswer>;
  /** Public: as a player would. */
  askPublic(path: string, timeoutMs: number): Promise<Answer>;
  joinPublic(token: string, timeoutMs: number): Promise<JoinAnswer>;
}

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
export interface Schema {
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
export interface Supplies {
  /** Every setting as the container gets it, secrets included. Never printed, never recorded. */
  settings(release: Release): Record<string, string>;
  /** Signed token of a probing player. */
  probeToken(): string;
  /** Files of the web page; null for none (everything goes to the server). */
  page(release: Release): { path: string; content: Uint8Array }[] | null;
}

/** All that running a plan may touch. */
export interface Ports {
  engine: Engine;
  door: Door;
  clock: Clock;
  players: Players;
  schema: Schema;
  supplies: Supplies;
}
