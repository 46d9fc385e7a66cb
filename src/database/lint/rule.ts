/** What a rule of lint is: a name, why it matters, and a pure look at one statement. */
import type { Finding } from '../../report/findings/model.ts';
import type { Migration } from '../migrate/files.ts';
import type { Statement } from '../sql/tree.ts';

export interface Hit {
  /** Table it is about; silent when the same file made it. '' when there is none. */
  table?: string;
  /** Other object it is about, silent in the same way. */
  object?: string;
  message: string;
  /** SQL that gets there safely. */
  rewrite: string;
}

export interface Around {
  section: 'up' | 'down';
  phase: Migration['phase'];
  reversible: Migration['reversible'];
  isTransactional: boolean;
  /** An earlier file proved by a valid CHECK that the column has no NULL. */
  isProven(table: string, column: string): boolean;
  /** This file added that constraint NOT VALID. */
  addedNotValid(constraint: string): boolean;
  /** An earlier statement of this section made the column, or its whole table: it holds nothing of players. */
  isMadeHere(table: string, column: string | null): boolean;
  /** Existing table that an earlier statement of this transaction holds an exclusive lock on, or null. */
  lockedBefore: string | null;
}

export interface Rule {
  name: string;
  severity: Finding['severity'];
  why: string;
  /** How bad it is depends on how large the table is. */
  isSized?: true;
  /** Sections it looks at; default: both. */
  section?: 'up' | 'down';
  find(statement: Statement, around: Around): readonly Hit[];
}
