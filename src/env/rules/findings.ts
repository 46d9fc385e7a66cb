/**
 * What `env check` reports. A finding names rule, place and key; its message never contains a value, also not a part of
 * one.
 */
import type { Finding } from '../../report/findings/model.ts';

export type EnvSeverity = 'error' | 'warning';

export interface EnvFinding extends Finding {
  severity: EnvSeverity;
  /** Null when it is not about one key. */
  key: string | null;
}

export interface EnvReport {
  /** As the caller named it; "stdin" when the text came from there. */
  file: string;
  findings: EnvFinding[];
  errors: number;
  warnings: number;
}

/** Errors first, then by place. */
export function inOrder(findings: readonly EnvFinding[]): EnvFinding[] {
  const weight = { error: 0, warning: 1 };
  return [...findings].sort(
    (a, b) =>
      weight[a.severity] - weight[b.severity] ||
      (a.line ?? 0) - (b.line ?? 0) ||
      (a.column ?? 0) - (b.column ?? 0) ||
      (a.rule < b.rule ? -1 : a.rule > b.rule ? 1 : 0),
  );
}

export function reportOf(file: string, findings: readonly EnvFinding[]): EnvReport {
  const count = (severity: EnvSeverity) => findings.filter((one) => one.severity === severity).length;
  return { file, findings: inOrder(findings), errors: count('error'), warnings: count('warning') };
}

const nameMax = 48;

/**
 * A key as it may be shown. The text before "=" is nearly always a name, but a line of an unquoted private key and an
 * encoded secret with its padding look like a name, too.
 */
export function shownKey(key: string): string {
  const isName = /^[A-Za-z_][A-Za-z0-9_.-]*$/.test(key) && key.length <= nameMax;
  const isMixed = /[a-z]/.test(key) && /[A-Z]/.test(key) && /\d/.test(key);
  const isRandom = key.length >= 16 && (isMixed || /^[0-9a-f]+$/i.test(key));
  return isName && !isRandom ? key : `(a name of ${key.length} characters)`;
}
