/** What one running verb holds while it works through its plans. The record in it is always the newest written one. */
import type { ProxySettings } from '../proxy/switch.ts';
import type { Journal } from '../record/journal.ts';
import type { ProjectRecord } from '../record/record.ts';
import type { Emit } from '../report/events.ts';
import type { ProbeCounts } from './gate.ts';
import type { Outside, Rescued } from './outside.ts';

/** What Nginx is rendered from beside the routes; fixed for one run. */
export type ProxyBase = Omit<ProxySettings, 'passAll' | 'foreignPage'>;

export interface StepReport {
  kind: string;
  phase: string;
  cause: string;
  ms: number;
  ok: boolean;
}

export interface RunningAct {
  project: string;
  outside: Outside;
  record: ProjectRecord;
  proxy: ProxyBase;
  emit: Emit;
  journal: Journal;
  /** Aborts on Ctrl-C. */
  signal: AbortSignal;
  /** Aborts when the lock is gone. */
  lockLost: AbortSignal;
  interruptedBy: () => 'SIGINT' | 'SIGTERM' | null;
  by: string;
  steps: StepReport[];
  /** Releases whose page this run has seen in the web volume, or put there. */
  pages: Set<number>;
  probes: ProbeCounts;
  /** What this run did to the schema. */
  schema: {
    backup: string | null;
    applied: string[];
    reverted: string[];
    rescued: Rescued[];
    /** Name of the database that a restore has put aside. */
    undo: string | null;
  };
  /** null: nobody could be asked. */
  players: { online: number | null; moved: number | null; closed: number | null; lost: number | null };
}
