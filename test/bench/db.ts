/**
 * `npm run bench:db -- [rounds=3 only=thousand,reads,restore,release]`: everything about the schema that has a time
 * limit. A thousand light migrations and a status without changes, compared with node-pg-migrate's own CLI in the same
 * run, interleaved, by medians; how long a reader waits behind an ALTER that waits for another transaction, which ends or
 * stays; then bench:db-restore and bench:db-release, with limits of their own. Exits 1 when a limit was missed.
 */
import { spawnSync } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import pg from 'pg';
import { packageRoot } from '../../src/package-root.ts';
import { openTestProject } from '../support/site/accessories.ts';
import { openSchemaSite, type RanDb, type SchemaSite } from '../support/site/schema-site.ts';
import { judge, judgeLeast, median, missed, say, sleep, table, worst } from './table.ts';

const files = 1_000;
const asked = Object.fromEntries(process.argv.slice(2).map((pair) => pair.split('=')));
const rounds = Number(asked.rounds ?? 3);
const parts = ['thousand', 'reads', 'restore', 'release'];
const only: string[] = asked.only?.split(',') ?? parts;
const lockMs = 300;
/** A timer and an answer come a little after the lock is released. */
const readWaitMax = 1.1;
/** The time that the documentation promises, and one attempt that begins just before its end. */
const patienceMs = 60_000 + 5_000;
const nodePgMigrate = join(packageRoot(), 'node_modules/node-pg-migrate/bin/node-pg-migrate.js');

function theirsMs(site: SchemaSite): number {
  const began = performance.now();
  const args = [nodePgMigrate, 'up', '-m', site.migrations, '--no-single-transaction'];
  const ran = spawnSync(process.execPath, args, {
    env: { ...process.env, DATABASE_URL: site.url },
    encoding: 'utf8',
  });
  if (ran.status !== 0) throw new Error(`node-pg-migrate ended with ${ran.status}: ${ran.stderr}`);
  return performance.now() - began;
}

async function oursMs(site: SchemaSite, args: readonly string[]): Promise<number> {
  const ran = await site.run([...args, '--quiet']);
  if (ran.exitCode !== 0)
    throw new Error(`${args.join(' ')} ended with ${ran.exitCode}: ${ran.json?.error?.message}`);
  return ran.ms;
}

async function fresh(site: SchemaSite): Promise<void> {
  await site.query(
    'DROP SCHEMA IF EXISTS gameops CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public; CREATE TABLE light (n int)',
  );
}

async function writeLight(site: SchemaSite): Promise<void> {
  await rm(site.migrations, { recursive: true, force: true });
  await mkdir(site.migrations);
  for (let n = 1; n <= files; n += 1) {
    const text = `-- Up Migration\nINSERT INTO light VALUES (${n});\n-- Down Migration\nDELETE FROM light WHERE n = ${n};\n`;
    await writeFile(join(site.migrations, `${String(n).padStart(4, '0')}_light.sql`), text);
  }
}

async function thousand(site: SchemaSite): Promise<void> {
  await writeLight(site);
  const ms = {
    migrate: [] as number[],
    theirs: [] as number[],
    status: [] as number[],
    theirNoop: [] as number[],
  };
  for (let round = 0; round < rounds; round += 1) {
    await fresh(site);
    ms.theirs.push(theirsMs(site));
    for (let n = 0; n < 3; n += 1) ms.theirNoop.push(theirsMs(site));
    await fresh(site);
    ms.migrate.push(await oursMs(site, ['db', 'migrate']));
    for (let n = 0; n < 3; n += 1) ms.status.push(await oursMs(site, ['db', 'status']));
  }
  compare(`${files} light migrations`, ms.migrate, ms.theirs, 1);
  compare(`status of ${files} files, nothing to do`, ms.status, ms.theirNoop, 0.6);
}

function compare(what: string, ours: number[], theirs: number[], limit: number): void {
  say(
    `${what}: gameops ${median(ours).toFixed(0)} ms, node-pg-migrate ${median(theirs).toFixed(0)} ms; medians`,
  );
  judge(`${what}, × node-pg-migrate`, [median(ours) / median(theirs)], limit, median);
}

