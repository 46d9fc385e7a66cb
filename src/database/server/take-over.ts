/**
 * The first rotation of a database login makes an owner of it. Promises that no object changes its owner, that no table is
 * locked, and that every reconnect with the old name and password works.
 */
import type pg from 'pg';
import { OpsError } from '../../errors.ts';
import { type DatabaseEndpoint, withClient } from './connection.ts';
import { quoted, quotedText } from './facts.ts';
import { comment, commentOf, inTransaction, limits, mark, mayNot, type RoleAdmin } from './role-admin.ts';
import { scramVerifier } from './scram.ts';

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

function isTaken(role: string): OpsError {
  return new OpsError('ROTATION_REFUSED', {
    message: `There is a role ${role} already, and gameops did not make it. Nothing was changed, and players are not affected.`,
    next: [`rename that role: ALTER ROLE ${quoted(role)} RENAME TO …`, 'gameops env rotate db'],
    facts: { role },
  });
}
