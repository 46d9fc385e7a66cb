/**
 * Discoveries in Postgres. The player who explores a tile first makes its discovery. A POST that is sent again with the
 * same key is stored once, so a proxy or a client may retry without asking. Promises that a lost database is a rejected
 * promise within seconds, never a crash and never a promise that stays open.
 */
import { Pool } from 'pg';
import type { Logger } from 'pino';
import type { ImageNeeds } from '../../boot-rule.ts';
import type { ServerSettings } from '../../env/settings.ts';
import type { Discovery, Person } from '../../protocol.ts';
import type { Readiness } from '../readiness.ts';
import { watchDatabase } from './database-watch.ts';

export interface Exploration {
  player: Person;
  region: string;
  tile: { x: number; y: number };
  what: string;
  key: string;
}

/** One line of the leaderboard. */
export interface Leader {
  player: Person;
  discoveries: number;
}

export interface Store {
  pool: Pool;
  /** Newest first; of one region, or of all. */
  latest(count: number, region: string | null): Promise<Discovery[]>;
  /**
   * `isNew` is false when somebody was there before, or when that player has sent this key before. The discovery is then
   * the one that was stored.
   */
  keep(found: Exploration): Promise<{ discovery: Discovery; isNew: boolean }>;
  leaders(count: number): Promise<Leader[]>;
  countOf(player: string): Promise<number>;
  close(): Promise<void>;
}

interface Row {
  id: string;
  player_id: string;
  player_name: string;
  region: string;
  tile_x: number | null;
  tile_y: number | null;
  what: string;
  created_at: Date;
}

const columns = 'id, player_id, player_name, region, tile_x, tile_y, what, created_at';
/** Few per replica: two fleets of many replicas share the database's 100 connections. */
const connectionsPerReplica = 5;
/**
 * Postgres ends a statement that takes longer. A Postgres that is frozen or cut off ends nothing: then this server gives
 * up, and the connection with it.
 */
const statementMs = 5_000;
const silenceMs = 6_000;

export interface StoreRequest {
  settings: ServerSettings;
  readiness: Readiness;
  log: Logger;
  /** What this server's code needs of the schema; null when it was not built into an image. */
  needs: ImageNeeds | null;
  /** Called at most once: this server can never run on this schema. */
  onTooOld(floor: string): void;
}

export function openStore({ settings, readiness, log, needs, onTooOld }: StoreRequest): Store {
  const pool = new Pool({
    host: settings.DB_HOST,
    port: settings.DB_PORT,
    database: settings.DB_NAME,
    user: settings.DB_USER,
    password: settings.DB_PASSWORD,
    max: connectionsPerReplica,
    connectionTimeoutMillis: 5_000,
    statement_timeout: statementMs,
    query_timeout: silenceMs,
    keepAlive: true,
    application_name: 'gameops-server',
  });
  // An idle connection that breaks is an 'error' event, and without a listener that ends the process.
  pool.on('error', (error) => log.warn({ reason: error.message }, 'postgres connection lost'));
  const watch = watchDatabase({ pool, readiness, log, needs, onTooOld });
  return {
    pool,
    async latest(count, region) {
      const { rows } = await pool.query<Row>(
        `select ${columns} from discoveries where $2::text is null or region = $2 order by id desc limit $1`,
        [count, region],
      );
      return rows.map(discoveryOf);
    },
    keep: (found) => keep(pool, found),
    async leaders(count) {
      const { rows } = await pool.query<{ player_id: string; name: string; n: string }>(
        `select player_id, max(player_name) as name, count(*) as n from discoveries
         group by player_id order by n desc, player_id limit $1`,
        [count],
      );
      return rows.map(({ player_id, name, n }) => ({
        player: { id: player_id, name },
        discoveries: Number(n),
      }));
    },
    async countOf(player) {
      const { rows } = await pool.query<{ n: string }>(
        'select count(*) as n from discoveries where player_id = $1',
        [player],
      );
      return Number(rows[0]?.n ?? 0);
    },
    async close() {
      watch.stop();
      await pool.end();
    },
  };
}

async function keep(pool: Pool, { player, region, tile, what, key }: Exploration) {
  const inserted = await pool.query<Row>(
    `insert into discoveries (player_id, player_name, region, tile_x, tile_y, what, idempotency_key)
     values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing returning ${columns}`,
    [player.id, player.name, region, tile.x, tile.y, what, key],
  );
  if (inserted.rows[0]) return { discovery: discoveryOf(inserted.rows[0]), isNew: true };
  // The key comes first: it is answered as it was the first time.
  const stored = await pool.query<Row>(
    `select ${columns} from discoveries
     where (player_id = $1 and idempotency_key = $2) or (region = $3 and tile_x = $4 and tile_y = $5)
     order by (player_id = $1 and idempotency_key = $2) desc limit 1`,
    [player.id, key, region, tile.x, tile.y],
  );
  if (!stored.rows[0]) throw new Error('a discovery vanished between insert and select');
  return { discovery: discoveryOf(stored.rows[0]), isNew: false };
}

function discoveryOf(row: Row): Discovery {
  const { tile_x: x, tile_y: y } = row;
  return {
    id: row.id,
    player: { id: row.player_id, name: row.player_name },
    region: row.region,
    tile: x === null || y === null ? null : { x, y },
    what: row.what,
    at: row.created_at.toISOString(),
  };
}
