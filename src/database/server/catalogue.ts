/**
 * The live schema as sorted lines. They leave out the order of columns and of creation, OIDs, owners, rights, comments and
 * rows, so two schemas are equal when their lines are, and otherwise the lines show the difference. Reads only, in the
 * caller's transaction if there is one.
 */
import { createHash } from 'node:crypto';
import type pg from 'pg';

/** Objects that people made: not those of Postgres, of an extension or of gameops. */
const ours = `n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'gameops') AND n.nspname !~ '^pg_(toast_)?temp_'`;
const notExtension = (catalogue: string, oid: string) =>
  `NOT EXISTS (SELECT 1 FROM pg_depend x WHERE x.classid = '${catalogue}'::regclass AND x.objid = ${oid} AND x.deptype = 'e')`;
const relation = `${ours} AND NOT (n.nspname = 'public' AND c.relname = 'pgmigrations') AND ${notExtension('pg_class', 'c.oid')}`;
const name = `format('%I.%I', n.nspname, c.relname)`;
const sorted = (list: string) => `(SELECT string_agg(o, ', ' ORDER BY o) FROM unnest(${list}) o)`;
const tablespace = `'tablespace ' || (SELECT quote_ident(spcname) FROM pg_tablespace WHERE oid = c.reltablespace)`;

const tables = [
  `SELECT concat_ws(' ', CASE c.relkind WHEN 'f' THEN 'foreign table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
       WHEN 'c' THEN 'composite type' ELSE 'table' END, ${name},
     'partition by ' || pg_get_partkeydef(c.oid),
     (SELECT CASE WHEN c.relispartition THEN 'partition of ' ELSE 'inherits ' END || string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno)
        FROM pg_inherits i WHERE i.inhrelid = c.oid),
     pg_get_expr(c.relpartbound, c.oid),
     CASE WHEN c.relkind IN ('v', 'm') THEN 'as ' || md5(pg_get_viewdef(c.oid)) END,
     CASE WHEN c.relpersistence = 'u' THEN 'unlogged' END,
     CASE WHEN c.relrowsecurity THEN 'row security' END, CASE WHEN c.relforcerowsecurity THEN 'forced row security' END,
     CASE WHEN c.relkind IN ('r', 'p', 'm') AND c.relreplident IN ('n', 'f') THEN 'replica identity ' || c.relreplident::text END,
     'with ' || ${sorted('c.reloptions')},
     'toast with ' || (SELECT ${sorted('t.reloptions')} FROM pg_class t WHERE t.oid = c.reltoastrelid),
     'using ' || (SELECT amname FROM pg_am WHERE oid = c.relam AND amname <> 'heap'), ${tablespace},
     CASE WHEN c.reloftype <> 0 THEN 'of ' || c.reloftype::regtype END,
     (SELECT concat_ws(' ', 'server', quote_ident(s.srvname), ${sorted('f.ftoptions')})
        FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid))
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'c') AND ${relation}`,
  `SELECT concat_ws(' ', format('column %s %I: %s', ${name}, a.attname, format_type(a.atttypid, a.atttypmod)),
     CASE WHEN a.attnotnull THEN 'not null' END,
     CASE WHEN a.attidentity <> '' THEN 'identity ' || a.attidentity::text END,
     CASE WHEN a.attgenerated <> '' THEN 'generated ' || a.attgenerated::text ELSE 'default' END || ' ' || pg_get_expr(d.adbin, d.adrelid),
     CASE WHEN a.attcollation <> 0 AND a.attcollation <> t.typcollation THEN 'collate ' || a.attcollation::regcollation END,
     CASE WHEN a.attstorage <> t.typstorage THEN 'storage ' || a.attstorage::text END,
     CASE WHEN a.attcompression <> '' THEN 'compression ' || a.attcompression::text END,
     'statistics ' || nullif(a.attstattarget, -1), 'with ' || ${sorted('a.attoptions')}, 'options ' || ${sorted('a.attfdwoptions')})
   FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
   WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'f', 'v', 'm', 'c') AND ${relation}`,
  // Postgres 18 also keeps NOT NULL as a constraint; the line of the column has it already.
  `SELECT format('constraint %s %I: %s', ${name}, k.conname, pg_get_constraintdef(k.oid))
   FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE (k.contype <> 'n' OR NOT k.convalidated) AND k.contype <> 't' AND ${relation}`,
  `SELECT concat_ws(' ', 'index', pg_get_indexdef(i.indexrelid),
     'part of ' || (SELECT h.inhparent::regclass FROM pg_inherits h WHERE h.inhrelid = i.indexrelid),
     CASE WHEN NOT i.indisvalid THEN 'invalid' END, CASE WHEN i.indisclustered THEN 'clustered' END,
     CASE WHEN i.indisreplident THEN 'replica identity' END, ${tablespace})
   FROM pg_index i JOIN pg_class r ON r.oid = i.indrelid JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE ${relation} AND NOT (n.nspname = 'public' AND r.relname = 'pgmigrations')`,
  `SELECT concat_ws(' ', format('sequence %s: %s from %s in %s..%s by %s cache %s', ${name}, s.seqtypid::regtype, s.seqstart, s.seqmin, s.seqmax,
       s.seqincrement, s.seqcache), CASE WHEN s.seqcycle THEN 'cycle' END, CASE WHEN c.relpersistence = 'u' THEN 'unlogged' END, 'owned by ' || o.owner)
   FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
   LEFT JOIN LATERAL (SELECT format('%s.%I', x.refobjid::regclass, a.attname) AS owner FROM pg_depend x
     JOIN pg_attribute a ON a.attrelid = x.refobjid AND a.attnum = x.refobjsubid
     WHERE x.classid = 'pg_class'::regclass AND x.objid = c.oid AND x.refclassid = 'pg_class'::regclass AND x.deptype IN ('a', 'i')) o ON true
   WHERE ${relation} AND o.owner IS DISTINCT FROM 'public.pgmigrations.id'`,
  `SELECT format('trigger %s %s%s', ${name}, pg_get_triggerdef(g.oid), CASE g.tgenabled WHEN 'O' THEN '' ELSE ' ' || g.tgenabled::text END)
   FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT g.tgisinternal AND ${relation}`,
  `SELECT format('rule %s %s%s', ${name}, pg_get_ruledef(w.oid), CASE w.ev_enabled WHEN 'O' THEN '' ELSE ' ' || w.ev_enabled::text END)
   FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace WHERE w.rulename <> '_RETURN' AND ${relation}`,
  `SELECT concat_ws(' ', format('policy %s %I: %s', ${name}, p.polname, p.polcmd), CASE WHEN NOT p.polpermissive THEN 'restrictive' END,
     'to ' || (SELECT string_agg(CASE WHEN r = 0 THEN 'public' ELSE pg_get_userbyid(r) END, ', ' ORDER BY pg_get_userbyid(r)) FROM unnest(p.polroles) r),
     'using ' || pg_get_expr(p.polqual, p.polrelid), 'check ' || pg_get_expr(p.polwithcheck, p.polrelid))
   FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ${relation}`,
  `SELECT 'statistics ' || pg_get_statisticsobjdef(s.oid) FROM pg_statistic_ext s JOIN pg_class c ON c.oid = s.stxrelid
   JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ${relation}`,
];

