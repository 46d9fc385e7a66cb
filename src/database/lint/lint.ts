/**
 * Reads migrations with Postgres' own parser and reports statements that would stall players, break the release that
 * still serves, or lose data, with the reason and a safe way. Considers table sizes when a database is given. Runs
 * nothing, changes nothing.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type pg from 'pg';
import { isOpsError } from '../../errors.ts';
import type { Finding, RuleText } from '../../report/findings/model.ts';
import { byPrefix, type Migration, parseMigration, plainLines } from '../migrate/files.ts';
import {
  addedColumns,
  commandsOf,
  type Node,
  objectName,
  parseSection,
  type Statement,
  tableOf,
} from '../sql/tree.ts';
import type { Around, Hit, Rule } from './rule.ts';
import { constraintRules } from './rules-constraints.ts';
import { dataRules } from './rules-data.ts';
import { lockRules } from './rules-locks.ts';

export const rules: readonly Rule[] = [...lockRules, ...constraintRules, ...dataRules];

/** Findings about files that the rules can't look into. */
const readingRules = {
  syntax: {
    severity: 'error',
    why: "Postgres' own parser refuses this SQL, and the database would refuse it, too.",
  },
  'invalid-file': {
    severity: 'error',
    why: 'Because of this file a deploy refuses the whole folder, before it touches the database.',
  },
  'opaque-code': {
    severity: 'info',
    why: 'Only running it shows what it locks or loses: gameops db verify and gameops deploy --rehearse run it on a copy.',
  },
} as const satisfies Record<string, Pick<Rule, 'severity' | 'why'>>;

export function ruleTexts(): RuleText[] {
  const reading = Object.entries(readingRules).map(([id, { severity, why }]) => ({
    id,
    severity,
    title: why,
    help: why,
  }));
  const looking = rules.map(({ name: id, severity, why: title }) => ({
    id,
    severity,
    title,
    help: `${title} Each finding shows a safe way. A file that needs the statement allows it at its top: -- gameops: allow=${id}`,
  }));
  return [...reading, ...looking];
}

/** Rows by table, as the planner estimates them; a table that is not in it has no rows yet. */
export type Sizes = ReadonlyMap<string, number>;

export async function sizesOf(client: pg.ClientBase): Promise<Sizes> {
  const { rows } = await client.query<{ name: string; n: string }>(
    `SELECT CASE WHEN n.nspname = 'public' THEN c.relname ELSE n.nspname || '.' || c.relname END AS name,
            greatest(c.reltuples, coalesce(s.n_live_tup, 0))::bigint AS n
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
      WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')`,
  );
  return new Map(rows.map(({ name, n }) => [name, Number(n)]));
}

export interface LintRequest {
  dir: string;
  /** Folder as it is shown before the name of a file. */
  shownDir: string;
  /** Names of applied migrations. They are not reported, because they can't be changed any more. */
  applied: ReadonlySet<string>;
  /** null: no database to ask. */
  sizes: Sizes | null;
}

/** Findings in the order of the files. A file that can't be read as a migration is a finding, too. */
export async function lintFolder({ dir, shownDir, applied, sizes }: LintRequest): Promise<Finding[]> {
  const names = readdirSync(dir).filter((name) => !name.startsWith('.') && !/\.(md|txt)$/i.test(name));
  const proof: Proof = { checks: new Map(), proven: new Set() };
  const findings: Finding[] = [];
  for (const file of names.sort((a, b) => byPrefix(a, b))) {
    const text = readFileSync(join(dir, file), 'utf8');
    const shown = shownDir === '' ? file : join(shownDir, file);
    const migration = tryParse(file, text);
    if (!('name' in migration)) findings.push({ ...migration, file: shown });
    else {
      const found = await lintMigration(migration, text, proof, sizes);
      if (!applied.has(migration.name)) findings.push(...found.map((one) => ({ ...one, file: shown })));
    }
  }
  return findings;
}

type Placed = Omit<Finding, 'file'>;

function tryParse(file: string, text: string): Migration | Placed {
  try {
    return parseMigration(file, text);
  } catch (error) {
    if (!isOpsError(error)) throw error;
    return unread('invalid-file', error.message);
  }
}

function unread(rule: keyof typeof readingRules, message: string): Placed {
  return { rule, ...readingRules[rule], key: null, line: 1, column: 1, message };
}

/** Columns that earlier files proved to have no NULL. */
interface Proof {
  /** "table.constraint" → "table.column" of a CHECK (column IS NOT NULL) that is not valid yet. */
  checks: Map<string, string>;
  /** "table.column" */
  proven: Set<string>;
}

export async function lintMigration(
  migration: Migration,
  content: string,
  proof: Proof = { checks: new Map(), proven: new Set() },
  sizes: Sizes | null = null,
): Promise<Placed[]> {
  if (migration.kind === 'code') {
    const message = 'the file is code, and lint reads only SQL';
    return keep(migration, [unread('opaque-code', message)]);
  }
  const findings: Placed[] = [];
  const made = new Set<string>();
  const text = plainLines(content);
  for (const section of ['up', 'down'] as const) {
    const sql = migration[section];
    const base = section === 'up' ? text.indexOf(sql) : text.lastIndexOf(sql);
    const place = (at: number) => placeOf(text, base + at);
    let statements: Statement[];
    try {
      statements = await parseSection(sql);
    } catch (error) {
      const details = (error as { sqlDetails?: { cursorPosition: number } }).sqlDetails;
      const message = error instanceof Error ? error.message : String(error);
      findings.push({ ...unread('syntax', message), ...place(details?.cursorPosition ?? 0) });
      continue;
    }
    for (const found of lintSection(migration, section, statements, { made, proof, sizes }))
      findings.push({ ...found.finding, ...place(found.at) });
  }
  return keep(migration, findings);
}

