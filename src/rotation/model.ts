/** The options of a rotation, and the interface that each kind of rotation implements: look, next step, perform. */
import type { RotationStep } from './rules.ts';

export interface RotateOptions {
  what: 'jwt' | 'db';
  plan?: boolean;
  /** How long this call may wait. */
  waitMs?: number;
  /** How long the longest-lived token is valid. */
  tokenLifeMs?: number;
  /** Drop the old key without waiting. */
  now?: boolean;
  watchMs?: number;
  drainMs?: number;
}

/** One kind of secret: how to look where its rotation stands, which step comes next, and how that is done. */
export interface Rotation<P> {
  look(isBegun: boolean): Promise<P>;
  next(at: P): RotationStep | null;
  apply(at: P, step: RotationStep): P;
  /** Repeats safely; the next look sees what another call has done meanwhile. */
  perform(step: RotationStep, at: P): Promise<void>;
  /** "key 3fK9xA_z signs" */
  tell(at: P): string;
  facts(at: P): object;
}
