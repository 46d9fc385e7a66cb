/** Rules about locks and long statements: they lose no data, but players wait while they run. */

import {
  addedColumns,
  callsIn,
  commandsOf,
  constraintsOf,
  hasOption,
  objectName,
  tableOf,
  typeName,
} from '../sql/tree.ts';
import type { Rule } from './rule.ts';

/** Not volatile: all rows get one value, so Postgres keeps it in the catalogue and rewrites nothing. */
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
    why: 'It waits for every running query on the table, and all later queries, also reads, wait behind it.',
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
    why: 'Writers wait until it ends, and so do readers that would use the index.',
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
    why: 'A default that differs from row to row rewrites the table under an exclusive lock, so reads and writes wait.',
    find: (statement) =>
      addedColumns(statement).flatMap(({ column, table }) => {
        const initial = constraintsOf(column).find(({ contype }) => contype === 'CONSTR_DEFAULT');
        const call = callsIn(initial?.raw_expr).find((name) => !steadyCalls.has(name));
        if (!call) return [];
        return {
          table,
          message: `adds ${table}.${column.colname} with a default that calls ${call}()`,
          rewrite: `ALTER TABLE ${table} ADD COLUMN ${column.colname} …;\nALTER TABLE ${table} ALTER ${column.colname} SET DEFAULT ${call}();\n-- then fill old rows in batches, in a separate migration`,
        };
      }),
  },
  {
    name: 'add-serial',
    severity: 'error',
    isSized: true,
    why: 'Every row gets a number at once, so the table is rewritten under an exclusive lock.',
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
    why: 'The value of every row is computed and stored at once, so the table is rewritten under an exclusive lock.',
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
          rewrite: `-- use a plain column that the server fills, and fill old rows in batches; or VIRTUAL on Postgres 18`,
        })),
  },
  {
    name: 'column-type-change',
    severity: 'error',
    isSized: true,
    why: 'Most changes of a type rewrite the table under an exclusive lock, and the previous release still expects the old type.',
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
          message: `rewrites ${tableOf(statement.node.relation)} to store it differently`,
          rewrite: '-- fill a new table in batches, and let it take over',
        })),
  },
  {
    name: 'lock-table',
    severity: 'error',
    why: 'Players wait until the transaction ends, and also while it waits for the lock itself.',
    find: ({ kind, node }) =>
      kind === 'LockStmt'
        ? node.relations.map(({ RangeVar }: { RangeVar: object }) => ({
            table: tableOf(RangeVar),
            message: `locks ${tableOf(RangeVar)} by hand`,
            rewrite: '-- remove it: each statement takes the lock that it needs, and gameops retries',
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
              message: 'rewrites the table while reads and writes wait',
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
              message: 'sorts the whole table while reads and writes wait',
              rewrite: '-- remove it; an index can serve the order',
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
