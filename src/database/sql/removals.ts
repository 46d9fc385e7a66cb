/**
 * The data that statements destroy, read from Postgres' own parse tree alone: lint warns of it, and reverting a migration
 * counts and saves it. What a DO block, a function or a trigger does can't be seen.
 */
import { quoted } from '../server/facts.ts';
import { splitStatements } from './split.ts';
import {
  callsIn,
  commandsOf,
  type Node,
  objectName,
  parseSection,
  type Statement,
  tableNamed,
  tableOf,
  typeName,
} from './tree.ts';

export interface Removal {
  how: 'drops' | 'empties' | 'deletes rows of' | 'writes over' | 'changes the type of';
  /** Schema, if it is written, and table, spelled as in the catalogue. */
  path: readonly string[];
  /** null: whole rows. */
  column: string | null;
  /** The new type, when the type of a column changes. */
  to?: NewType;
}

interface NewType {
  /** Spelled as in the catalogue: "int8", "_text". */
  name: string;
  /** varchar(20), numeric(10, 2) */
  isLimited: boolean;
  /** Whether USING computes the new value. */
  isComputed: boolean;
}

export interface Removals {
  /** Removals of known tables and columns. */
  removals: Removal[];
  /** What can be neither counted nor saved: "drops the schema shop and everything that depends on it" */
  unsaved: string[];
  /** Something runs that can't be looked into. */
  isOpaque: boolean;
  /** New names of tables, columns and schemas that these statements rename. */
  renamed: string[];
}

/** For to_regclass and for queries. */
export const quotedPath = ({ path }: Removal): string => path.map(quoted).join('.');

/** "drops players", "writes over players.rank" */
export const wordsOf = ({ how, path, column }: Removal): string =>
  `${how} ${tableNamed(path)}${column === null ? '' : `.${column}`}`;

/** Statement by statement, so that one that can't be parsed does not hide the others. */
export async function removalsIn(sql: string): Promise<Removals> {
  const all: Removals = { removals: [], unsaved: [], isOpaque: false, renamed: [] };
  for (const { text } of splitStatements(sql)) {
    const parsed = await parseSection(text).catch(() => null);
    if (parsed === null)
      all.unsaved.push(
        `runs a statement that gameops can't parse: ${text.replace(/\s+/g, ' ').slice(0, 60)}`,
      );
    for (const statement of parsed ?? []) {
      all.removals.push(...removalsOf(statement));
      all.unsaved.push(...unsavedBy(statement));
      all.isOpaque ||= isOpaque(statement);
      all.renamed.push(...renamedBy(statement));
    }
  }
  return all;
}

export function removalsOf(statement: Statement): Removal[] {
  const { kind, node } = statement;
  if (kind === 'DropStmt' && node.removeType === 'OBJECT_TABLE')
    return node.objects.map((object: Node) => whole('drops', namesOf(object)));
  if (kind === 'TruncateStmt')
    return node.relations.map(({ RangeVar }: Node) => whole('empties', pathOf(RangeVar)));
  if (kind === 'AlterTableStmt') return node.objtype === 'OBJECT_TABLE' ? alterations(statement) : [];
  return writing.has(kind) ? writesIn({ [kind]: node }) : [];
}

export function unsavedBy(statement: Statement): string[] {
  const { kind, node } = statement;
  const isCascade = node.behavior === 'DROP_CASCADE';
  const holder = holders[node.removeType];
  if (kind === 'DropStmt' && isCascade && holder !== undefined)
    return node.objects.map(
      (object: Node) => `drops the ${holder} ${objectName(object)} and everything that depends on it`,
    );
  if (kind === 'DropOwnedStmt') return ['drops everything that a role owns'];
  if (kind === 'TruncateStmt' && isCascade)
    return node.relations.map(
      ({ RangeVar }: Node) => `empties every table that refers to ${tableOf(RangeVar)}`,
    );
  if (kind === 'AlterTableStmt' && node.objtype === 'OBJECT_TYPE')
    return commandsOf(statement)
      .filter(({ subtype }) => subtype === 'AT_DropColumn' || subtype === 'AT_AlterColumnType')
      .map(({ name }) => `changes ${name} of the type ${tableOf(node.relation)}`);
  return [];
}