interface Seen {
  /** How long each read took. */
  waits: number[];
  /** How many of them waited. */
  behind: number;
  migrated: RanDb;
}

/** An ALTER of a table that another transaction holds for so long, and a client that reads it all the time. */
async function readsBehind(site: SchemaSite, heldMs: number): Promise<Seen> {
  await site.reset();
  await site.query('CREATE TABLE busy (n int)');
  await site.write('1_busy', 'ALTER TABLE busy ADD a int', 'ALTER TABLE busy DROP a');
  const reader = new pg.Client({ connectionString: site.url });
  await reader.connect();
  const holder = new pg.Client({ connectionString: site.url });
  await holder.connect();
  // The server ends a transaction that is idle for a minute, which is also when the migration gives up.
  await holder.query('SET idle_in_transaction_session_timeout = 0');
  await holder.query('BEGIN; LOCK TABLE busy IN ACCESS SHARE MODE');
  const waits: number[] = [];
  let isOver = false;
  const reading = (async () => {
    while (!isOver) {
      const began = performance.now();
      await reader.query('SELECT count(*) FROM busy');
      waits.push(performance.now() - began);
      await sleep(5);
    }
  })();
  const migrating = site.run(['db', 'migrate']);
  const over = new AbortController();
  await Promise.race([wait(heldMs, null, { signal: over.signal }).catch(() => null), migrating]);
  // The remaining time would keep this process alive.
  over.abort();
  await holder.end();
  const migrated = await migrating;
  isOver = true;
  await reading;
  await reader.end();
  const behind = waits.filter((ms) => ms > lockMs / 2);
  const free = 1 - behind.reduce((sum, ms) => sum + ms, 0) / migrated.ms;
  say(
    `reads behind an ALTER that waited ${(migrated.ms / 1000).toFixed(1)} s, exit ${migrated.exitCode} ${migrated.json?.error?.code ?? ''}: longest ${Math.max(...waits).toFixed(0)} ms; ${behind.length} of ${waits.length} waited, free ${(free * 100).toFixed(0)} % of the time`,
  );
  return { waits, behind: behind.length, migrated };
}

async function reads(site: SchemaSite): Promise<void> {
  const goes = await readsBehind(site, 8_000);
  const stays = await readsBehind(site, 3 * patienceMs);
  // An ALTER that held up no reader proves nothing.
  judgeLeast('reads that waited behind an ALTER', [goes.behind, stays.behind], 1);
  const longest = [goes, stays].map(({ waits }) => Math.max(...waits) / lockMs);
  judge('longest read behind an ALTER, × lock timeout', longest, readWaitMax, worst);
  judge('ALTER whose blocker goes: exit code', [goes.migrated.exitCode ?? Number.NaN], 0, worst);
  const busy = stays.migrated.json?.error?.code === 'MIGRATION_BUSY';
  judge(
    'ALTER whose blocker stays: gives up after, s',
    [busy ? stays.migrated.ms / 1_000 : Number.NaN],
    patienceMs / 1_000,
    worst,
  );
}

/** In a process of its own, as when it is called by its name: it ends with 1 when it missed a limit. */
function bench(name: string): void {
  say(`npm run bench:${name}`);
  const { status } = spawnSync(process.execPath, ['scripts/run.js', `test/bench/${name}.ts`], {
    cwd: packageRoot(),
    stdio: 'inherit',
  });
  judge(`bench:${name}: exit code`, [status ?? Number.NaN], 0, worst);
}

async function ownRows(): Promise<void> {
  const on = await openTestProject('benchdb');
  try {
    await on.ensure();
    const site = await openSchemaSite(on);
    try {
      if (only.includes('thousand')) await thousand(site);
      if (only.includes('reads')) await reads(site);
    } finally {
      await site.close();
    }
  } finally {
    await on.remove();
  }
}

const unknown = only.filter((part) => !parts.includes(part));
if (unknown.length > 0) throw new Error(`there is no ${unknown.join(', ')}; there is ${parts.join(', ')}`);
if (only.includes('thousand') || only.includes('reads')) await ownRows();
if (only.includes('restore')) bench('db-restore');
if (only.includes('release')) bench('db-release');
table();
process.exitCode = missed() ? 1 : 0;
