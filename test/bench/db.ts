/**
 * `npm run bench:db`: a thousand light migrations and a status that has nothing to say, beside node-pg-migrate's own
 * CLI in the same run, interleaved, by medians; and how long a reader waits behind an ALTER that waits for somebody.
 */
import { spawnSync } from 'node:child_process';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { packageRoot } from '../../src/engine/images-files.ts';
import { ground } from '../support/accessories.ts';
import { openSchemaSite, type SchemaSite } from '../support/schema-site.ts';

const files = 1_000;
const rounds = Number(process.argv[2] ?? '3');
const lockMs = 300;
const nodePgMigrate = join(packageRoot(), 'node_modules/node-pg-migrate/bin/node-pg-migrate.js');

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
const say = (text: string) => process.stdout.write(`${text}\n`);

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
  const line = (what: string, ours: number[], theirs: number[], limit: number) =>
    say(
      `${what}: gameops ${median(ours).toFixed(0)} ms, node-pg-migrate ${median(theirs).toFixed(0)} ms, ratio ${(median(ours) / median(theirs)).toFixed(2)} (limit ${limit})`,
    );
  line(`${files} light migrations`, ms.migrate, ms.theirs, 1);
  line(`status of ${files} files, nothing to do`, ms.status, ms.theirNoop, 0.6);
}

async function readsBehind(site: SchemaSite): Promise<void> {
  await site.reset();
  await site.query('CREATE TABLE busy (n int)');
  await site.write('1_busy', 'ALTER TABLE busy ADD a int', 'ALTER TABLE busy DROP a');
  const reader = new pg.Client({ connectionString: site.url });
  await reader.connect();
  const waits: number[] = [];
  let isOver = false;
  const reading = (async () => {
    while (!isOver) {
      const began = performance.now();
      await reader.query('SELECT count(*) FROM busy');
      waits.push(performance.now() - began);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  })();
  const holding = site.query('BEGIN; LOCK TABLE busy IN ACCESS SHARE MODE; SELECT pg_sleep(8)');
  const migrated = await site.run(['db', 'migrate']);
  isOver = true;
  await Promise.all([reading, holding]);
  await reader.end();
  const behind = waits.filter((ms) => ms > lockMs / 2);
  const worst = Math.max(...waits);
  const free = 1 - behind.reduce((sum, ms) => sum + ms, 0) / migrated.ms;
  say(
    `reads behind an ALTER that waited ${(migrated.ms / 1000).toFixed(1)} s: longest ${worst.toFixed(0)} ms = ${(worst / lockMs).toFixed(2)} × lock timeout; ${behind.length} of ${waits.length} waited, free ${(free * 100).toFixed(0)} % of the time`,
  );
}

const on = await ground('benchdb');
try {
  await on.ensure();
  const site = await openSchemaSite(on);
  try {
    await thousand(site);
    await readsBehind(site);
  } finally {
    await site.close();
  }
} finally {
  await on.remove();
}
