/**
 * The error catalogue. Every failure that a person meets is an OpsError with a code of this table;
 * docs/errors.md explains each one (a test compares the two). Match codes, never text.
 * Anything else that is thrown is a bug and exits 1.
 */

export const exitCode = {
  done: 0,
  bug: 1,
  usage: 2,
  config: 3,
  unreachable: 4,
  rolledBack: 5,
  needsHands: 6,
  baseline: 7,
  locked: 8,
  migration: 9,
  certificate: 10,
  interrupted: 130,
  terminated: 143,
} as const;

/** code → exit code. */
export const catalogue = {
  USAGE: exitCode.usage,
  RELEASE_UNKNOWN: exitCode.usage,
  NOTHING_TO_ROLL_BACK_TO: exitCode.usage,
  CONFIRMATION_NEEDED: exitCode.usage,
  MIGRATION_UNKNOWN: exitCode.usage,
  NO_MIGRATIONS: exitCode.usage,
  BACKUP_UNKNOWN: exitCode.usage,

  CONFIG_INVALID: exitCode.config,
  ENV_INVALID: exitCode.config,
  ENV_MISSING: exitCode.config,
  TEMPLATE_INVALID: exitCode.config,
  SETTINGS_CHANGED: exitCode.config,
  PORT_TAKEN: exitCode.config,
  FOREIGN_CONTAINER: exitCode.config,
  FORMAT_TOO_NEW: exitCode.config,
  DB_HOST_LOOPBACK: exitCode.config,
  NO_DATABASE: exitCode.config,
  ROTATION_REFUSED: exitCode.config,

  ENV_UNREADABLE: exitCode.unreachable,
  ENGINE_UNREACHABLE: exitCode.unreachable,
  ENGINE_FAILED: exitCode.unreachable,
  ENGINE_NOT_INSTALLABLE: exitCode.unreachable,
  ENGINE_REMOTE: exitCode.unreachable,
  REGISTRY_UNREACHABLE: exitCode.unreachable,
  REGISTRY_DENIED: exitCode.unreachable,
  IMAGE_NOT_FOUND: exitCode.unreachable,
  IMAGE_BUILD_FAILED: exitCode.unreachable,
  DISK_TOO_FULL: exitCode.rolledBack,
  MEMORY_TOO_SMALL: exitCode.rolledBack,
  NO_FREE_SUBNET: exitCode.unreachable,
  ACCESSORY_NOT_READY: exitCode.unreachable,
  DATABASE_UNREACHABLE: exitCode.unreachable,
  REDIS_UNREACHABLE: exitCode.unreachable,
  PROXY_NOT_READY: exitCode.unreachable,
  GAME_UNREACHABLE: exitCode.unreachable,

  REPLICA_EXITED: exitCode.rolledBack,
  FLEET_NOT_READY: exitCode.rolledBack,
  JOIN_REFUSED: exitCode.rolledBack,
  PROXY_CONFIG_REJECTED: exitCode.rolledBack,
  SWITCH_NOT_PROVEN: exitCode.rolledBack,
  WATCH_FAILED: exitCode.rolledBack,
  STEP_TIMED_OUT: exitCode.rolledBack,
  ROLLED_BACK: exitCode.rolledBack,
  BACKUP_FAILED: exitCode.rolledBack,
  BACKUP_DAMAGED: exitCode.rolledBack,
  RESTORE_FAILED: exitCode.rolledBack,

  UNFINISHED: exitCode.needsHands,
  REMEDY_FAILED: exitCode.needsHands,
  NOT_CONVERGED: exitCode.needsHands,
  PAST_NO_RETURN: exitCode.needsHands,
  ROTATION_UNFINISHED: exitCode.needsHands,

  LOCKED: exitCode.locked,
  LOCK_LOST: exitCode.needsHands,
  RECORD_UNREADABLE: exitCode.needsHands,
  MIGRATION_FAILED: exitCode.migration,
  MIGRATION_INVALID: exitCode.migration,
  MIGRATION_BUSY: exitCode.migration,
  MIGRATION_IRREVERSIBLE: exitCode.migration,
  IMAGE_TOO_OLD: exitCode.migration,
  SCHEMA_TOO_OLD: exitCode.migration,
  RELEASE_NEEDS_SCHEMA: exitCode.migration,
  MIGRATION_UNSAFE: exitCode.migration,
  MIGRATION_NOT_PROVEN: exitCode.migration,
  BASELINE_DIFFERS: exitCode.migration,
  REHEARSAL_FAILED: exitCode.migration,
  INTERRUPTED: exitCode.interrupted,
  TERMINATED: exitCode.terminated,
} as const satisfies Record<string, number>;

export type ErrorCode = keyof typeof catalogue;

/** Facts are shown to people and machines unchanged: never a secret, never a whole environment. */
export type Facts = Record<string, string | number | boolean | null | readonly string[]>;

/**
 * On errors of every copy of the class below. The verbs of .env are a program of their own, and load the reader of gameops.yaml
 * from the other program, with the class that is there.
 */
const brand = Symbol.for('gameops.OpsError');

export class OpsError extends Error {
  static override [Symbol.hasInstance](error: unknown): error is OpsError {
    return typeof error === 'object' && error !== null && brand in error;
  }

  readonly code: ErrorCode;
  /** Commands or actions that help, the best one first. Required: an error must say what to do next. */
  readonly next: readonly [string, ...string[]];
  readonly facts: Facts;
  /**
   * What was done before the failure, in the shape of the verb's result: part of the JSON envelope beside the error.
   */
  readonly result: object | undefined;

  constructor(
    code: ErrorCode,
    fields: {
      message: string;
      next: readonly [string, ...string[]];
      facts?: Facts;
      cause?: unknown;
      result?: object | undefined;
    },
  ) {
    super(fields.message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.name = 'OpsError';
    this.code = code;
    this.next = fields.next;
    this.facts = fields.facts ?? {};
    this.result = fields.result;
  }

  get [brand](): true {
    return true;
  }

  get exitCode(): number {
    return catalogue[this.code];
  }
}

export function isOpsError(error: unknown, ...codes: ErrorCode[]): error is OpsError {
  return error instanceof OpsError && (codes.length === 0 || codes.includes(error.code));
}
