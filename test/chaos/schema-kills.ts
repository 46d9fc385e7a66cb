/**
 * gameops killed with SIGKILL at random moments of `db migrate` and `db rollback`, concurrent indexes included; and two
 * runs at the same time. Counts what was half applied, what needed an operator, and how long the lock stayed.
 */
import { migrationLockKey } from '../../src/database/server/migration-lock.ts';
import type { SchemaSite } from '../support/site/schema-site.ts';

export interface Kills {
  kills: number;
  /** Killed after it had the lock and before it reported how it ended. */
  midRun: number;
  /** Of those, with a concurrent statement under way or half journaled. */
  midIndex: number;
  halfApplied: string[];
  /** Reruns that did not succeed by themselves. */
  stuck: string[];
  lockFreeMsMax: number;
  rerunMsMax: number;
}

const names = ['1_scores', '2_scores_index', '3_badges', '4_drop_index', '5_last'];
const tables: Record<string, string> = { '1_scores': 'scores', '3_badges': 'badges', '5_last': 'last' };

export async function prepareKills(site: SchemaSite): Promise<void> {
  await site.reset();
  await site.query('CREATE TABLE players (id int PRIMARY KEY, n int); CREATE INDEX players_n ON players (n)');
  await site.query('INSERT INTO players SELECT g, g % 97 FROM generate_series(1, 60000) g');
  await site.write(
    '1_scores',
    'CREATE TABLE scores AS SELECT g AS id, g % 1000 AS n FROM generate_series(1, 80000) g; SELECT pg_sleep(0.03)',
    'SELECT pg_sleep(0.03); DROP TABLE scores',
    'reversible=lossy',
  );
  await site.write(
    '2_scores_index',
    'CREATE INDEX CONCURRENTLY scores_n ON scores (n); CREATE UNIQUE INDEX CONCURRENTLY scores_id ON scores (id)',
    'DROP INDEX CONCURRENTLY scores_id; DROP INDEX CONCURRENTLY scores_n',
    'transaction=off',
  );
  await site.write(
    '3_badges',
    'CREATE TABLE badges (id int); SELECT pg_sleep(0.03)',
    'DROP TABLE badges; SELECT pg_sleep(0.03)',
  );
  await site.write(
    '4_drop_index',
    'DROP INDEX CONCURRENTLY players_n',
    'CREATE INDEX CONCURRENTLY players_n ON players (n)',
    'transaction=off',
  );
  await site.write('5_last', 'CREATE TABLE last (id int)', 'DROP TABLE last');
}

const migrate = ['db', 'migrate'];
const rollback = ['db', 'rollback', '--count', '5', '--accept-loss', '--yes'];

/** `count` kills of each direction. */
export async function killRuns(
  site: SchemaSite,
  count: number,
  say: (text: string) => void = () => {},
): Promise<{ migrate: Kills; rollback: Kills }> {
  const fresh = (): Kills => ({
    kills: 0,
    midRun: 0,
    midIndex: 0,
    halfApplied: [],
    stuck: [],
    lockFreeMsMax: 0,
    rerunMsMax: 0,
  });
  const seen = { migrate: fresh(), rollback: fresh() };
  // Runs that nobody kills show how long a run takes.
  const whole = { migrate: await spanOf(site, migrate), rollback: await spanOf(site, rollback) };
  for (let n = 0; n < count; n += 1) {
    // The first kill comes at once, so it is in the middle however slow the machine is. The others are spread over the run.
    const share = n === 0 ? 0 : (n + Math.random()) / count;
    await killOnce(site, migrate, whole.migrate * share, seen.migrate, names);
    await killOnce(site, rollback, whole.rollback * share, seen.rollback, []);
    await dropRescues(site);
    if (n % 20 === 19)
      say(`${n + 1} kills each way: ${seen.migrate.stuck.length + seen.rollback.stuck.length} stuck`);
  }
  return seen;
}

/** From the lock to the end, ms. */
async function spanOf(site: SchemaSite, args: readonly string[]): Promise<number> {
  const running = site.start(args);
  await running.atWork;
  const began = performance.now();
  const { exitCode, stderr } = await running.ended;
  if (exitCode !== 0) throw new Error(`${args.join(' ')} ended with ${exitCode}: ${stderr}`);
  return performance.now() - began;
}

async function must(site: SchemaSite, args: readonly string[]) {
  const ran = await site.run(args);
  if (ran.exitCode !== 0) throw new Error(`${args.join(' ')} ended with ${ran.exitCode}: ${ran.stderr}`);
  return ran;
}

