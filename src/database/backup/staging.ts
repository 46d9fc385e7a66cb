/**
 * The staging database: a database that is made from a backup, under a name that no player uses. Promises that it has the
 * encoding, collation, rights and settings of the live one, and that it is dropped unless it gets another name.
 */
import { randomBytes } from 'node:crypto';
import type pg from 'pg';
import { isOpsError, OpsError } from '../../errors.ts';
import { codeOf, type DatabaseEndpoint, endedBy, messageOf, withClient } from '../server/connection.ts';
import { quoted, quotedText, readFacts } from '../server/facts.ts';
import { readDump } from './files.ts';
import { differences, type Manifest, stagingName } from './model.ts';
import { keepAlive } from './orphans.ts';
import type { Tools } from './pg-tools.ts';

export const dayMs = 86_400_000;

/** Connects to another database of the server, because a database in use can't be renamed. @throws DATABASE_UNREACHABLE */
export async function withAdmin<T>(
  endpoint: DatabaseEndpoint,
  application: string,
  use: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const limits = { application, statementMs: dayMs };
  let hasConnected = false;
  const connected = (client: pg.Client) => {
    hasConnected = true;
    return use(client);
  };
  try {
    return await withClient({ ...endpoint, database: 'postgres' }, connected, limits);
  } catch (error) {
    const isAbsent =
      isOpsError(error, 'DATABASE_UNREACHABLE') && ['3D000', '42501'].includes(`${error.facts.sqlstate}`);
    if (hasConnected || !isAbsent) throw error;
    return withClient({ ...endpoint, database: 'template1' }, use, limits);
  }
}

export interface StagingRequest {
  endpoint: DatabaseEndpoint;
  tools: Tools;
  path: string;
  manifest: Manifest;
  /** Called when a stage begins. */
  at?: (stage: 'creating' | 'filling' | 'comparing') => void;
  signal?: AbortSignal;
}

export interface Staging {
  name: string;
  /** A connection to another database of the server. */
  admin: pg.Client;
}

/**
 * Fills it, compares it with what was dumped, and drops it afterwards unless `use` gave it another name.
 * @throws BACKUP_DAMAGED, RESTORE_FAILED, DATABASE_UNREACHABLE
 */
export async function withStaging<T>(
  request: StagingRequest,
  use: (database: Staging) => Promise<T>,
): Promise<T> {
  const name = stagingName(request.manifest.id, randomBytes(2).toString('hex'));
  return withAdmin(request.endpoint, name, async (admin) => {
    await keepAlive(admin);
    try {
      await make(request, admin, name);
      return await use({ name, admin });
    } finally {
      await admin.query(`DROP DATABASE IF EXISTS ${quoted(name)} WITH (FORCE)`).catch(() => undefined);
    }
  });
}

async function make(request: StagingRequest, admin: pg.Client, name: string): Promise<void> {
  request.signal?.throwIfAborted();
  request.at?.('creating');
  await create(admin, request.endpoint.database, name).catch((error: unknown) => {
    throw failed(`a new database could not be created: ${messageOf(error)}`, error);
  });
  const isOwned = (await actsAsOwner(admin)) || (await isUnknown(admin, request.manifest.owner));
  await fillAndCompare(request, name, isOwned);
}

/**
 * @param name of an empty database
 * @param isOwned all objects get the owner that the login acts as, whichever owner the dump names
 * @throws BACKUP_DAMAGED, RESTORE_FAILED
 */
export async function fillAndCompare(request: StagingRequest, name: string, isOwned: boolean): Promise<void> {
  request.at?.('filling');
  await fill(request, name, isOwned);
  request.signal?.throwIfAborted();
  request.at?.('comparing');
  const found = await compare({ ...request.endpoint, database: name }, request);
  if (found.length > 0) {
    throw new OpsError('BACKUP_DAMAGED', {
      message: `A trial restore of the backup ${request.manifest.id} differs from what was dumped: ${found.slice(0, 5).join('; ')}. The live database was not touched.`,
      next: ['gameops db backups', 'choose another backup'],
      facts: { id: request.manifest.id, differences: found },
    });
  }
}

interface Shape {
  row: Record<string, unknown>;
  encoding: string;
  tablespace: string;
  owner: string;
}

async function create(admin: pg.Client, like: string, name: string): Promise<void> {
  const { rows } = await admin.query<Shape>(
    `SELECT to_jsonb(d) AS row, pg_encoding_to_char(d.encoding) AS encoding, t.spcname AS tablespace,
            pg_get_userbyid(d.datdba) AS owner
     FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE datname = $1`,
    [like],
  );
  const [shape] = rows;
  if (!shape) throw new Error(`the server has no database ${like}`);
  await admin.query(`CREATE DATABASE ${quoted(name)} ${createOptions(shape)}`);
  await copyRights(admin, like, name, shape.owner);
  await copySettings(admin, like, name);
}

