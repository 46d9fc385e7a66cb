/**
 * The roles of a database: an owner of everything, as which nobody logs in, and two logins that act as the owner, of which
 * one is in use. Promises that the login of .env and the logins of running servers can reconnect at any moment, and that
 * no table is locked: the present owner is renamed, so no object changes its owner.
 *
 * Comments on the roles record how far a rotation is; each is written in the transaction that makes it true.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { isOpsError, OpsError } from '../../errors.ts';
import {
  codeOf,
  type DatabaseEndpoint,
  isDisconnected,
  messageOf,
  unreachable,
  withClient,
} from './connection.ts';
import { quoted, quotedText } from './facts.ts';
import { scramVerifier } from './scram.ts';

export type LoginState = 'current' | 'incoming' | 'outgoing' | 'resting';

export interface Roles {
  owner: string;
  logins: { name: string; state: LoginState; canLogin: boolean }[];
}

const mark = 'gameops: ';
const commentOf = (state: LoginState) => `${mark}${state}`;

/** The roles of a login; null while the login itself owns everything. */
export async function readRoles(client: pg.Client, login: string): Promise<Roles | null> {
  const { rows } = await client.query<{
    owner: string;
    name: string;
    comment: string | null;
    can_login: boolean;
  }>(
    `SELECT o.rolname AS owner, l.rolname AS name, l.rolcanlogin AS can_login,
            shobj_description(l.oid, 'pg_authid') AS comment
     FROM pg_roles own
     JOIN pg_auth_members mine ON mine.member = own.oid
     JOIN pg_roles o ON o.oid = mine.roleid AND shobj_description(o.oid, 'pg_authid') = $2
     JOIN pg_auth_members others ON others.roleid = o.oid
     JOIN pg_roles l ON l.oid = others.member
     WHERE own.rolname = $1 AND shobj_description(l.oid, 'pg_authid') LIKE $3
     ORDER BY l.rolname`,
    [login, `${mark}owner`, `${mark}%`],
  );
  const [first] = rows;
  if (!first) return null;
  return {
    owner: first.owner,
    logins: rows.map(({ name, comment, can_login }) => ({
      name,
      state: (comment ?? '').slice(mark.length) as LoginState,
      canLogin: can_login,
    })),
  };
}

/** A connection that may change roles. */
export interface RoleAdmin {
  client: pg.Client;
  isSuperuser: boolean;
  /** The role of the connection. */
  user: string;
}

const limits = { application: 'gameops-rotation' };

/**
 * @param admin an account that may change roles; null: the role of .env, which must be a superuser then
 * @throws DATABASE_UNREACHABLE, ROTATION_REFUSED when neither may change roles
 */
export async function withRoleAdmin<T>(
  endpoint: DatabaseEndpoint,
  admin: DatabaseEndpoint | null,
  use: (admin: RoleAdmin) => Promise<T>,
): Promise<T> {
  return withClient(
    admin ?? endpoint,
    async (client) => {
      const { rows } = await client.query<{ super: boolean; create: boolean }>(
        'SELECT rolsuper AS super, rolcreaterole AS create FROM pg_roles WHERE rolname = current_user',
      );
      const { super: isSuperuser = false, create = false } = rows[0] ?? {};
      if (!isSuperuser && !(admin && create)) throw mayNot((admin ?? endpoint).user);
      return await use({ client, isSuperuser, user: (admin ?? endpoint).user }).catch((error: unknown) => {
        if (isOpsError(error)) throw error;
        if (isDisconnected(error)) throw unreachable(admin ?? endpoint, error);
        throw isSqlState(codeOf(error)) ? refused(error) : error;
      });
    },
    limits,
  );
}

const isSqlState = (code: string) => /^[0-9A-Z]{5}$/.test(code);

function refused(cause: unknown): OpsError {
  return new OpsError('ROTATION_REFUSED', {
    message: `The database server refused to change roles: ${messageOf(cause)}. This step was rolled back, and players are not affected.`,
    next: ['gameops env rotate db --plan', 'set DB_ADMIN_URL to an account that may change these roles'],
    facts: { sqlstate: codeOf(cause) },
    cause,
  });
}

function mayNot(user: string): OpsError {
  return new OpsError('ROTATION_REFUSED', {
    message: `${user} may not change these roles: only a superuser or another role with CREATEROLE may. Nothing was changed, and players are not affected.`,
    next: ['set DB_ADMIN_URL=postgres://… in the environment of this command (DB_ADMIN_URL_FILE works, too)'],
    facts: { user },
  });
}

/**
 * Makes an owner of the login of .env: the role gets the owner's name, and a new login gets the old name. Both happen in
 * one transaction, and the password stays the same, so every reconnect works. Open connections stay.
 * @throws ROTATION_REFUSED when another role has one of the names, or the login finds its tables by its own name
 */
