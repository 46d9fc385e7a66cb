/** What a rotation is asked, and what it can be asked for: how it looks, what comes next, how that is done. */
import type { RotationStep } from './rules.ts';

export interface RotateOptions {
  what: 'jwt' | 'db';
  plan?: boolean;
  /** How long this call may wait. */
  waitMs?: number;
  /** How long the longest-lived token lives. */
  tokenLifeMs?: number;
  /** The old key goes without waiting. */
  now?: boolean;
  watchMs?: number;
  drainMs?: number;
}

/** What is rotated: how to look, what comes next, how it is done. */
export interface Rotation<P> {
  look(isBegun: boolean): Promise<P>;
  next(at: P): RotationStep | null;
  apply(at: P, step: RotationStep): P;
  /** Repeats safely; what another call has done meanwhile is seen at the next look. */
  perform(step: RotationStep, at: P): Promise<void>;
  /** "key 3fK9xA_z signs" */
  tell(at: P): string;
  facts(at: P): object;
}
