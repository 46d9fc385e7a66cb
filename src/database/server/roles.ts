/**
 * The roles of a database: an owner of everything, as which nobody logs in, and two logins that act as the owner, of which
 * one is in use. Promises that the login of .env and the logins of running servers can reconnect at any moment, and that
 * no table is locked: the present owner is renamed, so no object changes its owner.
 *
 * Comments on the roles record how far a rotation is; each is written in the transaction that makes it true.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { OpsError } from '../../errors.ts';
import { codeOf, type DatabaseEndpoint, messageOf, withClient } from './connection.ts';
import { quoted, quotedText } from './facts.ts';
import {
  comment,
  commentOf,
  inTransaction,
  type LoginState,
  limits,
  mark,
  type RoleAdmin,
} from './role-admin.ts';
import { scramVerifier } from './scram.ts';

export interface Roles {
  owner: string;
  logins: { name: string; state: LoginState; canLogin: boolean }[];
}

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