async function killOnce(
  site: SchemaSite,
  args: readonly string[],
  afterMs: number,
  seen: Kills,
  wanted: readonly string[],
): Promise<void> {
  const running = site.start(args);
  await running.atWork;
  await new Promise((resolve) => setTimeout(resolve, afterMs));
  running.process.kill('SIGKILL');
  const { json } = await running.ended;
  const killed = performance.now();
  seen.kills += 1;
  if (json === null) seen.midRun += 1;
  const { held, open } = await untilLockIsFree(site);
  if (held) seen.lockFreeMsMax = Math.max(seen.lockFreeMsMax, performance.now() - killed);
  const applied = await appliedIn(site);
  if (open > 0) seen.midIndex += 1;
  for (const [name, table] of Object.entries(tables)) {
    const [row] = await site.query(`SELECT to_regclass('${table}') IS NOT NULL AS there`);
    if (row?.there !== applied.includes(name)) seen.halfApplied.push(`${args[1]}: ${name}`);
  }
  const again = await site.run(args);
  seen.rerunMsMax = Math.max(seen.rerunMsMax, again.ms);
  const now = await appliedIn(site);
  const problems = await problemsOf(site, wanted.length > 0);
  if (again.exitCode !== 0 || now.join() !== wanted.join() || problems !== '') {
    seen.stuck.push(
      `${args[1]}: exit ${again.exitCode}, applied ${now.join()}, ${problems} ${again.json?.error?.message ?? ''}`,
    );
  }
}

/** A copy of every round would fill the disk. */
async function dropRescues(site: SchemaSite): Promise<void> {
  for (const { saved_as } of await site.query('SELECT saved_as FROM gameops.rescues'))
    await site.query(`DROP TABLE IF EXISTS ${saved_as}`);
  await site.query('DELETE FROM gameops.rescues');
}

async function untilLockIsFree(site: SchemaSite): Promise<{ held: boolean; open: number }> {
  const locks = `SELECT count(*)::int AS n FROM pg_locks WHERE locktype = 'advisory' AND ((classid::bigint << 32) | objid::bigint) = ${migrationLockKey}`;
  let held = false;
  for (;;) {
    const [row] = await site.query(locks);
    if (row?.n === 0) break;
    held = true;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const [steps] = await site.query(`SELECT count(*)::int AS n FROM gameops.steps`);
  return { held, open: Number(steps?.n ?? 0) };
}

async function appliedIn(site: SchemaSite): Promise<string[]> {
  const rows = await site.query(
    `SELECT p.name, m.name IS NOT NULL AS kept FROM pgmigrations p LEFT JOIN gameops.migrations m USING (name) ORDER BY p.id`,
  );
  return rows.map(({ name, kept }) => (kept ? String(name) : `${name} without its ledger row`));
}

/** Invalid indexes, leftovers of the journal, indexes that should be there and are not. */
async function problemsOf(site: SchemaSite, isForward: boolean): Promise<string> {
  const [row] = await site.query(
    `SELECT (SELECT count(*) FROM pg_index WHERE NOT indisvalid)::int AS invalid, (SELECT count(*) FROM gameops.steps)::int AS steps,
            to_regclass('scores_n') IS NOT NULL AND to_regclass('scores_id') IS NOT NULL AS made, to_regclass('players_n') IS NOT NULL AS kept`,
  );
  const isRight = row?.invalid === 0 && row.steps === 0 && row.made === isForward && row.kept === !isForward;
  return isRight ? '' : JSON.stringify(row);
}

/** Two at once, `count` times. @returns what went wrong */
export async function twoAtOnce(site: SchemaSite, count: number): Promise<string[]> {
  const wrong: string[] = [];
  for (let n = 0; n < count; n += 1) {
    const both = await Promise.all([site.run(migrate), site.run(migrate)]);
    const ran = both.flatMap(({ json }) => (json?.result?.applied ?? []) as { name: string }[]);
    const once = ran
      .map(({ name }) => name)
      .sort()
      .join();
    const exits = both.map(({ exitCode }) => exitCode).join();
    if (exits !== '0,0' || once !== names.join())
      wrong.push(
        `exits ${exits}, applied ${once}: ${both.map(({ json }) => json?.error?.message ?? '').join(' ')}`,
      );
    await must(site, rollback);
  }
  return wrong;
}