export async function takeOver(
  { client, isSuperuser, user }: RoleAdmin,
  endpoint: DatabaseEndpoint,
  names: { owner: string; alternate: string },
): Promise<void> {
  const { user: name, password, database } = endpoint;
  const { owner, alternate } = names;
  const isSelf = user === name;
  if (isSelf && !isSuperuser) throw mayNot(user);
  const { rows } = await client.query<{ rolname: string }>(
    'SELECT rolname FROM pg_roles WHERE rolname IN ($1, $2)',
    [owner, alternate],
  );
  if (rows[0]) throw isTaken(rows[0].rolname);
  await mustNotSearchByName(endpoint);
  const secret = (isSuperuser ? await keptPassword(client, name) : null) ?? scramVerifier(password);
  const { rows: settings } = await client.query<{ name: string; value: string; here: boolean }>(
    `SELECT split_part(entry, '=', 1) AS name, substr(entry, strpos(entry, '=') + 1) AS value, setdatabase <> 0 AS here
     FROM pg_db_role_setting, unnest(setconfig) AS entry
     WHERE setrole = $1::regrole AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = $2))`,
    [quoted(name), database],
  );
  const { rows: limit } = await client.query<{ most: number }>(
    'SELECT rolconnlimit AS most FROM pg_roles WHERE rolname = $1',
    [name],
  );
  // A role can't rename itself, so a superuser acts as another one for the moment.
  const helper = quoted(`${owner}_renames`);
  await inTransaction(client, async () => {
    if (isSelf) {
      await client.query(`CREATE ROLE ${helper} SUPERUSER`);
      await client.query(`SET LOCAL SESSION AUTHORIZATION ${helper}`);
    }
    await client.query(`ALTER ROLE ${quoted(name)} RENAME TO ${quoted(owner)}`);
    for (const [login, state] of [
      [name, 'current'],
      [alternate, 'resting'],
    ] as const) {
      await client.query(
        `CREATE ROLE ${quoted(login)} NOLOGIN CONNECTION LIMIT ${Number(limit[0]?.most ?? -1)}`,
      );
      await client.query(`GRANT ${quoted(owner)} TO ${quoted(login)}`);
      await copySettings(client, login, database, settings);
      await client.query(`ALTER ROLE ${quoted(login)} SET role = ${quotedText(owner)}`);
      await comment(client, login, commentOf(state));
    }
    await client.query(`ALTER ROLE ${quoted(name)} LOGIN PASSWORD ${quotedText(secret)}`);
    await client.query(`ALTER ROLE ${quoted(owner)} NOLOGIN PASSWORD NULL`);
    await comment(client, owner, `${mark}owner`);
    if (isSelf) {
      await client.query('RESET SESSION AUTHORIZATION');
      await client.query(`DROP ROLE ${helper}`);
    }
  });
}

/** A login that acts as the owner has the owner's name as "$user": that names another schema, or none. @throws ROTATION_REFUSED */
async function mustNotSearchByName(endpoint: DatabaseEndpoint): Promise<void> {
  const { user, database } = endpoint;
  const [seen] = await withClient(
    endpoint,
    async (client) => {
      const { rows } = await client.query<{ path: string; own: boolean }>(
        `SELECT current_setting('search_path') AS path,
                EXISTS (SELECT FROM pg_namespace WHERE nspname = current_user) AS own`,
      );
      return rows;
    },
    limits,
  );
  if (!seen?.own || !seen.path.includes('$user')) return;
  const path = seen.path.replaceAll(/"?\$user"?/g, () => quoted(user));
  throw new OpsError('ROTATION_REFUSED', {
    message: `${user} finds the schema ${user} by "$user" in its search_path (${seen.path}), and would no longer find it when it acts as an owner with another name. Nothing was changed, and players are not affected.`,
    next: [
      `ALTER ROLE ${quoted(user)} IN DATABASE ${quoted(database)} SET search_path = ${path}`,
      'gameops env rotate db',
    ],
    facts: { user, schema: user, searchPath: seen.path },
  });
}

/** The stored hash of the password, of whatever kind: the login that keeps the name gets it. */
async function keptPassword(client: pg.Client, name: string): Promise<string | null> {
  const { rows } = await client.query<{ kept: string | null }>(
    'SELECT rolpassword AS kept FROM pg_authid WHERE rolname = $1',
    [name],
  );
  return rows[0]?.kept ?? null;
}

/** With FROM CURRENT, so that the server itself quotes lists. */
async function copySettings(
  client: pg.Client,
  login: string,
  database: string,
  settings: readonly { name: string; value: string; here: boolean }[],
): Promise<void> {
  for (const { name, value, here } of settings) {
    if (name === 'role') continue;
    await client.query('SELECT set_config($1, $2, true)', [name, value]);
    const where = here ? `IN DATABASE ${quoted(database)}` : '';
    const setting = name.split('.').map(quoted).join('.');
    await client.query(`ALTER ROLE ${quoted(login)} ${where} SET ${setting} FROM CURRENT`);
  }
}

