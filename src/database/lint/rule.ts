/** A rule of lint: its name, why it matters, and a pure function that looks at one statement. */
import type { Finding } from '../../report/findings/model.ts';
import type { Migration } from '../migrate/files.ts';
import type { Statement } from '../sql/tree.ts';

export interface Hit {
  /** The table in question, '' when there is none. Not reported when the same file makes it. */
  table?: string;
  /** Another object in question. Not reported when the same file makes it. */
  object?: string;
  message: string;
  /** SQL that reaches the same safely. */
  rewrite: string;
}

export interface Around {
  section: 'up' | 'down';
  phase: Migration['phase'];
  reversible: Migration['reversible'];
  isTransactional: boolean;
  /** Whether an earlier file proved with a valid CHECK that the column has no NULL. */
  isProven(table: string, column: string): boolean;
  /** Whether this file added the constraint NOT VALID. */
  addedNotValid(constraint: string): boolean;
  /** Whether an earlier statement of this section made the column or its table: then it holds no players' data. */
  isMadeHere(table: string, column: string | null): boolean;
  /** Existing table that an earlier statement of this transaction holds an exclusive lock on, or null. */
  lockedBefore: string | null;
}

export interface Rule {
  name: string;
  severity: Finding['severity'];
  why: string;
  /** Whether its severity depends on the size of the table. */
  isSized?: true;
  /** The section that it looks at; default: both. */
  section?: 'up' | 'down';
  find(statement: Statement, around: Around): readonly Hit[];
}
