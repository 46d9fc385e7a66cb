/**
 * Accounts in Postgres, and the refresh tokens that keep a player logged in. A token is stored as its hash and is
 * exchanged at every use. A token that is used again later was copied: then all tokens of that login end. A rejected
 * promise means that the database does not answer.
 */
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import type { Pool } from 'pg';
import type { Person } from '../../protocol.ts';

export interface Account {
  player: Person;
  passwordHash: string;
}

export interface Accounts {
  /** null: the name is taken. */
  create(name: string, passwordHash: string): Promise<Person | null>;
  find(name: string): Promise<Account | null>;
  /** When the account was made; null for players without an account. */
  since(player: string): Promise<Date | null>;
  /** A new login. */
  grant(player: string): Promise<string>;
  /** null: unknown, expired, ended, or used before. */
  rotate(token: string): Promise<{ player: Person; token: string } | null>;
  /** Logs out the login that this token belongs to. */
  end(token: string): Promise<void>;
}

const tokenBytes = 32;
const lifeDays = 30;
/** A client whose answer got lost asks again: within this time a second use is no theft. */
const againSeconds = 30;

export function openAccounts(pool: Pool): Accounts {
  const query = async <T extends object>(text: string, values: unknown[]): Promise<T[]> =>
    (await pool.query<T>(text, values)).rows;

  return {
    async create(name, passwordHash) {
      const player = { id: `player-${randomUUID()}`, name };
      const made = await query(
        `insert into accounts (player_id, name, name_key, password_hash) values ($1, $2, $3, $4)
         on conflict (name_key) do nothing returning player_id`,
        [player.id, name, nameKey(name), passwordHash],
      );
      return made.length === 0 ? null : player;
    },
    async find(name) {
      const [row] = await query<{ player_id: string; name: string; password_hash: string }>(
        'select player_id, name, password_hash from accounts where name_key = $1',
        [nameKey(name)],
      );
      if (!row) return null;
      return { player: { id: row.player_id, name: row.name }, passwordHash: row.password_hash };
    },
    async since(player) {
      const [row] = await query<{ created_at: Date }>(
        'select created_at from accounts where player_id = $1',
        [player],
      );
      return row?.created_at ?? null;
    },
    async grant(player) {
      const token = newToken();
      await query('delete from refresh_tokens where player_id = $1 and expires_at < now()', [player]);
      await query(
        `insert into refresh_tokens (token_hash, player_id, family, expires_at)
         values ($1, $2, $3, now() + make_interval(days => $4))`,
        [hashOf(token), player, randomUUID(), lifeDays],
      );
      return token;
    },
    async rotate(token) {
      const next = newToken();
      const [row] = await query<{ player_id: string; name: string }>(
        `with used as (
           update refresh_tokens set used_at = coalesce(used_at, now())
           where token_hash = $1 and expires_at > now()
             and (used_at is null or used_at > now() - make_interval(secs => $4))
           returning player_id, family
         ), fresh as (
           insert into refresh_tokens (token_hash, player_id, family, expires_at)
           select $2, player_id, family, now() + make_interval(days => $3) from used returning player_id
         ), outlived as (
           delete from refresh_tokens where family in (select family from used) and expires_at <= now()
         )
         select player_id, name from fresh join accounts using (player_id)`,
        [hashOf(token), hashOf(next), lifeDays, againSeconds],
      );
      if (row) return { player: { id: row.player_id, name: row.name }, token: next };
      await endFamily(token, 'and used_at is not null');
      return null;
    },
    end: (token) => endFamily(token, ''),
  };

  async function endFamily(token: string, only: string): Promise<void> {
    await query(
      `delete from refresh_tokens
       where family in (select family from refresh_tokens where token_hash = $1 ${only})`,
      [hashOf(token)],
    );
  }
}

const newToken = () => randomBytes(tokenBytes).toString('base64url');

/** Tokens are random enough that a plain hash says nothing about them. */
const hashOf = (token: string) => createHash('sha256').update(token).digest();

/**
 * Names that differ only in case, or in how the same letters are encoded, are the same. Look-alikes of another script
 * are not: the player's id tells them apart.
 */
export const nameKey = (name: string) => name.normalize('NFKC').toLowerCase();
