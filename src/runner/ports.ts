/**
 * What running a plan needs from the world. The commands wire the real ones; the crash walk wires an in-memory
 * engine and door under the same proxy, record and runner code.
 */
import type { Engine } from '../engine/port.ts';

export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export interface HttpAnswer {
  status: number;
  body: string;
  /** Value of `x-gameops-served-by`, "" when absent. */
  servedBy: string;
}

/** A failed answer is data here: probing decides nothing. */
export type Answer = { ok: true; answer: HttpAnswer } | { ok: false; reason: string };
export type JoinAnswer = { ok: true; servedBy: string } | { ok: false; reason: string };

/**
 * The two ways to the project's Nginx: its private side (loopback publish and a secret header) and its public one.
 * Every call uses a fresh connection, so that it meets the workers that new players would meet.
 */
export interface Door {
  /** Private: path such as /generation or /status. */
  ask(path: string, timeoutMs: number): Promise<Answer>;
  /** Private: HTTP GET to a replica's address through Nginx. */
  askReplica(address: string, port: number, path: string, timeoutMs: number): Promise<Answer>;
  /** Private: a WebSocket player joins this replica and leaves. */
  joinReplica(address: string, port: number, token: string, timeoutMs: number): Promise<JoinAnswer>;
  /** Public: as a player would. */
  askPublic(path: string, timeoutMs: number): Promise<Answer>;
  joinPublic(token: string, timeoutMs: number): Promise<JoinAnswer>;
}

export type { Engine };
