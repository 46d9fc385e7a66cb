/**
 * Output for machines: one envelope on stdout, one event a line on stderr. docs/json.md describes the shapes.
 * No known secret leaves through it.
 */
import type { OpsError } from '../errors.ts';
import type { Emit } from './events.ts';
import { redactedJson } from './redact.ts';

const schemaName = 'gameops/v1';

export function successEnvelope(command: string, result: object): string {
  return redactedJson({ schema: schemaName, command, ok: true, result });
}

export interface ReportedError {
  code: string;
  message: string;
  next: readonly string[];
  facts: OpsError['facts'];
}

export function failureEnvelope(command: string, error: ReportedError, result: object | undefined): string {
  const { code, message, next, facts } = error;
  return redactedJson({
    schema: schemaName,
    command,
    ok: false,
    error: { code, message, next, facts },
    ...(result && { result }),
  });
}

/** One event a line. */
export function jsonSink(write: (line: string) => void): Emit {
  return (event) => write(`${redactedJson({ at: new Date().toISOString(), ...event })}\n`);
}