/** With CASCADE, columns or tables are dropped that the statement does not name. */
const holders: Record<string, string> = {
  OBJECT_SCHEMA: 'schema',
  OBJECT_TYPE: 'type',
  OBJECT_DOMAIN: 'domain',
  OBJECT_EXTENSION: 'extension',
};

/** Functions that change no rows. */
const harmless = new Set(['setval', 'set_config', 'count']);

function isOpaque({ kind, node }: Statement): boolean {
  if (['DoStmt', 'CallStmt', 'ExecuteStmt'].includes(kind)) return true;
  return kind === 'SelectStmt' && callsIn(node).some((name) => !harmless.has(name));
}

function renamedBy({ kind, node }: Statement): string[] {
  if (kind === 'RenameStmt') return [node.newname];
  return kind === 'AlterObjectSchemaStmt' && node.relation ? [node.relation.relname] : [];
}

// Tables and columns ----------------------------------------------------------------------------------------------

const whole = (how: Removal['how'], path: readonly string[]): Removal => ({ how, path, column: null });

const pathOf = ({ schemaname, relname }: Node): string[] => (schemaname ? [schemaname, relname] : [relname]);

const namesOf = (object: Node): string[] => object.List.items.map((part: Node) => part.String.sval);

function alterations(statement: Statement): Removal[] {
  const path = pathOf(statement.node.relation);
  return commandsOf(statement).flatMap(({ subtype, name, def }): Removal[] => {
    if (subtype === 'AT_DropColumn') return [{ how: 'drops', path, column: name }];
    if (subtype !== 'AT_AlterColumnType') return [];
    return [{ how: 'changes the type of', path, column: name, to: newType(def.ColumnDef) }];
  });
}

function newType(column: Node): NewType {
  const { typmods = [], arrayBounds = [] } = column.typeName;
  return {
    name: `${arrayBounds.length > 0 ? '_' : ''}${typeName(column)}`,
    isLimited: typmods.length > 0,
    isComputed: column.raw_default !== undefined,
  };
}

/** Statements that run at once; a rule, a function or a view only stores its statements. */
const writing = new Set([
  'SelectStmt',
  'CreateTableAsStmt',
  'InsertStmt',
  'UpdateStmt',
  'DeleteStmt',
  'MergeStmt',
]);

/** Also looks into WITH, which may write. */
function writesIn(node: Node): Removal[] {
  if (Array.isArray(node)) return node.flatMap(writesIn);
  if (node === null || typeof node !== 'object') return [];
  return Object.entries<Node>(node).flatMap(([kind, inner]) => [...written(kind, inner), ...writesIn(inner)]);
}

function written(kind: string, node: Node): Removal[] {
  if (kind === 'DeleteStmt') return [whole('deletes rows of', pathOf(node.relation))];
  if (kind === 'UpdateStmt') return overwritten(node.relation, node.targetList);
  if (kind === 'InsertStmt') return overwritten(node.relation, node.onConflictClause?.targetList);
  if (kind !== 'MergeStmt') return [];
  return node.mergeWhenClauses.flatMap(({ MergeWhenClause: { commandType, targetList } }: Node) => {
    if (commandType === 'CMD_DELETE') return [whole('deletes rows of', pathOf(node.relation))];
    return commandType === 'CMD_UPDATE' ? overwritten(node.relation, targetList) : [];
  });
}

const overwritten = (relation: Node, targets: Node[] = []): Removal[] =>
  targets.map(({ ResTarget }) => ({ how: 'writes over', path: pathOf(relation), column: ResTarget.name }));

// Types -----------------------------------------------------------------------------------------------------------

const integers = new Set(['int2', 'int4', 'int8']);

/** A change into one of these never narrows a value. */
const widest = new Set(['int8', 'numeric', 'timestamptz', 'jsonb']);

/**
 * Whether a change of type keeps every value, or fails as a whole when one does not fit.
 * @param from the present type; null when it is not known
 */
export function keepsValues({ name, isLimited, isComputed }: NewType, from: string | null): boolean {
  if (isComputed) return false;
  if (name === 'text' || name === 'varchar') return true;
  if (from === null) return !isLimited && widest.has(name);
  if (integers.has(from) && integers.has(name)) return true;
  return !isLimited && (name === from || (name === 'numeric' && integers.has(from)));
}
