/**
 * What one server knows of the bus, as plain data. bus.ts makes it; bus-epoch.ts and bus-tail.ts hold the functions
 * that read and change it.
 */
import type { Redis } from 'ioredis';
import type { Logger } from 'pino';
import type { redisKeys } from '../../contract.ts';
import type { Readiness } from '../readiness.ts';
import type { BusEntry } from './bus-entry.ts';
import type { BareScript } from './bus-scripts.ts';

export interface BusListener {
  /** In the bus' order; every room's offsets rise by one. */
  onEntries: (entries: readonly BusEntry[]) => void;
  /** `epoch`: offsets and sequences begin anew. `missed`: entries were trimmed before this server read them. */
  onBreak: (why: 'epoch' | 'missed') => void;
}

export interface BusState extends BusListener {
  readonly keys: ReturnType<typeof redisKeys>;
  /** The connection for commands, and the one that waits for new entries. */
  readonly commands: Redis;
  readonly tail: Redis;
  readonly claim: BareScript;
  readonly replace: BareScript;
  readonly readiness: Readiness;
  readonly log: Logger;
  /** Names the memory of Redis; '' until Redis was asked. */
  epoch: string;
  /** Redis is connected, and its epoch is the one here. */
  isVerified: boolean;
  /** Newest entry that was read here. */
  lastId: string | null;
  /** Where reading starts while nothing was read yet. */
  beginning: string;
  /** Counts connections: whatever began on an earlier one ends by itself. */
  turn: number;
  /** Wakes those who wait until Redis is up. */
  readonly waiting: Set<() => void>;
}
