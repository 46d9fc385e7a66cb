/**
 * The machine's view: one envelope on stdout, one event a line on stderr. The shapes are CLI.md's contract.
 */
import type { OpsError } from '../errors.ts';
import type { Emit } from './events.ts';
import { redact } from './redact.ts';

export const schemaName = 'gameops/v1';

export function successEnvelope(command: string, result: object): string {
  return JSON.stringify({ schema: schemaName, command, ok: true, result });
}

export interface ReportedError {
  code: string;
  message: string;
  next: readonly string[];
  facts: OpsError['facts'];
}

export function failureEnvelope(command: string, error: ReportedError, result: object | undefined): string {
  const clean = {
    code: error.code,
    message: redact(error.message),
    next: error.next.map(redact),
    facts: JSON.parse(redact(JSON.stringify(error.facts))),
  };
  return JSON.stringify({ schema: schemaName, command, ok: false, error: clean, ...(result && { result }) });
}

/** One event a line. */
export function jsonSink(write: (line: string) => void): Emit {
  return (event) => write(`${JSON.stringify({ at: new Date().toISOString(), ...event })}\n`);
}
