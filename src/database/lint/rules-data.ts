/** Rules about breakage: the release that still serves, reverting a migration, the data, and types that are regretted later. */
import { keepsValues, removalsOf, unsavedBy, wordsOf } from '../sql/removals.ts';
import {
  addedColumns,
  commandsOf,
  constraintsOf,
  type Node,
  objectName,
  type Statement,
  tableNamed,
  tableOf,
  typeName,
} from '../sql/tree.ts';
import type { Rule } from './rule.ts';

const kindsInUse: Record<string, string> = {
  OBJECT_TABLE: 'table',
  OBJECT_VIEW: 'view',
  OBJECT_MATVIEW: 'materialized view',
  OBJECT_SCHEMA: 'schema',
  OBJECT_TYPE: 'type',
  OBJECT_DOMAIN: 'domain',
  OBJECT_SEQUENCE: 'sequence',
  OBJECT_FUNCTION: 'function',
  OBJECT_PROCEDURE: 'procedure',
};

export const dataRules: readonly Rule[] = [
  {
    name: 'add-not-null-without-default',
    severity: 'error',
    section: 'up',
    why: 'It fails as soon as the table has a row, and the previous release does not fill the column.',
    find: (statement) =>
      addedColumns(statement)
        .filter(({ column }) => {
          const types = constraintsOf(column).map(({ contype }) => contype);
          const isFilled = ['CONSTR_DEFAULT', 'CONSTR_GENERATED', 'CONSTR_IDENTITY'].some((one) =>
            types.includes(one),
          );
          const isSerial = /^(small|big)?serial[248]?$/.test(typeName(column));
          return types.includes('CONSTR_NOTNULL') && !isFilled && !isSerial;
        })
        .map(({ column, table }) => ({
          table,
          message: `adds ${table}.${column.colname} NOT NULL without a default`,
          rewrite: `ALTER TABLE ${table} ADD COLUMN ${column.colname} … NOT NULL DEFAULT …;`,
        })),
  },
  {
    name: 'drop-column',
    severity: 'error',
    section: 'up',
    why: 'Servers of the previous release still read the column while players are moved, and after a rollback.',
    find: (statement, { phase }) =>
      commandsOf(statement)
        .filter(({ subtype }) => subtype === 'AT_DropColumn' && phase === 'expand')
        .map(({ name }) => ({
          table: tableOf(statement.node.relation),
          message: `drops ${tableOf(statement.node.relation)}.${name} in an expand migration`,
          rewrite:
            '-- in a separate migration, when no release uses the column any more:\n-- gameops: phase=contract reversible=lossy',
        })),
  },
  {
    name: 'drop-object',
    severity: 'error',
    section: 'up',
    why: 'Servers of the previous release still use the object while players are moved, and after a rollback.',
    find: ({ kind, node }, { phase }) => {
      const what = kindsInUse[node.removeType];
      if (kind !== 'DropStmt' || phase !== 'expand' || what === undefined) return [];
      return node.objects.map((object: Node) => ({
        object: objectName(object),
        message: `drops the ${what} ${objectName(object)} in an expand migration`,
        rewrite:
          '-- in a separate migration, when no release uses the object any more:\n-- gameops: phase=contract reversible=lossy',
      }));
    },
  },
  {
    name: 'rename',
    severity: 'error',
    section: 'up',
    why: 'From then on, servers of the previous release use a name that no longer exists.',
    find: ({ kind, node }, { phase }) => {
      if (phase !== 'expand') return [];
      const table = tableOf(node.relation);
      const inUse = [
        'OBJECT_COLUMN',
        'OBJECT_TABLE',
        'OBJECT_VIEW',
        'OBJECT_SCHEMA',
        'OBJECT_TYPE',
        'OBJECT_FUNCTION',
      ];
      const isRename = kind === 'RenameStmt' && inUse.includes(node.renameType);
      const isValue = kind === 'AlterEnumStmt' && node.oldVal !== undefined;
      const isMove =
        kind === 'AlterObjectSchemaStmt' &&
        (node.objectType === 'OBJECT_TABLE' || node.objectType === 'OBJECT_TYPE');
      if (!isRename && !isValue && !isMove) return [];
      const what = isValue
        ? `the value ${node.oldVal}`
        : node.subname
          ? `${table}.${node.subname}`
          : table || 'an object';
      return [
        {
          table,
          message: `${isMove ? 'moves' : 'renames'} ${what}`,
          rewrite:
            '-- add the new name beside the old one, write both, and drop the old one in a contract migration',
        },
      ];
    },
  },
  {
    name: 'backfill-with-ddl',
    severity: 'error',
    section: 'up',
    isSized: true,
    why: 'The lock of an earlier statement is held until the last row is written.',
    find: (statement, { lockedBefore, isTransactional }) =>
      isTransactional && lockedBefore !== null && isBulkWrite(statement)
        ? [
            {
              table: tableOf(statement.node.relation),
              message: `writes rows of ${tableOf(statement.node.relation)} while an earlier statement holds a lock on ${lockedBefore}`,
              rewrite: '-- in a separate migration, in batches',
            },
          ]
        : [],
  },
  {
    name: 'whole-table-write',
    severity: 'error',
    section: 'up',
    isSized: true,
    why: 'Every row stays locked until the end, and the table doubles in size.',
    find: ({ kind, node }) =>
      (kind === 'UpdateStmt' || kind === 'DeleteStmt') && !node.whereClause
        ? [
            {
              table: tableOf(node.relation),
              message: `${kind === 'UpdateStmt' ? 'updates' : 'deletes'} every row of ${tableOf(node.relation)} in one statement`,
              rewrite: `-- in batches: … WHERE id IN (SELECT id FROM ${tableOf(node.relation)} WHERE … LIMIT 1000)`,
            },
          ]
        : [],
  },
  {
    name: 'truncate',
    severity: 'error',
    section: 'up',
    why: 'The rows are gone at once, and reverting the migration does not bring them back.',
    find: ({ kind, node }) =>
      kind === 'TruncateStmt'
        ? node.relations.map(({ RangeVar }: Node) => ({
            table: tableOf(RangeVar),
            message: `empties ${tableOf(RangeVar)}`,
            rewrite: '-- use a new table beside it, or DELETE in batches in a contract migration',
          }))
        : [],
  },
  {
    name: 'json-type',
    severity: 'warning',
    section: 'up',
    why: 'json has no equality operator, so SELECT DISTINCT and GROUP BY fail on such a row.',
    find: (statement) => columnsOf(statement, ({ type }) => type === 'json', 'json', 'jsonb'),
  },
  {
    name: 'int-key',
    severity: 'warning',
    section: 'up',
    why: 'The key ends at 2,147,483,647, and widening it later rewrites the table.',
    find: (statement) =>
      columnsOf(
        statement,
        ({ type, column }) =>
          /^(int[24]|(small)?serial[24]?)$/.test(type) &&
          (/serial/.test(type) ||
            constraintsOf(column).some(
              ({ contype }) => contype === 'CONSTR_PRIMARY' || contype === 'CONSTR_IDENTITY',
            )),
        'a 32-bit key',
        'bigint',
      ),
  },
  {
    name: 'timestamp-without-zone',
    severity: 'warning',
    section: 'up',
    why: 'The same value means different moments to connections with different time zones.',
    find: (statement) => columnsOf(statement, ({ type }) => type === 'timestamp', 'timestamp', 'timestamptz'),
  },
  {
    name: 'long-name',
    severity: 'error',
    why: 'Postgres cuts the name to 63 bytes, and reports it only in a notice.',
    find: ({ text }) =>
      [
        ...text.matchAll(
          /"((?:[^"]|"")+)"|'(?:[^']|'')*'|--[^\n]*|\$(\w*)\$[\s\S]*?\$\2\$|([A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*)/g,
        ),
      ]
        .map(([, quoted, , plain]) => quoted ?? plain ?? '')
        .filter((name) => Buffer.byteLength(name) > 63)
        .map((name) => ({
          message: `uses the name ${name.slice(0, 24)}… of ${Buffer.byteLength(name)} bytes`,
          rewrite: '-- use a name of at most 63 bytes',
        })),
  },
  {
    name: 'opaque-block',
    severity: 'warning',
    section: 'up',
    why: 'Neither lint nor the preview of losses can look into a DO block.',
    find: ({ kind }) =>
      kind === 'DoStmt'
        ? [
            {
              message: 'runs a DO block',
              rewrite: '-- use plain statements; or add, after a review: -- gameops: allow=opaque-block',
            },
          ]
        : [],
  },
  {
    name: 'set-session',
    severity: 'warning',
    why: 'gameops sets timeouts for every migration, and resets after each file what the file has SET.',
    find: ({ kind, node }) =>
      kind === 'VariableSetStmt' && !node.is_local && node.kind !== 'VAR_RESET'
        ? [
            {
              message: `sets ${node.name} beyond its transaction`,
              rewrite: `SET LOCAL ${node.name} = …;  -- or remove the statement`,
            },
          ]
        : [],
  },
  {
    name: 'claims-reversible',
    severity: 'warning',
    section: 'down',
    why: 'Reverting would destroy what players made since; a rollback asks for --accept-loss, whatever the file says.',
    find: (statement, { reversible, isMadeHere }) => {
      if (reversible !== 'yes') return [];
      const known = removalsOf(statement).filter(
        (one) =>
          !isMadeHere(tableNamed(one.path), one.column) &&
          !(one.to !== undefined && keepsValues(one.to, null)),
      );
      const unseen = statement.kind === 'DoStmt' ? ["runs a DO block, whose losses can't be seen,"] : [];
      return [...new Set([...known.map(wordsOf), ...unsavedBy(statement), ...unseen])].map((one) => ({
        message: `${one} when it is reverted, although the file says reversible=yes`,
        rewrite:
          "-- gameops: reversible=lossy\n-- or, when no players' data is lost: allow=claims-reversible",
      }));
    },
  },
];

function isBulkWrite({ kind, node }: Statement): boolean {
  if (kind === 'UpdateStmt' || kind === 'DeleteStmt') return true;
  return kind === 'InsertStmt' && node.selectStmt?.SelectStmt?.fromClause !== undefined;
}

function columnsOf(
  statement: Statement,
  isBad: (one: { column: Node; type: string }) => boolean,
  what: string,
  better: string,
) {
  const created = statement.kind === 'CreateStmt' ? (statement.node.tableElts ?? []) : [];
  const table = tableOf(statement.node.relation);
  const columns: Node[] = [
    ...created.map(({ ColumnDef }: Node) => ColumnDef).filter(Boolean),
    ...addedColumns(statement).map(({ column }) => column),
  ];
  return columns
    .filter((column) => isBad({ column, type: typeName(column) }))
    .map((column) => ({
      message: `makes ${table}.${column.colname} ${what}`,
      rewrite: `${column.colname} ${better}`,
    }));
}
