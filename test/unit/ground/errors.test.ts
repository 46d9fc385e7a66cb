/** The catalogue: what a script may match, and what a person is told. */
import { describe, expect, it } from 'vitest';
import { catalogue, exitCode, isOpsError, OpsError } from '../../../src/errors.ts';

describe('errors', () => {
  it('have the exit codes of the contract', () => {
    expect(exitCode).toEqual({
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
    });
  });

  it('end with an exit code of the contract, never with that of success or of a bug', () => {
    const known = new Set<number>(Object.values(exitCode));
    for (const [code, exit] of Object.entries(catalogue))
      expect([code, known.has(exit), exit > 1]).toEqual([code, true, true]);
  });

  it('know their exit code, keep their cause and differ from a bug', () => {
    const cause = new Error('socket hang up');
    const error = new OpsError('ENGINE_UNREACHABLE', {
      message: 'No engine answers.',
      next: ['gameops host setup'],
      cause,
    });
    expect(error).toMatchObject({ exitCode: 4, facts: {}, cause });
    expect(isOpsError(error)).toBe(true);
    expect(isOpsError(error, 'LOCKED')).toBe(false);
    expect(isOpsError(cause)).toBe(false);
  });
});
