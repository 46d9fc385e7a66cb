/**
 * One hash of everything in a database's catalogue that a dump brings back: the same schema has the same one on another
 * server and after a restore. The order of columns does not count; owners and rights do not either.
 */
import { createHash } from 'node:crypto';
import type pg from 'pg';

/** Neither the server's own schemas nor what an extension brought along. */
const isOurs = (oid: string, schema: string, catalogue: string) => `
  ${schema} !~ '^pg_' AND ${schema} <> 'information_schema' AND NOT EXISTS (
    SELECT FROM pg_depend e WHERE e.classid = '${catalogue}'::regclass AND e.objid = ${oid} AND e.deptype = 'e')`;

const lines = `
SELECT format('column %I.%I.%I %s%s%s%s%s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
         CASE WHEN a.attnotnull THEN ' not null' ELSE '' END, a.attidentity, a.attgenerated,
         ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '')) AS line
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c')
    AND ${isOurs('c.oid', 'n.nspname', 'pg_class')}
UNION ALL
SELECT format('relation %I.%I %s %s', n.nspname, c.relname, c.relkind::text || c.relpersistence::text
         || c.relrowsecurity::text, CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid)
         WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) ELSE coalesce(pg_get_expr(c.relpartbound, c.oid), '') END)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND ${isOurs('c.oid', 'n.nspname', 'pg_class')}
UNION ALL
SELECT format('index %s %s', pg_get_indexdef(i.indexrelid), i.indisvalid)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'm') AND ${isOurs('c.oid', 'n.nspname', 'pg_class')}
UNION ALL
SELECT format('constraint %I on %s.%s %s', k.conname, n.nspname, coalesce(c.relname, t.typname), pg_get_constraintdef(k.oid))
  FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
  LEFT JOIN pg_class c ON c.oid = k.conrelid LEFT JOIN pg_type t ON t.oid = k.contypid
  WHERE k.contype <> 'n' AND ${isOurs('k.conrelid', 'n.nspname', 'pg_class')}
UNION ALL
SELECT format('trigger %s %s', pg_get_triggerdef(t.oid), t.tgenabled)
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE NOT t.tgisinternal AND ${isOurs('c.oid', 'n.nspname', 'pg_class')}
UNION ALL
SELECT format('function %s', pg_get_functiondef(p.oid))
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE p.prokind IN ('f', 'p', 'w') AND ${isOurs('p.oid', 'n.nspname', 'pg_proc')}
UNION ALL
SELECT format('sequence %s.%s %s', s.schemaname, s.sequencename,
         concat_ws(' ', s.data_type, s.start_value, s.min_value, s.max_value, s.increment_by, s.cycle, s.cache_size))
  FROM pg_sequences s WHERE s.schemaname !~ '^pg_'
UNION ALL
SELECT format('type %I.%I %s', n.nspname, t.typname, CASE t.typtype
         WHEN 'e' THEN (SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid)
         ELSE concat_ws(' ', format_type(t.typbasetype, t.typtypmod), t.typnotnull, t.typdefault) END)
  FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
  WHERE t.typtype IN ('e', 'd', 'r') AND ${isOurs('t.oid', 'n.nspname', 'pg_type')}
UNION ALL
SELECT format('policy %I on %s.%s %s', policyname, schemaname, tablename, concat_ws(' ', permissive, cmd, roles, qual, with_check))
  FROM pg_policies
UNION ALL
SELECT format('extension %I %s', extname, n.nspname) FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace
UNION ALL
SELECT format('schema %I', n.nspname) FROM pg_namespace n WHERE ${isOurs('n.oid', 'n.nspname', 'pg_namespace')}`;

/** Within the caller's transaction, so that it may be of a snapshot. */
export async function schemaFingerprint(client: pg.ClientBase): Promise<string> {
  // Names come out qualified, whatever the role's own path is.
  await client.query('SET LOCAL search_path = pg_catalog');
  const { rows } = await client.query<{ line: string }>(`${lines} ORDER BY 1`);
  const hash = createHash('sha256');
  // Sorted here again: servers of other collations sort otherwise.
  for (const line of rows.map((row) => row.line).sort()) hash.update(`${line}\n`);
  return hash.digest('hex');
}
