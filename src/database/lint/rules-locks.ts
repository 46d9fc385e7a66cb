/** Rules about locks and long work: what stalls players while it runs. The server keeps every promise but their patience. */

import { callsIn, commandsOf, constraintsOf, hasOption, objectName, tableOf, typeName } from '../sql/tree.ts';
import type { Rule } from './rule.ts';

/** Not volatile: one value for all rows, so Postgres keeps it in the catalogue and rewrites nothing. */
const steadyCalls = new Set(
  `now transaction_timestamp statement_timestamp current_setting current_database lower upper md5 concat coalesce
   jsonb_build_object jsonb_build_array json_build_object json_build_array array_fill make_interval make_date to_timestamp
   date_trunc int4range numrange tsrange tstzrange daterange`.split(/\s+/),
);

export const lockRules: readonly Rule[] = [
  {
    name: 'index-not-concurrent',
    severity: 'error',
    isSized: true,
    why: 'Every write to the table waits until the index is built.',
    find: ({ kind, node, text }) =>
      kind === 'IndexStmt' && !node.concurrent
        ? [
            {
              table: tableOf(node.relation),
              message: `builds an index on ${tableOf(node.relation)} while writers wait`,
              rewrite: `-- gameops: transaction=off\n${text.replace(/\bindex\b/i, 'INDEX CONCURRENTLY')};`,
            },
          ]
        : [],
  },
  {
    name: 'drop-index-not-concurrent',
    severity: 'warning',
    why: 'It waits for every running query on the table, and all later ones, reads too, wait behind it.',
    find: ({ kind, node }) =>
      kind === 'DropStmt' && node.removeType === 'OBJECT_INDEX' && !node.concurrent
        ? [
            {
              object: objectName(node.objects[0]),
              message: `drops the index ${objectName(node.objects[0])} with an exclusive lock on its table`,
              rewrite: `-- gameops: transaction=off\nDROP INDEX CONCURRENTLY ${objectName(node.objects[0])};`,
            },
          ]
        : [],
  },
  {
    name: 'reindex-not-concurrent',
    severity: 'error',
    isSized: true,
    why: 'Writers wait for all of it, readers that would use the index, too.',
    find: ({ kind, node, text }) =>
      kind === 'ReindexStmt' && !hasOption(node.params, 'concurrently')
        ? [
            {
              table: node.kind === 'REINDEX_OBJECT_TABLE' ? tableOf(node.relation) : '',
              message: 'rebuilds indexes while writers wait',
              rewrite: `-- gameops: transaction=off\n${text.replace(/\b(table|index|schema)\b/i, '$1 CONCURRENTLY')};`,
            },
          ]
        : [],
  },
  {
    name: 'detach-not-concurrent',
    severity: 'error',
    why: 'It locks the whole partitioned table against reads and writes.',
    find: (statement) =>
      commandsOf(statement)
        .filter(({ subtype, def }) => subtype === 'AT_DetachPartition' && !def?.PartitionCmd?.concurrent)
        .map(({ def }) => ({
          table: tableOf(statement.node.relation),
          message: `detaches ${tableOf(def?.PartitionCmd?.name)} with an exclusive lock`,
          rewrite: `-- gameops: transaction=off\nALTER TABLE ${tableOf(statement.node.relation)} DETACH PARTITION ${tableOf(def?.PartitionCmd?.name)} CONCURRENTLY;`,
        })),
  },
  {
    name: 'volatile-default',
    severity: 'error',
    isSized: true,
    why: 'A default that differs from row to row rewrites the table under an exclusive lock: nobody reads or writes.',
    find: (statement) =>
      addedColumns(statement).flatMap(({ column, table }) => {
        const initial = constraintsOf(column).find(({ contype }) => contype === 'CONSTR_DEFAULT');
        const call = callsIn(initial?.raw_expr).find((name) => !steadyCalls.has(name));
        if (!call) return [];
        return {
          table,
          message: `adds ${table}.${column.colname} with a default that calls ${call}()`,
          rewrite: `ALTER TABLE ${table} ADD COLUMN ${column.colname} …;\nALTER TABLE ${table} ALTER ${column.colname} SET DEFAULT ${call}();\n-- then fill old rows in batches, in a migration of its own`,
        };
      }),
  },
  {
    name: 'add-serial',
    severity: 'error',
    isSized: true,
    why: 'Every row gets its number at once: the table is rewritten under an exclusive lock.',
    find: (statement) =>
      addedColumns(statement)
        .filter(
          ({ column }) =>
            /^(small|big)?serial[248]?$/.test(typeName(column)) ||
            constraintsOf(column).some(({ contype }) => contype === 'CONSTR_IDENTITY'),
        )
        .map(({ column, table }) => ({
          table,
          message: `adds ${table}.${column.colname}, numbered for every row`,
          rewrite: `CREATE SEQUENCE ${column.colname}_seq;\nALTER TABLE ${table} ADD COLUMN ${column.colname} bigint;\nALTER TABLE ${table} ALTER ${column.colname} SET DEFAULT nextval('${column.colname}_seq');\n-- then number old rows in batches`,
        })),
  },
  {
    name: 'add-stored-generated',
    severity: 'error',
    isSized: true,
    why: 'The value of every row is computed and stored at once: the table is rewritten under an exclusive lock.',
    find: (statement) =>
      addedColumns(statement)
        .filter(({ column }) =>
          constraintsOf(column).some(
            (one) => one.contype === 'CONSTR_GENERATED' && one.generated_kind === 's',
          ),
        )
        .map(({ column, table }) => ({
          table,
          message: `adds the stored generated column ${table}.${column.colname}`,
          rewrite: `-- a plain column that the server fills, with old rows filled in batches; or VIRTUAL on Postgres 18`,
        })),
  },
  {
    name: 'column-type-change',
    severity: 'error',
    isSized: true,
    why: 'Most changes of a type rewrite the table under an exclusive lock, and the release before still expects the old type.',
    find: (statement) =>
      commandsOf(statement)
        .filter(({ subtype }) => subtype === 'AT_AlterColumnType')
        .map(({ name }) => ({
          table: tableOf(statement.node.relation),
          message: `changes the type of ${tableOf(statement.node.relation)}.${name}`,
          rewrite: `ALTER TABLE ${tableOf(statement.node.relation)} ADD COLUMN ${name}_new …;\n-- write both, fill old rows in batches, read the new one, drop the old one in a contract migration`,
        })),
  },
  {
    name: 'set-not-null',
    severity: 'error',
    isSized: true,
    why: 'It reads the whole table under an exclusive lock, unless a valid CHECK proves it already.',
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
    why: 'The lock of NOT VALID is kept until the end of the transaction, so the long validation runs under it.',
    find: (statement, { addedNotValid, isTransactional }) =>
      commandsOf(statement)
        .filter(
          ({ subtype, name }) =>
            subtype === 'AT_ValidateConstraint' && isTransactional && addedNotValid(name),
        )
        .map(({ name }) => ({
          table: tableOf(statement.node.relation),
          message: `validates ${name} in the transaction that added it`,
          rewrite: `-- in a migration of its own:\nALTER TABLE ${tableOf(statement.node.relation)} VALIDATE CONSTRAINT ${name};`,
        })),
  },
  {
    name: 'unique-without-index',
    severity: 'error',
    isSized: true,
    why: 'The index behind it is built under an exclusive lock: nobody reads or writes.',
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
        rewrite: `-- gameops: transaction=off, in a migration of its own:\nCREATE UNIQUE INDEX CONCURRENTLY ${one.conname ?? `${table}_once`} ON ${table} (…);\n-- then: ALTER TABLE ${table} ADD CONSTRAINT … USING INDEX …;`,
      }));
    },
  },
  {
    name: 'exclude-constraint',
    severity: 'error',
    isSized: true,
    why: 'Its index is built under an exclusive lock, and there is no way to do it beside the players.',
    find: (statement) =>
      addedConstraints(statement, ['CONSTR_EXCLUSION']).map(() => ({
        table: tableOf(statement.node.relation),
        message: `adds an exclusion constraint to ${tableOf(statement.node.relation)}`,
        rewrite: '-- on a new table that takes over, or while the table is small',
      })),
  },
  {
    name: 'set-logged',
    severity: 'error',
    isSized: true,
    why: 'The table is rewritten under an exclusive lock.',
    find: (statement) =>
      commandsOf(statement)
        .filter(({ subtype }) =>
          ['AT_SetLogged', 'AT_SetUnLogged', 'AT_SetTableSpace', 'AT_SetAccessMethod'].includes(subtype),
        )
        .map(() => ({
          table: tableOf(statement.node.relation),
          message: `rewrites ${tableOf(statement.node.relation)} to store it in another way`,
          rewrite: '-- a new table that takes over in batches',
        })),
  },
  {
    name: 'lock-table',
    severity: 'error',
    why: 'Players wait for as long as the transaction lasts, and behind whatever it waits for.',
    find: ({ kind, node }) =>
      kind === 'LockStmt'
        ? node.relations.map(({ RangeVar }: { RangeVar: object }) => ({
            table: tableOf(RangeVar),
            message: `locks ${tableOf(RangeVar)} by hand`,
            rewrite: '-- leave it out: each statement takes the lock it needs, and gameops retries',
          }))
        : [],
  },
  {
    name: 'vacuum-full',
    severity: 'error',
    isSized: true,
    why: 'The table is rewritten under an exclusive lock.',
    find: ({ kind, node }) =>
      kind === 'VacuumStmt' && hasOption(node.options, 'full')
        ? [
            {
              table: tableOf(node.rels?.[0]?.VacuumRelation?.relation),
              message: 'rewrites the table while nobody reads or writes',
              rewrite: '-- gameops: transaction=off\nVACUUM …;  -- without FULL',
            },
          ]
        : [],
  },
  {
    name: 'cluster',
    severity: 'error',
    isSized: true,
    why: 'The table is rewritten under an exclusive lock.',
    find: ({ kind, node }) =>
      kind === 'ClusterStmt' || kind === 'RepackStmt'
        ? [
            {
              table: tableOf(node.relation),
              message: 'sorts the table anew while nobody reads or writes',
              rewrite: '-- leave it out; an index serves the order',
            },
          ]
        : [],
  },
  {
    name: 'refresh-not-concurrent',
    severity: 'error',
    isSized: true,
    why: 'Readers of the view wait until it is computed.',
    find: ({ kind, node }) =>
      kind === 'RefreshMatViewStmt' && !node.concurrent
        ? [
            {
              table: tableOf(node.relation),
              message: `refreshes ${tableOf(node.relation)} while its readers wait`,
              rewrite: `REFRESH MATERIALIZED VIEW CONCURRENTLY ${tableOf(node.relation)};  -- needs a unique index`,
            },
          ]
        : [],
  },
];

function validLater(table: string, { conname }: { conname?: string }, what: string) {
  return {
    table,
    message: `adds ${what} to ${table} and checks every row at once`,
    rewrite: `ALTER TABLE ${table} ADD CONSTRAINT ${conname ?? '…'} … NOT VALID;\n-- in a second migration: ALTER TABLE ${table} VALIDATE CONSTRAINT ${conname ?? '…'};`,
  };
}

type Statement = Parameters<Rule['find']>[0];

function addedConstraints(statement: Statement, types: readonly string[]) {
  return commandsOf(statement)
    .filter(({ subtype }) => subtype === 'AT_AddConstraint')
    .map(({ def }) => def?.Constraint)
    .filter((one) => types.includes(one?.contype));
}

export function addedColumns(statement: Statement) {
  return commandsOf(statement)
    .filter(({ subtype, def }) => subtype === 'AT_AddColumn' && def?.ColumnDef)
    .map(({ def }) => ({ column: def.ColumnDef, table: tableOf(statement.node.relation) }));
}
