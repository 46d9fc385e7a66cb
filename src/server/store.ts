/**
 * Discoveries in Postgres. A POST that is sent again with the same key is stored once: that is what lets a proxy or
 * a client retry without asking. Promises that a lost database is a rejected promise, never a crash.
 */
import { Pool } from 'pg';
import type { Logger } from 'pino';
import type { ServerSettings } from '../env/schema.ts';
import type { Discovery, Person } from '../protocol.ts';
import type { Readiness } from './readiness.ts';

export interface Store {
  latest(count: number): Promise<Discovery[]>;
  /** `isNew` is false when that player has sent this key before: `discovery` is then the one stored first. */
  keep(found: {
    player: Person;
    region: string;
    what: string;
    key: string;
  }): Promise<{ discovery: Discovery; isNew: boolean }>;
  close(): Promise<void>;
}

interface Row {
  id: string;
  player_id: string;
  player_name: string;
  region: string;
  what: string;
  created_at: Date;
}

const columns = 'id, player_id, player_name, region, what, created_at';
/** Few per replica: two fleets of many replicas share the database's 100 connections. */
const connectionsPerReplica = 5;
const againMs = { waiting: 100, answering: 2_000 };

export function openStore(settings: ServerSettings, readiness: Readiness, log: Logger): Store {
  const pool = new Pool({
    host: settings.DB_HOST,
    port: settings.DB_PORT,
    database: settings.DB_NAME,
    user: settings.DB_USER,
    password: settings.DB_PASSWORD,
    max: connectionsPerReplica,
    connectionTimeoutMillis: 2_000,
    statement_timeout: 5_000,
    application_name: 'gameops-server',
  });
  // An idle connection that breaks is an 'error' event, and one nobody hears ends the process.
  pool.on('error', (error) => log.warn({ reason: error.message }, 'postgres connection lost'));
  const watch = watchDatabase(pool, readiness, log);
  return {
    async latest(count) {
      const { rows } = await pool.query<Row>(`select ${columns} from discoveries order by id desc limit $1`, [
        count,
      ]);
      return rows.map(discoveryOf);
    },
    async keep({ player, region, what, key }) {
      const inserted = await pool.query<Row>(
        `insert into discoveries (player_id, player_name, region, what, idempotency_key) values ($1, $2, $3, $4, $5)
         on conflict (player_id, idempotency_key) do nothing returning ${columns}`,
        [player.id, player.name, region, what, key],
      );
      if (inserted.rows[0]) return { discovery: discoveryOf(inserted.rows[0]), isNew: true };
      const stored = await pool.query<Row>(
        `select ${columns} from discoveries where player_id = $1 and idempotency_key = $2`,
        [player.id, key],
      );
      if (!stored.rows[0]) throw new Error('a discovery vanished between insert and select');
      return { discovery: discoveryOf(stored.rows[0]), isNew: false };
    },
    async close() {
      watch.stop();
      await pool.end();
    },
  };
}

function discoveryOf(row: Row): Discovery {
  return {
    id: row.id,
    player: { id: row.player_id, name: row.player_name },
    region: row.region,
    what: row.what,
    at: row.created_at.toISOString(),
  };
}

/** Asks in the background, often while waiting (a deploy counts these milliseconds), seldom afterwards. */
function watchDatabase(pool: Pool, readiness: Readiness, log: Logger): { stop(): void } {
  let timer: NodeJS.Timeout | undefined;
  let told = '';
  let stopped = false;
  const tell = (state: string) => {
    if (state !== told && state !== '') log.warn({ reason: state }, 'postgres is not usable yet or any more');
    if (state === '' && told !== '') log.info('postgres is usable again');
    told = state;
  };
  const ask = async () => {
    let hasSchema = false;
    try {
      const { rows } = await pool.query<{ present: boolean }>(
        `select to_regclass('discoveries') is not null as present`,
      );
      hasSchema = rows[0]?.present === true;
      readiness.set('postgres', true);
      readiness.set('schema', hasSchema);
      tell(hasSchema ? '' : 'table discoveries is missing: migrations are pending');
    } catch (error) {
      readiness.set('postgres', false);
      tell(error instanceof Error ? error.message || error.name : 'unknown');
    }
    if (!stopped) timer = setTimeout(ask, hasSchema ? againMs.answering : againMs.waiting);
  };
  void ask();
  return {
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}