const functionsAndTypes = [
  `SELECT format('function %s: %s', p.oid::regprocedure, md5(pg_get_functiondef(p.oid)))
   FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.prokind <> 'a' AND ${ours} AND ${notExtension('pg_proc', 'p.oid')}`,
  `SELECT format('aggregate %s: %s', p.oid::regprocedure, concat_ws(' ', p.prorettype::regtype, a.aggkind, a.aggtransfn, a.aggtranstype::regtype,
     a.aggfinalfn, a.aggcombinefn, a.aggsortop::regoperator, a.agginitval))
   FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid JOIN pg_namespace n ON n.oid = p.pronamespace
   WHERE ${ours} AND ${notExtension('pg_proc', 'p.oid')}`,
  `SELECT format('type %I.%I: %s', n.nspname, t.typname, CASE t.typtype
     WHEN 'e' THEN 'enum ' || coalesce((SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid), '')
     WHEN 'd' THEN concat_ws(' ', 'domain', format_type(t.typbasetype, t.typtypmod), CASE WHEN t.typnotnull THEN 'not null' END,
       'default ' || t.typdefault, CASE WHEN t.typcollation <> b.typcollation THEN 'collate ' || t.typcollation::regcollation END,
       (SELECT string_agg(format('%I %s', k.conname, pg_get_constraintdef(k.oid)), ' ' ORDER BY k.conname) FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype <> 'n'))
     WHEN 'r' THEN (SELECT concat_ws(' ', 'range', r.rngsubtype::regtype, o.opcname, nullif(r.rngcollation, 0)::regcollation, r.rngcanonical, r.rngsubdiff)
       FROM pg_range r JOIN pg_opclass o ON o.oid = r.rngsubopc WHERE r.rngtypid = t.oid)
     ELSE concat_ws(' ', 'base', t.typinput, t.typoutput, t.typlen) END)
   FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_type b ON b.oid = t.typbasetype
   WHERE (t.typtype IN ('e', 'd', 'r') OR (t.typtype = 'b' AND t.typcategory <> 'A')) AND ${ours} AND ${notExtension('pg_type', 't.oid')}`,
];

