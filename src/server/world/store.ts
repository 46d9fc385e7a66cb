/**
 * Discoveries in Postgres. Whoever explores a tile first makes its discovery. A POST that is sent again with the same
 * key is stored once: that is what lets a proxy or a client retry without asking. Promises that a lost database is a
 * rejected promise within seconds, never a crash nor a promise that stays open.
 */
import { Pool } from 'pg';
import type { Logger } from 'pino';
import { type BootVerdict, type ImageNeeds, mayBoot, type SchemaSeen } from '../../boot-rule.ts';
import type { ServerSettings } from '../../env/schema.ts';
import type { Discovery, Person } from '../../protocol.ts';
import type { Readiness } from '../readiness.ts';

export interface Exploration {
  player: Person;
  region: string;
  tile: { x: number; y: number };
  what: string;
  key: string;
}

export interface Standing {
  player: Person;
  discoveries: number;
}

export interface Store {
  pool: Pool;
  /** Newest first; of one region, or of all. */
  latest(count: number, region: string | null): Promise<Discovery[]>;
  /** `isNew` is false when somebody was there before, or that player has sent this key before: whose it is then. */
  keep(found: Exploration): Promise<{ discovery: Discovery; isNew: boolean }>;
  leaders(count: number): Promise<Standing[]>;
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
/** Postgres ends what takes longer. Frozen or cut off it ends nothing: then we give up, and the connection with it. */
const statementMs = 5_000;
const silenceMs = 6_000;
const againMs = { waiting: 100, answering: 2_000 };

export interface StoreRequest {
  settings: ServerSettings;
  readiness: Readiness;
  log: Logger;
  /** What this server's code needs of the schema; null when it was not built into an image. */
  needs: ImageNeeds | null;
  /** Called at most once: this server can never run on this schema. */
  onTooOld(floor: string): void;
}

export function openStore(request: StoreRequest): Store {
  const { settings, log } = request;
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
  // An idle connection that breaks is an 'error' event, and one nobody hears ends the process.
  pool.on('error', (error) => log.warn({ reason: error.message }, 'postgres connection lost'));
  const watch = watchDatabase(pool, request);
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
  // The key first: what was answered to it once is what it answers again.
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

/** A time limit of its own, which pg takes for a query, too, though its types know it for connections only. */
const soon = { query_timeout: 2_000 };

/** Asks in the background, often while waiting (a deploy counts these milliseconds), seldom afterwards. */
function watchDatabase(pool: Pool, request: StoreRequest): { stop(): void } {
  const { readiness, log, onTooOld } = request;
  let timer: NodeJS.Timeout | undefined;
  let told = '';
  let stopped = false;
  let wasReady = false;
  const tell = (state: string) => {
    if (state !== told && state !== '') log.warn({ reason: state }, 'postgres is not usable yet or any more');
    if (state === '' && told !== '') log.info('postgres is usable again');
    told = state;
  };
  const ask = async () => {
    let fits = false;
    try {
      const seen = await seenOf(pool, request.needs?.needs ?? null);
      const verdict = request.needs === null ? 'yes' : mayBoot(request.needs, seen);
      fits = verdict === 'yes';
      readiness.set('postgres', true);
      readiness.set('schema', fits);
      tell(reasonOf(verdict, request.needs, seen.floor));
      // Whoever plays here already is not sent away for it: no deploy would have let it come so far.
      if (verdict === 'image-too-old' && !wasReady && !stopped) onTooOld(seen.floor ?? '');
      wasReady ||= fits;
    } catch (error) {
      readiness.set('postgres', false);
      tell(error instanceof Error ? error.message || error.name : 'unknown');
    }
    if (!stopped) timer = setTimeout(ask, fits ? againMs.answering : againMs.waiting);
  };
  void ask();
  return {
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}

/** Both books may be missing: in a database that is still empty, or that only node-pg-migrate has migrated. */
async function seenOf(pool: Pool, needed: string | null): Promise<SchemaSeen> {
  const { rows } = await pool.query<{ table: boolean; ledger: boolean }>({
    ...soon,
    text: `select to_regclass('public.pgmigrations') is not null as "table", to_regclass('gameops.state') is not null as ledger`,
  });
  const there = rows[0] ?? { table: false, ledger: false };
  const applied = there.table
    ? await pool.query<{ name: string }>({
        ...soon,
        text: 'select name from public.pgmigrations where name = $1',
        values: [needed],
      })
    : { rows: [] };
  const state = there.ledger
    ? await pool.query<{ floor: string | null }>({ ...soon, text: 'select floor from gameops.state' })
    : { rows: [] };
  return { applied: new Set(applied.rows.map(({ name }) => name)), floor: state.rows[0]?.floor ?? null };
}

function reasonOf(verdict: BootVerdict, image: ImageNeeds | null, floor: string | null): string {
  if (verdict === 'yes') return '';
  return verdict === 'schema-too-old'
    ? `migration ${image?.needs} is not applied`
    : `this server knows the schema up to ${image?.knows}, and the database has gone past that with ${floor}`;
}
