/**
 * One vocabulary of events, three sinks: the terminal, JSON lines on stderr, the journal.
 * Emitters know nothing of colour or columns; sinks decide nothing.
 */
import type { Plan, Step } from '../release/model.ts';

export type Event =
  /** Work that is not a step of a plan: images, host set-up. */
  | { type: 'note'; level: 'info' | 'warning' | 'detail'; message: string }
  | {
      type: 'progress';
      label: string;
      done: number;
      total: number | null;
      unit: string;
      /** The parts of `total`, in words and counts. */
      parts?: Record<string, number>;
    }
  | { type: 'plan'; plan: Plan; heading: string }
  | { type: 'step-started'; index: number; of: number; step: Step }
  | { type: 'step-done'; index: number; of: number; step: Step; ms: number; detail?: string }
  | { type: 'step-failed'; index: number; of: number; step: Step; ms: number; code: string; message: string }
  | { type: 'interrupted'; signal: string };

export type Emit = (event: Event) => void;