/** Gives an unused login a new password and the right to log in, and proves that it can. @throws ROTATION_REFUSED */
export async function enable(
  { client }: RoleAdmin,
  endpoint: DatabaseEndpoint,
  login: { name: string; password: string },
): Promise<void> {
  const { name, password } = login;
  await inTransaction(client, async () => {
    await client.query(`ALTER ROLE ${quoted(name)} LOGIN PASSWORD ${quotedText(scramVerifier(password))}`);
    await comment(client, name, commentOf('incoming'));
  });
  await mustLogIn({ ...endpoint, user: name, password }, endpoint.user);
}

/** Logs in as game servers will: pg_hba.conf may limit which role may connect from where. */
async function mustLogIn(endpoint: DatabaseEndpoint, present: string): Promise<void> {
  try {
    await withClient(endpoint, (client) => client.query('SELECT 1'), limits);
  } catch (error) {
    throw new OpsError('ROTATION_REFUSED', {
      message: `The new role ${endpoint.user} can't log in: ${messageOf(error)}. Servers continue as ${present}, and .env is unchanged.`,
      next: [
        `allow ${endpoint.user} wherever ${present} is allowed (pg_hba.conf, a pooler)`,
        'gameops env rotate db',
      ],
      facts: { user: endpoint.user, sqlstate: codeOf(error) },
      cause: error,
    });
  }
}

/** The incoming login is in use from now on, and the other one is outgoing. */
export async function markCurrent({ client }: RoleAdmin, incoming: string, outgoing: string): Promise<void> {
  await inTransaction(client, async () => {
    await comment(client, incoming, commentOf('current'));
    await comment(client, outgoing, commentOf('outgoing'));
  });
}

export interface Straggler {
  pid: number;
  application: string;
  address: string;
}

/** Connections of a login, and those from before the take-over, which belong to the owner now. */
async function connectionsOf(client: pg.Client, names: readonly string[]): Promise<Straggler[]> {
  const { rows } = await client.query<Straggler>(
    `SELECT s.pid, coalesce(nullif(s.application_name, ''), 'a program without a name') AS application,
            coalesce(host(s.client_addr), 'an address not shown') AS address
     FROM pg_stat_activity s JOIN pg_roles r ON r.oid = s.usesysid
     WHERE r.rolname = ANY($1) AND s.pid <> pg_backend_pid()
       -- The server's own workers run as the role that made the cluster, which is the owner now. Null: not ours to see.
       AND coalesce(s.backend_type, 'client backend') IN ('client backend', 'walsender') ORDER BY s.backend_start`,
    [names],
  );
  return rows;
}

/** How often it looks, and how long no connection may be there: a server that reconnects does so sooner. */
const times = { lookEveryMs: 500, quietMs: 5_000 };

/**
 * Waits until nobody uses a login, then disables it. When somebody connects in that moment, the login is enabled again.
 * @returns the connections that are still there at the deadline; [] when the login is disabled
 */
export async function disableWhenQuiet(
  { client }: RoleAdmin,
  role: string,
  request: { owner: string; deadline: number; signal: AbortSignal },
): Promise<Straggler[]> {
  const look = () => connectionsOf(client, [role, request.owner]);
  // A killed call may have disabled the login while somebody was connected.
  await client.query(`ALTER ROLE ${quoted(role)} LOGIN`);
  let quietSince = performance.now();
  for (;;) {
    request.signal.throwIfAborted();
    const present = await look();
    if (present.length > 0) quietSince = performance.now();
    if (performance.now() - quietSince >= times.quietMs) {
      await client.query(`ALTER ROLE ${quoted(role)} NOLOGIN`);
      if ((await look()).length === 0) {
        await inTransaction(client, async () => {
          await client.query(`ALTER ROLE ${quoted(role)} PASSWORD NULL`);
          await comment(client, role, commentOf('resting'));
        });
        return [];
      }
      await client.query(`ALTER ROLE ${quoted(role)} LOGIN`);
      quietSince = performance.now();
    }
    if (present.length > 0 && Date.now() > request.deadline) return present;
    await sleep(times.lookEveryMs, undefined, { signal: request.signal });
  }
}

async function comment(client: pg.Client, role: string, text: string): Promise<void> {
  await client.query(`COMMENT ON ROLE ${quoted(role)} IS ${quotedText(text)}`);
}

async function inTransaction(client: pg.Client, work: () => Promise<void>): Promise<void> {
  await client.query('BEGIN');
  try {
    await work();
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
}

function isTaken(role: string): OpsError {
  return new OpsError('ROTATION_REFUSED', {
    message: `There is a role ${role} already, and gameops did not make it. Nothing was changed, and players are not affected.`,
    next: [`rename that role: ALTER ROLE ${quoted(role)} RENAME TO …`, 'gameops env rotate db'],
    facts: { role },
  });
}
