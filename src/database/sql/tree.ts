/**
 * The parse tree of a statement, as far as the rules look into it. Nodes are plain data from libpg-query, which is
 * Postgres' own parser, compiled.
 */

// biome-ignore lint/suspicious/noExplicitAny: a parse tree of hundreds of node types; the rules look at some thirty.
export type Node = any;

export interface Statement {
  /** "AlterTableStmt" */
  kind: string;
  node: Node;
  /** Characters from the start of its section. */
  at: number;
  text: string;
}

/** @throws SqlError, with `sqlDetails.cursorPosition` */
export async function parseSection(sql: string): Promise<Statement[]> {
  const { parse } = await import('libpg-query');
  const bytes = Buffer.from(sql);
  const charsAt = (offset: number) => bytes.subarray(0, offset).toString().length;
  const { stmts = [] } = (await parse(sql)) as unknown as {
    stmts?: { stmt: Node; stmt_location?: number; stmt_len?: number }[];
  };
  return stmts.map(({ stmt, stmt_location: from = 0, stmt_len: length }) => {
    const [kind = ''] = Object.keys(stmt);
    const text = bytes.subarray(from, length === undefined ? undefined : from + length).toString();
    const gap = /^(?:\s|--[^\n]*(?:\n|$)|\/\*[\s\S]*?\*\/)*/.exec(text)?.[0].length ?? 0;
    return { kind, node: stmt[kind], at: charsAt(from) + gap, text: text.slice(gap) };
  });
}

/** "public.a" and "a" are the same to the rules, because a file names its tables in one way. */
export function tableOf(relation: Node): string {
  if (!relation) return '';
  const { schemaname, relname } = relation;
  return schemaname && schemaname !== 'public' ? `${schemaname}.${relname}` : String(relname);
}

/** Like tableOf, for the parts of a name. */
export const tableNamed = (path: readonly string[]): string =>
  path.filter((part, at) => !(at === 0 && part === 'public' && path.length > 1)).join('.');

/** An object of `DROP …` is a list of the parts of its name. */
export function objectName(object: Node): string {
  const parts: Node[] = object.List?.items ?? object.TypeName?.names ?? [object];
  return tableNamed(parts.map((part) => part.String?.sval ?? '').filter((part) => part !== ''));
}

/** Last part of the name of the column's type: "int4", "serial", "json". */
export const typeName = (column: Node): string => column?.typeName?.names?.at(-1)?.String?.sval ?? '';

export const constraintsOf = (column: Node): Node[] =>
  (column?.constraints ?? []).map((one: Node) => one.Constraint).filter(Boolean);

/** Commands of an ALTER TABLE. */
export const commandsOf = ({ kind, node }: Statement): Node[] =>
  kind === 'AlterTableStmt' ? (node.cmds ?? []).map((one: Node) => one.AlterTableCmd) : [];

/** Constraints of these types that an ALTER TABLE adds. */
export function addedConstraints(statement: Statement, types: readonly string[]): Node[] {
  return commandsOf(statement)
    .filter(({ subtype }) => subtype === 'AT_AddConstraint')
    .map(({ def }) => def?.Constraint)
    .filter((one) => types.includes(one?.contype));
}

/** Columns that an ALTER TABLE adds. */
export function addedColumns(statement: Statement): { column: Node; table: string }[] {
  return commandsOf(statement)
    .filter(({ subtype, def }) => subtype === 'AT_AddColumn' && def?.ColumnDef)
    .map(({ def }) => ({ column: def.ColumnDef, table: tableOf(statement.node.relation) }));
}

export const hasOption = (options: Node[] | undefined, name: string): boolean =>
  (options ?? []).some(
    ({ DefElem }: Node) => DefElem?.defname === name && DefElem.arg?.Boolean?.boolval !== false,
  );

/** Names of all functions that are called anywhere inside. */
export function callsIn(node: Node): string[] {
  if (Array.isArray(node)) return node.flatMap(callsIn);
  if (node === null || typeof node !== 'object') return [];
  const own = node.FuncCall?.funcname?.at(-1)?.String?.sval;
  return [...(own ? [String(own)] : []), ...Object.values(node).flatMap(callsIn)];
}
