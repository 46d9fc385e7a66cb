/**
 * The journal: what this machine saw while a plan ran, as fsynced JSON lines in the operator's state folder. It is
 * testimony, never truth: nothing reads it back to decide. A full disk here must not stop a deploy.
 */
import { closeSync, fsyncSync, openSync, renameSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { redactedJson } from '../report/redact.ts';
import { megabyte } from '../units.ts';

export interface JournalLine {
  at: string;
  project: string;
  verb: string;
  event: string;
  [fact: string]: unknown;
}

export interface Journal {
  write(event: string, facts: Record<string, unknown>): void;
  close(): void;
}

const bytesMax = 4 * megabyte;

export function openJournal(
  stateDir: string,
  who: { project: string; verb: string; by: string },
  complain: (message: string) => void,
): Journal {
  const path = join(stateDir, 'journal.jsonl');
  let file: number | null = null;
  let complained = false;
  const attempt = (act: () => void) => {
    try {
      act();
    } catch (error) {
      if (!complained) complain(`the journal ${path} can't be written (${(error as Error).message})`);
      complained = true;
    }
  };
  attempt(() => {
    if ((statSync(path, { throwIfNoEntry: false })?.size ?? 0) > bytesMax) renameSync(path, `${path}.1`);
    file = openSync(path, 'a', 0o600);
  });
  return {
    write(event, facts) {
      const line: JournalLine = { at: new Date().toISOString(), ...who, event, ...facts };
      attempt(() => {
        if (file === null) return;
        writeSync(file, `${redactedJson(line)}\n`);
        fsyncSync(file);
      });
    },
    close() {
      if (file !== null) closeSync(file);
      file = null;
    },
  };
}