function createOptions({ row, encoding, tablespace, owner }: Shape): string {
  const text = (key: string) => (typeof row[key] === 'string' ? quotedText(row[key]) : null);
  // Postgres 15 and 16 call it daticulocale; older versions have none.
  const locale = text('datlocale') ?? text('daticulocale');
  const providers: Record<string, string> = {
    i: `LOCALE_PROVIDER icu ICU_LOCALE ${locale}`,
    b: `LOCALE_PROVIDER builtin BUILTIN_LOCALE ${locale}`,
  };
  return [
    'TEMPLATE template0',
    `OWNER ${quoted(owner)}`,
    `ENCODING ${quotedText(encoding)}`,
    `LC_COLLATE ${text('datcollate')} LC_CTYPE ${text('datctype')}`,
    providers[`${row.datlocprovider}`] ?? '',
    // Everybody may use the default tablespace, but only roles with a grant may name it.
    tablespace === 'pg_default' ? '' : `TABLESPACE ${quoted(tablespace)}`,
    `CONNECTION LIMIT ${Number(row.datconnlimit ?? -1)}`,
  ].join(' ');
}

async function copyRights(admin: pg.Client, like: string, name: string, owner: string): Promise<void> {
  const { rows } = await admin.query<{ right: string; grantee: string | null; option: string }>(
    `SELECT a.privilege_type AS right, r.rolname AS grantee,
            CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END AS option
     FROM pg_database d, aclexplode(d.datacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee WHERE d.datname = $1`,
    [like],
  );
  if (rows.length === 0) return;
  await admin.query(`REVOKE ALL ON DATABASE ${quoted(name)} FROM PUBLIC`);
  for (const { right, grantee, option } of rows.filter((row) => row.grantee !== owner)) {
    const to = grantee === null ? 'PUBLIC' : quoted(grantee);
    await admin.query(`GRANT ${right} ON DATABASE ${quoted(name)} TO ${to}${option}`);
  }
}

/** Set on this connection first: a list is stored as one text, and only the server knows which settings are lists. */
async function copySettings(admin: pg.Client, like: string, name: string): Promise<void> {
  const { rows } = await admin.query<{ role: string | null; setting: string }>(
    `SELECT r.rolname AS role, unnest(s.setconfig) AS setting FROM pg_db_role_setting s
     JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole WHERE d.datname = $1`,
    [like],
  );
  for (const { role, setting } of rows) {
    const [key = ''] = setting.split('=', 1);
    const whose =
      role === null ? `DATABASE ${quoted(name)}` : `ROLE ${quoted(role)} IN DATABASE ${quoted(name)}`;
    await admin.query('BEGIN');
    await admin.query('SELECT set_config($1, $2, true)', [key, setting.slice(key.length + 1)]);
    await admin.query(`ALTER ${whose} SET ${key.split('.').map(quoted).join('.')} FROM CURRENT`);
    await admin.query('COMMIT');
  }
}

/** Whether the login of .env acts as an owner (`gameops env rotate db`): then the owner owns all new objects. */
async function actsAsOwner(admin: pg.Client): Promise<boolean> {
  const { rows } = await admin.query<{ acts: boolean }>('SELECT current_user <> session_user AS acts');
  return rows[0]?.acts === true;
}

/** Whether the server lacks the owner that the dump names, as a newly made server does. */
async function isUnknown(admin: pg.Client, owner: string | undefined): Promise<boolean> {
  if (owner === undefined) return false;
  const { rows } = await admin.query('SELECT 1 FROM pg_roles WHERE rolname = $1', [owner]);
  return rows.length === 0;
}

async function fill({ tools, path, signal }: StagingRequest, name: string, isOwned: boolean): Promise<void> {
  // An older dump names the login itself as the owner, and the alternate login could not use such objects.
  const whose = isOwned ? ['--no-owner'] : [];
  const { exitCode, stderr } = await tools.run(
    ['pg_restore', '--exit-on-error', '--no-password', ...whose, `--dbname=${name}`],
    { input: readDump(path), database: name, application: name, ...(signal ? { signal } : {}) },
  );
  if (exitCode === 0) return;
  throw failed(`pg_restore ended with ${exitCode}: ${lastWords(stderr)}`);
}

/** Computes statistics first: without them the first queries of players would be slow. */
async function compare(
  endpoint: DatabaseEndpoint,
  { manifest, signal }: Pick<StagingRequest, 'manifest' | 'signal'>,
): Promise<string[]> {
  const look = async (client: pg.Client) => {
    await client.query('ANALYZE');
    await client.query('BEGIN');
    return readFacts(client);
  };
  const limits = { statementMs: dayMs, lockMs: 10_000 };
  const found = await withClient(endpoint, (client) => endedBy(signal, client, look), limits);
  return differences(manifest, found);
}

function failed(what: string, cause?: unknown): OpsError {
  const sqlstate = codeOf(cause);
  return new OpsError('RESTORE_FAILED', {
    message: `Nothing was restored: ${what}. The live database is unchanged, and players are not affected.`,
    next: nextOf(sqlstate),
    facts: { sqlstate },
    cause,
  });
}

function nextOf(sqlstate: string): [string, ...string[]] {
  if (sqlstate === '42501') return ['allow the role to create databases: ALTER ROLE <DB_USER> CREATEDB'];
  if (sqlstate === '25006') return ['name the primary in DB_HOST: this server is read-only'];
  if (sqlstate === '53100') return ['free space on the disk of the database server'];
  return ['gameops db backups --verify restore', 'gameops doctor'];
}

export function lastWords(stderr: string): string {
  return stderr.trim().split('\n').slice(-3).join(' ').slice(-500) || 'it printed no reason';
}
