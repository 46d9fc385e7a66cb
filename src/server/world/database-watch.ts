/**
 * Watches the database for readiness: whether Postgres answers, and whether its schema is one that this server can run
 * on. Asks in the background: often while the server waits, because a deploy counts these milliseconds, and seldom
 * afterwards.
 */
import type { Pool } from 'pg';
import type { Logger } from 'pino';
import { type BootVerdict, type ImageNeeds, mayBoot, type SchemaSeen } from '../../boot-rule.ts';
import type { Readiness } from '../readiness.ts';

export interface WatchRequest {
  pool: Pool;
  readiness: Readiness;
  log: Logger;
  /** What this server's code needs of the schema; null when it was not built into an image. */
  needs: ImageNeeds | null;
  /** Called at most once: this server can never run on this schema. */
  onTooOld(floor: string): void;
}

interface Watch extends WatchRequest {
  timer: NodeJS.Timeout | undefined;
  /** The reason that was logged last; '' when all was well. */
  told: string;
  isStopped: boolean;
  wasReady: boolean;
}

const againMs = { waiting: 100, answering: 2_000 };

/** A time limit of its own. `pg` takes it for a query, too, though its types know it for connections only. */
const soon = { query_timeout: 2_000 };

export function watchDatabase(request: WatchRequest): { stop(): void } {
  const watch: Watch = { ...request, timer: undefined, told: '', isStopped: false, wasReady: false };
  void ask(watch);
  return {
    stop() {
      watch.isStopped = true;
      clearTimeout(watch.timer);
    },
  };
}

async function ask(watch: Watch): Promise<void> {
  const { pool, needs, readiness } = watch;
  let fits = false;
  try {
    const seen = await seenOf(pool, needs?.needs ?? null);
    const verdict = needs === null ? 'yes' : mayBoot(needs, seen);
    fits = verdict === 'yes';
    readiness.set('postgres', true);
    readiness.set('schema', fits);
    tell(watch, reasonOf(verdict, needs, seen.floor));
    // Players who are here already are not sent away for it: no deploy would have let it come so far.
    if (verdict === 'image-too-old' && !watch.wasReady && !watch.isStopped) watch.onTooOld(seen.floor ?? '');
    watch.wasReady ||= fits;
  } catch (error) {
    readiness.set('postgres', false);
    tell(watch, error instanceof Error ? error.message || error.name : 'unknown');
  }
  if (!watch.isStopped)
    watch.timer = setTimeout(() => void ask(watch), fits ? againMs.answering : againMs.waiting);
}

/** @param reason '' when all is well */
function tell(watch: Watch, reason: string): void {
  const { log, told } = watch;
  if (reason !== told && reason !== '') log.warn({ reason }, 'postgres is not usable');
  if (reason === '' && told !== '') log.info('postgres is usable');
  watch.told = reason;
}

/** Both tables may be missing: in a database that is still empty, or that only node-pg-migrate has migrated. */
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
    : `this server knows the schema up to ${image?.knows}, but migration ${floor} is applied and needs a newer server`;
}