const keep = ({ allow }: Migration, findings: Placed[]): Placed[] =>
  findings.filter(({ rule }) => !allow.includes(rule));

interface Knowledge {
  /** Tables, indexes and other objects that this file makes. */
  made: Set<string>;
  proof: Proof;
  sizes: Sizes | null;
}

function lintSection(
  migration: Migration,
  section: 'up' | 'down',
  statements: readonly Statement[],
  { made, proof, sizes }: Knowledge,
): { at: number; finding: Omit<Placed, 'line' | 'column'> }[] {
  const { phase, reversible, isTransactional } = migration;
  const notValid = new Set<string>();
  const madeHere = new Set<string>();
  const found: { at: number; finding: Omit<Placed, 'line' | 'column'> }[] = [];
  let lockedBefore: string | null = null;
  for (const statement of statements) {
    const around: Around = {
      section,
      phase,
      reversible,
      isTransactional,
      lockedBefore,
      isProven: (table, column) => proof.proven.has(`${table}.${column}`),
      addedNotValid: (name) => notValid.has(name),
      isMadeHere: (table, column) => madeHere.has(table) || madeHere.has(`${table}.${column}`),
    };
    for (const rule of rules.filter((one) => (one.section ?? section) === section)) {
      for (const hit of rule.find(statement, around)) {
        if (section === 'up' && isMade(hit, made)) continue;
        found.push({ at: statement.at, finding: findingOf(rule, hit, sizes) });
      }
    }
    for (const name of madeBy(statement)) madeHere.add(name);
    if (section === 'up') {
      learn(statement, made, proof, notValid);
      const table = tableOf(statement.node.relation);
      if (isLocking(statement) && !made.has(table)) lockedBefore ??= table;
    }
  }
  return found;
}

const isMade = ({ table, object }: Hit, made: ReadonlySet<string>): boolean =>
  (table !== undefined && table !== '' && made.has(table)) || (object !== undefined && made.has(object));

const isLocking = ({ kind }: Statement): boolean =>
  ['AlterTableStmt', 'IndexStmt', 'RenameStmt', 'CreateTrigStmt'].includes(kind);

/** With fewer rows, a scan or a rewrite ends before a player notices. */
const smallRows = 1_000;

function findingOf(rule: Rule, { table, object, message, rewrite }: Hit, sizes: Sizes | null) {
  const about = { rule: rule.name, key: table || object || null, why: rule.why, rewrite };
  if (!rule.isSized || sizes === null || !table) return { ...about, severity: rule.severity, message };
  const rows = sizes.get(table) ?? 0;
  const severity = rows < smallRows ? ('info' as const) : rule.severity;
  return { ...about, severity, message: `${message} (about ${rows.toLocaleString('en')} rows)` };
}

function learn(
  { kind, node, ...rest }: Statement,
  made: Set<string>,
  proof: Proof,
  notValid: Set<string>,
): void {
  if (kind === 'CreateStmt' || kind === 'ViewStmt') made.add(tableOf(node.relation ?? node.view));
  if (kind === 'CreateTableAsStmt') made.add(tableOf(node.into?.rel));
  if (kind === 'IndexStmt' && node.idxname) made.add(node.idxname);
  if (kind === 'CreateSchemaStmt') made.add(node.schemaname);
  if (kind === 'CreateEnumStmt') made.add(objectName({ List: { items: node.typeName } }));
  if (kind === 'CreateFunctionStmt') made.add(objectName({ List: { items: node.funcname } }));
  const table = tableOf(node.relation);
  for (const { subtype, def, name } of commandsOf({ kind, node, ...rest })) {
    const constraint = def?.Constraint;
    if (subtype === 'AT_AddConstraint' && constraint?.skip_validation && constraint.conname) {
      notValid.add(constraint.conname);
      const column = notNullColumn(constraint);
      if (column) proof.checks.set(`${table}.${constraint.conname}`, `${table}.${column}`);
    }
    const proven = proof.checks.get(`${table}.${name}`);
    if (subtype === 'AT_ValidateConstraint' && proven) proof.proven.add(proven);
  }
}

/** "table", "table.column" */
function madeBy(statement: Statement): string[] {
  const { kind, node } = statement;
  if (kind === 'CreateStmt') return [tableOf(node.relation)];
  if (kind === 'CreateTableAsStmt') return [tableOf(node.into?.rel)];
  return addedColumns(statement).map(({ column, table }) => `${table}.${column.colname}`);
}

/** CHECK (column IS NOT NULL) */
function notNullColumn({ raw_expr }: Node): string | null {
  const test = raw_expr?.NullTest;
  if (test?.nulltesttype !== 'IS_NOT_NULL') return null;
  return test.arg?.ColumnRef?.fields?.at(-1)?.String?.sval ?? null;
}

function placeOf(text: string, at: number): { line: number; column: number } {
  const before = text.slice(0, at).split('\n');
  return { line: before.length, column: (before.at(-1)?.length ?? 0) + 1 };
}
