/**
 * `npm run bench:db-restore`: what a backup and a restore of 1 GB cost, and for how long clients of the bundled server and
 * of Postgres itself get no answer in the meantime (limit: 1 s). Needs the build and the images; works on a project of
 * its own and leaves nothing.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client } from 'pg';
import { type RestoreMoment, restoreBackup } from '../../src/database/backup/restore.ts';
import { takeBackup } from '../../src/database/backup/take.ts';
import { databaseEndpoint } from '../../src/database/server/connection.ts';
import { dockerEngine } from '../../src/engine/docker/engine.ts';
import { openTestGame } from '../support/players/test-game.ts';
import { engineImage } from '../support/site/engine-image.ts';

const rounds = Number(process.argv[2] ?? 3);
const megabytes = Number(process.argv[3] ?? 1_000);
const gapMsMax = 1_000;
const restoreMsMax = 40_000;

const say = (text: string) => process.stdout.write(`${text}\n`);
const s = (ms: number) => `${(ms / 1_000).toFixed(2)} s`;
const mb = (bytes: number) => `${Math.round(bytes / 1e6)} MB`;

/** Asks again as soon as it has an answer. @returns the longest time from one good answer to the next */
async function ask(question: () => Promise<boolean>, isOver: () => boolean) {
  const seen = { answers: 0, failures: 0, gapMs: 0 };
  let last = performance.now();
  while (!isOver()) {
    if (await question().catch(() => false)) {
      seen.answers += 1;
      seen.gapMs = Math.max(seen.gapMs, performance.now() - last);
      last = performance.now();
    } else {
      seen.failures += 1;
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  seen.gapMs = Math.max(seen.gapMs, performance.now() - last);
  return seen;
}

/** A client without a pool: it connects again when it is cut off. */
function plainClient(settings: Record<string, string>) {
  let client: Client | null = null;
  return async () => {
    try {
      if (client === null) {
        client = new Client({
          host: settings.DB_HOST,
          port: Number(settings.DB_PORT),
          database: settings.DB_NAME,
          user: settings.DB_USER,
          password: settings.DB_PASSWORD,
          query_timeout: 5_000,
        });
        client.on('error', () => undefined);
        await client.connect();
      }
      await client.query('SELECT id FROM discoveries ORDER BY id DESC LIMIT 1');
      return true;
    } catch (error) {
      await client?.end().catch(() => undefined);
      client = null;
      throw error;
    }
  };
}

const game = await openTestGame('bench-restore');
const engine = await dockerEngine();
const folder = await mkdtemp(join(tmpdir(), 'gameops-bench-restore-'));
try {
  await fill();
  // The exchange of names would end its connection, and it has no listener for that.
  await game.database.end();
  const server = await game.startReady();
  const endpoint = {
    ...(await databaseEndpoint(engine, game.project, {
      DB_HOST: 'postgres',
      DB_PORT: 5432,
      DB_NAME: game.settings.DB_NAME ?? '',
      DB_USER: game.settings.DB_USER ?? '',
      DB_PASSWORD: game.settings.DB_PASSWORD ?? '',
    })),
  };
  const emit = () => undefined;
  const on = {
    engine,
    project: game.project,
    endpoint,
    image: await engineImage('postgres'),
    folder,
    emit,
  };
  const backup = await takeBackup(on, { level: 'read', release: null, reason: 'bench' });
  const { manifest } = backup;
  say(
    `backup of ${mb(manifest.databaseBytes)}: ${mb(manifest.bytes)} in ${s(manifest.ms)}, ${s(manifest.verified.ms)} of it reading it back`,
  );
  const worst = { gap: 0, restore: 0, swap: 0 };
  for (let round = 0; round < rounds; round += 1) {
    let isOver = false;
    const rest = async () => {
      const answer = await fetch(`${server.url}/api/discoveries`, { signal: AbortSignal.timeout(5_000) });
      await answer.arrayBuffer();
      return answer.status === 200;
    };
    const asking = [
      ...[1, 2, 3, 4].map(() => ask(rest, () => isOver)),
      ...[1, 2, 3, 4].map(() => ask(plainClient(game.settings), () => isOver)),
    ];
    const began = performance.now();
    const stages: string[] = [];
    let last = { name: 'looking', at: began };
    const stage = (name: RestoreMoment) => {
      stages.push(`${last.name} ${s(performance.now() - last.at)}`);
      last = { name, at: performance.now() };
    };
    const { ms, connections, undo } = await restoreBackup(on, backup, stage);
    const tookMs = performance.now() - began;
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    isOver = true;
    const seen = await Promise.all(asking);
    const gaps = (part: typeof seen) => Math.max(...part.map(({ gapMs }) => gapMs));
    const sum = (part: typeof seen, key: 'answers' | 'failures') =>
      part.reduce((total, one) => total + one[key], 0);
    const [server4, plain4] = [seen.slice(0, 4), seen.slice(4)];
    say(
      `restore ${s(tookMs)}, names exchanged in ${ms} ms, ${connections} connections ended; longest gap: REST ${s(gaps(server4))} (${sum(server4, 'answers')} answers, ${sum(server4, 'failures')} failed), pg ${s(gaps(plain4))} (${sum(plain4, 'answers')} answers, ${sum(plain4, 'failures')} failed)`,
    );
    worst.gap = Math.max(worst.gap, gaps(seen));
    worst.restore = Math.max(worst.restore, tookMs);
    worst.swap = Math.max(worst.swap, ms);
    say(`  ${stages.join(', ')}`);
    await dropAside(undo);
  }
  say(`longest gap of a client ${s(worst.gap)} (limit ${s(gapMsMax)}, worst of ${rounds})`);
  say(`restore and comparison ${s(worst.restore)} (limit ${s(restoreMsMax)}, worst of ${rounds})`);
  process.exitCode = worst.gap <= gapMsMax && worst.restore <= restoreMsMax ? 0 : 1;
} finally {
  await game.clear();
  await engine.close();
  await rm(folder, { recursive: true, force: true });
  await game.remove();
}

async function fill(): Promise<void> {
  await game.database.query('SET statement_timeout = 0');
  await game.database.query(`INSERT INTO discoveries (player_id, player_name, region, what, idempotency_key)
    SELECT 'player-' || n % 5000, 'Player ' || n % 5000, 'north', md5(n::text), 'key-' || n FROM generate_series(1, 20000) n`);
  // Half of it compresses well, half does not. It has an index, as tables of a game do.
  await game.database.query(
    'CREATE TABLE chronicle (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text, what text, mark text)',
  );
  for (;;) {
    const { rows } = await game.database.query<{ bytes: string }>(
      'SELECT pg_database_size(current_database()) AS bytes',
    );
    if (Number(rows[0]?.bytes) >= megabytes * 1e6) break;
    await game.database.query(`INSERT INTO chronicle (who, what, mark)
      SELECT 'player ' || n % 1000, repeat('walked north and found nothing. ', 4), md5(random()::text) || md5(n::text) || md5(random()::text)
      FROM generate_series(1, 200000) n`);
  }
  await game.database.query('CREATE INDEX chronicle_mark ON chronicle (substr(mark, 1, 16))');
}

async function dropAside(name: string): Promise<void> {
  const client = new Client({
    host: game.settings.DB_HOST,
    port: Number(game.settings.DB_PORT),
    database: 'postgres',
    user: game.settings.DB_USER,
    password: game.settings.DB_PASSWORD,
  });
  await client.connect();
  await client.query(`DROP DATABASE "${name}"`);
  await client.end();
}
