/** Rules about constraints: how to add one without making players wait while Postgres checks every row. */

import { addedColumns, addedConstraints, commandsOf, constraintsOf, tableOf } from '../sql/tree.ts';
import type { Rule } from './rule.ts';

export const constraintRules: readonly Rule[] = [
  {
    name: 'set-not-null',
    severity: 'error',
    isSized: true,
    why: 'It reads the whole table under an exclusive lock, unless a valid CHECK already proves that there is no NULL.',
    find: (statement, { isProven }) =>
      commandsOf(statement)
        .filter(
          ({ subtype, name }) =>
            subtype === 'AT_SetNotNull' && !isProven(tableOf(statement.node.relation), name),
        )
        .map(({ name }) => {
          const table = tableOf(statement.node.relation);
          return {
            table,
            message: `sets ${table}.${name} NOT NULL with a full scan`,
            rewrite: `ALTER TABLE ${table} ADD CONSTRAINT ${name}_set CHECK (${name} IS NOT NULL) NOT VALID;\n-- in a second migration: ALTER TABLE ${table} VALIDATE CONSTRAINT ${name}_set;\n-- in a third: ALTER TABLE ${table} ALTER ${name} SET NOT NULL; ALTER TABLE ${table} DROP CONSTRAINT ${name}_set;`,
          };
        }),
  },
  {
    name: 'check-not-valid',
    severity: 'error',
    isSized: true,
    why: 'It reads the whole table under an exclusive lock.',
    find: (statement) =>
      addedConstraints(statement, ['CONSTR_CHECK', 'CONSTR_NOTNULL'])
        .filter(({ skip_validation }) => !skip_validation)
        .map((one) => validLater(tableOf(statement.node.relation), one, 'a check')),
  },
  {
    name: 'foreign-key-not-valid',
    severity: 'error',
    isSized: true,
    why: 'It reads the whole table while writers of both tables wait.',
    find: (statement) =>
      addedConstraints(statement, ['CONSTR_FOREIGN'])
        .filter(({ skip_validation }) => !skip_validation)
        .map((one) => validLater(tableOf(statement.node.relation), one, 'a foreign key')),
  },
  {
    name: 'validate-in-same-transaction',
    severity: 'error',
    isSized: true,
    why: 'The lock of ADD CONSTRAINT is held until the end of the transaction, so the long validation runs under it.',
    find: (statement, { addedNotValid, isTransactional }) =>
      commandsOf(statement)
        .filter(
          ({ subtype, name }) =>
            subtype === 'AT_ValidateConstraint' && isTransactional && addedNotValid(name),
        )
        .map(({ name }) => ({
          table: tableOf(statement.node.relation),
          message: `validates ${name} in the transaction that added it`,
          rewrite: `-- in a separate migration:\nALTER TABLE ${tableOf(statement.node.relation)} VALIDATE CONSTRAINT ${name};`,
        })),
  },
  {
    name: 'unique-without-index',
    severity: 'error',
    isSized: true,
    why: 'Its index is built under an exclusive lock, so reads and writes wait.',
    find: (statement) => {
      const table = tableOf(statement.node.relation);
      const named = addedConstraints(statement, ['CONSTR_UNIQUE', 'CONSTR_PRIMARY']).filter(
        ({ indexname }) => !indexname,
      );
      const inline = addedColumns(statement).flatMap(({ column }) =>
        constraintsOf(column).filter(({ contype }) => ['CONSTR_UNIQUE', 'CONSTR_PRIMARY'].includes(contype)),
      );
      return [...named, ...inline].map((one) => ({
        table,
        message: `adds a ${one.contype === 'CONSTR_PRIMARY' ? 'primary key' : 'unique constraint'} to ${table} with its index`,
        rewrite: `-- gameops: transaction=off, in a separate migration:\nCREATE UNIQUE INDEX CONCURRENTLY ${one.conname ?? `${table}_once`} ON ${table} (…);\n-- then: ALTER TABLE ${table} ADD CONSTRAINT … USING INDEX …;`,
      }));
    },
  },
  {
    name: 'exclude-constraint',
    severity: 'error',
    isSized: true,
    why: 'Its index is built under an exclusive lock, and Postgres has no concurrent way to build it.',
    find: (statement) =>
      addedConstraints(statement, ['CONSTR_EXCLUSION']).map(() => ({
        table: tableOf(statement.node.relation),
        message: `adds an exclusion constraint to ${tableOf(statement.node.relation)}`,
        rewrite: '-- add it to a new table that takes over, or while the table is small',
      })),
  },
];

function validLater(table: string, { conname }: { conname?: string }, what: string) {
  return {
    table,
    message: `adds ${what} to ${table} and checks every row at once`,
    rewrite: `ALTER TABLE ${table} ADD CONSTRAINT ${conname ?? '…'} … NOT VALID;\n-- in a second migration: ALTER TABLE ${table} VALIDATE CONSTRAINT ${conname ?? '…'};`,
  };
}
