/**
 * A finding without its severity, as the rules return it.
 */
import type { RuleId } from './rules.ts';

export interface Place {
  key?: string | null;
  line: number | null;
  column: number | null;
}

export interface Found extends Required<Place> {
  rule: RuleId;
  message: string;
}

export function found(rule: RuleId, { key = null, line, column }: Place, message: string): Found {
  return { rule, key, line, column, message };
}
