/**
 * The live schema as sorted lines, the same for schemas that mean the same: not the order of columns, not who owns
 * what, not comments. Two schemas are equal when their lines are, and where they differ the lines say how. Reads only.
 */
import { createHash } from 'node:crypto';
import type pg from 'pg';

/** Of what people made: neither Postgres' own, nor an extension's, nor gameops' books. */
const ours = `n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'gameops') AND n.nspname !~ '^pg_(toast_)?temp_'`;
const notExtension = (catalogue: string, oid: string) =>
  `NOT EXISTS (SELECT 1 FROM pg_depend x WHERE x.classid = '${catalogue}'::regclass AND x.objid = ${oid} AND x.deptype = 'e')`;
const relation = `${ours} AND NOT (n.nspname = 'public' AND c.relname = 'pgmigrations') AND ${notExtension('pg_class', 'c.oid')}`;
const name = `format('%I.%I', n.nspname, c.relname)`;

const queries = [
  `SELECT format('schema %I', n.nspname) FROM pg_namespace n WHERE ${ours} AND n.nspname <> 'public'`,
  `SELECT format('extension %I', extname) FROM pg_extension WHERE extname <> 'plpgsql'`,
  `SELECT format('%s %s%s%s%s', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'f' THEN 'foreign table'
       WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' ELSE c.relkind::text END, ${name},
     CASE WHEN c.relkind = 'p' THEN ' partition by ' || pg_get_partkeydef(c.oid) ELSE '' END,
     CASE WHEN c.relispartition THEN ' partition ' || pg_get_expr(c.relpartbound, c.oid) ELSE '' END,
     CASE WHEN c.relkind IN ('v', 'm') THEN ' as ' || md5(pg_get_viewdef(c.oid)) ELSE '' END
     || CASE WHEN c.relpersistence = 'u' THEN ' unlogged' ELSE '' END || CASE WHEN c.relrowsecurity THEN ' row security' ELSE '' END)
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND ${relation}`,
  `SELECT format('column %s %I: %s%s%s%s%s', ${name}, a.attname, format_type(a.atttypid, a.atttypmod),
     CASE WHEN a.attnotnull THEN ' not null' ELSE '' END,
     CASE WHEN a.attidentity <> '' THEN ' identity ' || a.attidentity::text ELSE '' END,
     CASE WHEN d.adbin IS NULL THEN '' WHEN a.attgenerated <> '' THEN ' generated ' ELSE ' default ' END || coalesce(pg_get_expr(d.adbin, d.adrelid), ''),
     CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation THEN ' collate ' || a.attcollation::regcollation ELSE '' END)
   FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
   WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'f', 'v', 'm', 'c') AND ${relation}`,
  // Postgres 18 keeps NOT NULL as constraints, too; the column's own line has it already.
  `SELECT format('constraint %s %I: %s', ${name}, k.conname, pg_get_constraintdef(k.oid))
   FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE (k.contype <> 'n' OR NOT k.convalidated) AND k.contype <> 't' AND ${relation}`,
  `SELECT format('index %s%s', pg_get_indexdef(i.indexrelid), CASE WHEN i.indisvalid THEN '' ELSE ' invalid' END)
   FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ${relation}`,
  `SELECT format('sequence %s: %s %s..%s by %s%s', ${name}, s.seqtypid::regtype, s.seqmin, s.seqmax, s.seqincrement, CASE WHEN s.seqcycle THEN ' cycle' ELSE '' END)
   FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE ${relation} AND NOT EXISTS (SELECT 1 FROM pg_depend x WHERE x.classid = 'pg_class'::regclass AND x.objid = c.oid
     AND x.refobjid = to_regclass('public.pgmigrations') AND x.deptype IN ('a', 'i'))`,
  `SELECT format('trigger %s %s%s', ${name}, pg_get_triggerdef(g.oid), CASE g.tgenabled WHEN 'O' THEN '' ELSE ' ' || g.tgenabled::text END)
   FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT g.tgisinternal AND ${relation}`,
  `SELECT format('policy %s %I: %s %s %s', ${name}, p.polname, p.polcmd, pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
   FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ${relation}`,
  `SELECT format('function %s: %s', p.oid::regprocedure, CASE WHEN p.prokind = 'a' THEN 'aggregate' ELSE md5(pg_get_functiondef(p.oid)) END)
   FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE ${ours} AND ${notExtension('pg_proc', 'p.oid')}`,
  `SELECT format('type %I.%I: %s', n.nspname, t.typname, CASE t.typtype
     WHEN 'e' THEN 'enum ' || coalesce((SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid), '')
     WHEN 'd' THEN format('domain %s%s%s %s', format_type(t.typbasetype, t.typtypmod), CASE WHEN t.typnotnull THEN ' not null' ELSE '' END,
       coalesce(' default ' || t.typdefault, ''), (SELECT string_agg(pg_get_constraintdef(k.oid), ' ' ORDER BY k.conname) FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype <> 'n'))
     ELSE 'range' END)
   FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype IN ('e', 'd', 'r') AND ${ours} AND ${notExtension('pg_type', 't.oid')}`,
];

/**
 * In one round trip. With another search_path, names would come out with or without their schema; compiling a query
 * that is so long and runs once (jit) takes longer than running it.
 */
const everything = `SELECT line FROM (${queries.map((query) => `SELECT * FROM (${query}) one(line)`).join('\nUNION ALL\n')}) all_of_them WHERE line IS NOT NULL`;

export async function catalogueOf(client: pg.ClientBase): Promise<string[]> {
  const { rows: before } = await client.query<{ path: string; jit: string }>(
    `SELECT current_setting('search_path') AS path, set_config('search_path', 'pg_catalog', false),
            current_setting('jit') AS jit, set_config('jit', 'off', false)`,
  );
  try {
    const { rows } = await client.query<{ line: string }>(everything);
    return rows.map(({ line }) => line.trim()).sort();
  } finally {
    await client.query(`SELECT set_config('search_path', $1, false), set_config('jit', $2, false)`, [
      before[0]?.path ?? 'public',
      before[0]?.jit ?? 'on',
    ]);
  }
}

export function fingerprintOf(catalogue: readonly string[]): string {
  return createHash('sha256').update(catalogue.join('\n')).digest('hex');
}

export interface Difference {
  /** Lines that are expected and not there. */
  missing: string[];
  /** Lines that are there and not expected. */
  extra: string[];
}

export function differenceOf(expected: readonly string[], found: readonly string[]): Difference {
  const [wanted, there] = [new Set(expected), new Set(found)];
  return {
    missing: expected.filter((line) => !there.has(line)),
    extra: found.filter((line) => !wanted.has(line)),
  };
}
