/** One thing found about a migration or a schema, in the shape that every check of gameops uses. */
export interface Finding {
  /** "set-not-null" */
  rule: string;
  severity: 'error' | 'warning' | 'info';
  /** As shown; '' when it is about no file. */
  file: string;
  /** From 1. */
  line: number;
  column: number;
  message: string;
  /** What goes wrong, for whom. */
  why?: string;
  /** How to get there safely. */
  rewrite?: string;
}
