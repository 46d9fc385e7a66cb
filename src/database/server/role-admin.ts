/**
 * Changes of roles: by an account that may make them, each in one transaction with the comment that records how far it is.
 */
import type pg from 'pg';
import { isOpsError, OpsError } from '../../errors.ts';
import {
  codeOf,
  type DatabaseEndpoint,
  isDisconnected,
  isSqlState,
  messageOf,
  unreachable,
  withClient,
} from './connection.ts';
import { quoted, quotedText } from './facts.ts';

export type LoginState = 'current' | 'incoming' | 'outgoing' | 'resting';

export const mark = 'gameops: ';
export const commentOf = (state: LoginState) => `${mark}${state}`;

/** A connection that may change roles. */
export interface RoleAdmin {
  client: pg.Client;
  isSuperuser: boolean;
  /** The role of the connection. */
  user: string;
}

export const limits = { application: 'gameops-rotation' };

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

function refused(cause: unknown): OpsError {
  return new OpsError('ROTATION_REFUSED', {
    message: `The database server refused to change roles: ${messageOf(cause)}. This step was rolled back, and players are not affected.`,
    next: ['gameops env rotate db --plan', 'set DB_ADMIN_URL to an account that may change these roles'],
    facts: { sqlstate: codeOf(cause) },
    cause,
  });
}

export function mayNot(user: string): OpsError {
  return new OpsError('ROTATION_REFUSED', {
    message: `${user} may not change these roles: only a superuser or another role with CREATEROLE may. Nothing was changed, and players are not affected.`,
    next: ['set DB_ADMIN_URL=postgres://… in the environment of this command (DB_ADMIN_URL_FILE works, too)'],
    facts: { user },
  });
}

export async function comment(client: pg.Client, role: string, text: string): Promise<void> {
  await client.query(`COMMENT ON ROLE ${quoted(role)} IS ${quotedText(text)}`);
}

export async function inTransaction(client: pg.Client, work: () => Promise<void>): Promise<void> {
  await client.query('BEGIN');
  try {
    await work();
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
}
