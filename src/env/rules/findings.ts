/**
 * What `env check` has to say. A finding names rule, place and key; its message is made of names and numbers of ours,
 * never of a value.
 */
import type { Finding } from '../../report/findings/model.ts';

export type EnvSeverity = 'error' | 'warning';

export interface EnvFinding extends Finding {
  severity: EnvSeverity;
  /** Null where no key is meant. */
  key: string | null;
}

export interface EnvReport {
  /** As it was asked for; "stdin" for what came in there. */
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
 * A key as it may be shown. What stands before "=" is a name nearly always; a line of an unquoted private key or an
 * encoded secret with its padding looks like one, too.
 */
export function shownKey(key: string): string {
  const isName = /^[A-Za-z_][A-Za-z0-9_.-]*$/.test(key) && key.length <= nameMax;
  const isMixed = /[a-z]/.test(key) && /[A-Z]/.test(key) && /\d/.test(key);
  const isRandom = key.length >= 16 && (isMixed || /^[0-9a-f]+$/i.test(key));
  return isName && !isRandom ? key : `(a name of ${key.length} characters)`;
}