/** Kind → its definition beside its identity. Without user mappings, which belong to roles and contain passwords. */
const others: Record<string, string> = {
  pg_am: 'o.amhandler::text',
  pg_cast: `concat_ws(' ', o.castfunc::regprocedure, o.castcontext, o.castmethod)`,
  pg_collation: `(to_jsonb(o) - '{oid,collowner,collnamespace,collversion}'::text[])::text`,
  pg_conversion: 'o.conproc::text',
  pg_event_trigger: `concat_ws(' ', o.evtevent, o.evtfoid::regprocedure, o.evtenabled, ${sorted('o.evttags')})`,
  pg_foreign_data_wrapper: sorted('o.fdwoptions'),
  pg_foreign_server: `concat_ws(' ', o.srvtype, o.srvversion, ${sorted('o.srvoptions')})`,
  pg_language: 'o.lanplcallfoid::regprocedure::text',
  pg_opclass: 'o.opcdefault::text',
  pg_operator: `concat_ws(' ', o.oprcode, o.oprcom::regoperator, o.oprnegate::regoperator, o.oprcanhash, o.oprcanmerge)`,
  pg_opfamily: `''`,
  pg_publication: `(to_jsonb(o) - '{oid,pubowner}'::text[])::text`,
  pg_publication_rel: `''`,
  pg_transform: `concat_ws(' ', o.trffromsql::regprocedure, o.trftosql::regprocedure)`,
  pg_ts_config: `(SELECT string_agg(concat_ws(' ', m.maptokentype, m.mapdict::regdictionary), ', ' ORDER BY m.maptokentype, m.mapseqno)
    FROM pg_ts_config_map m WHERE m.mapcfg = o.oid)`,
  pg_ts_dict: 'o.dictinitoption',
  pg_ts_parser: 'o.prsstart::text',
  pg_ts_template: 'o.tmpllexize::text',
};

const firstOfPeople = 16_384;

const queries = [
  `SELECT format('schema %I', n.nspname) FROM pg_namespace n WHERE ${ours} AND n.nspname <> 'public' AND ${notExtension('pg_namespace', 'n.oid')}`,
  `SELECT format('extension %I in %I', extname, n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace`,
  ...tables,
  ...functionsAndTypes,
  ...Object.entries(others).map(
    ([kind, detail]) => `SELECT concat_ws(' ', i.type, i.identity, ${detail})
   FROM ${kind} o, LATERAL pg_identify_object('${kind}'::regclass, o.oid, 0) i
   WHERE o.oid >= ${firstOfPeople} AND ${notExtension(kind, 'o.oid')}`,
  ),
];

const everything = queries.map((query) => `SELECT * FROM (${query}) one(line)`).join('\nUNION ALL\n');

export interface Catalogue {
  /** Format of the lines and major version of the server: only catalogues with the same dialect can be compared. */
  dialect: string;
  lines: string[];
}

const format = 2;

/**
 * In one round trip. A fixed search_path, because it decides which names are printed with their schema; without jit,
 * because compiling such a long query takes longer than running it once.
 */
export async function catalogueOf(client: pg.ClientBase): Promise<Catalogue> {
  const { rows: before } = await client.query<{ path: string; jit: string; major: number }>(
    `SELECT current_setting('search_path') AS path, set_config('search_path', 'pg_catalog', false),
            current_setting('jit') AS jit, set_config('jit', 'off', false),
            current_setting('server_version_num')::int / 10000 AS major`,
  );
  const { path, jit, major } = before[0] ?? { path: 'public', jit: 'on', major: 0 };
  try {
    const { rows } = await client.query<{ line: string }>(everything);
    // Sorted here, because servers with other collations sort differently.
    return { dialect: `${format}.${major}`, lines: rows.map(({ line }) => line.trim()).sort() };
  } finally {
    const restoring = client.query(
      `SELECT set_config('search_path', $1, false), set_config('jit', $2, false)`,
      [path, jit],
    );
    // In a failed transaction this fails, and the end of the transaction restores them.
    await restoring.catch(() => undefined);
  }
}

/** "2.18:<sha256>" */
export function fingerprintOf({ dialect, lines }: Catalogue): string {
  return `${dialect}:${createHash('sha256').update(lines.join('\n')).digest('hex')}`;
}

/** Whether two different fingerprints mean different schemas. */
export const areComparable = (one: string, other: string): boolean =>
  one.split(':', 1)[0] === other.split(':', 1)[0];

export interface Difference {
  /** Expected lines that are not there. */
  missing: string[];
  /** Lines that are there, but not expected. */
  extra: string[];
}

export function differenceOf(expected: readonly string[], found: readonly string[]): Difference {
  const [wanted, there] = [new Set(expected), new Set(found)];
  return {
    missing: expected.filter((line) => !there.has(line)),
    extra: found.filter((line) => !wanted.has(line)),
  };
}
