/**
 * A folder with .env, gameops.yaml and migrations of its own, worked on with the real CLI against a real Postgres that
 * it reaches as an external one. Leaves nothing but what the CLI made in that database.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Docker from 'dockerode';
import pg from 'pg';
import { stringify } from 'yaml';
import { namesOf } from '../../../src/contract.ts';
import { packageRoot } from '../../../src/package-root.ts';
import type { TestProject } from './accessories.ts';
import type { Envelope } from './site.ts';

export interface RanDb {
  /** null: killed. */
  exitCode: number | null;
  json: Envelope | null;
  stderr: string;
  ms: number;
}

export interface Started {
  process: ChildProcess;
  /** When it has the lock, or ended without. */
  atWork: Promise<void>;
  ended: Promise<RanDb>;
}

export interface SchemaSite {
  /** Nothing of it is on the engine but what a verb makes for a moment. */
  project: string;
  folder: string;
  migrations: string;
  database: string;
  url: string;
  run(args: readonly string[], env?: Record<string, string>): Promise<RanDb>;
  start(args: readonly string[], env?: Record<string, string>): Started;
  write(name: string, up: string, down: string, header?: string): Promise<void>;
  query(sql: string): Promise<Record<string, unknown>[]>;
  /** An empty database, and an empty folder. */
  reset(): Promise<void>;
  close(): Promise<void>;
}

const bin = join(packageRoot(), 'bin', 'gameops.js');

export async function openSchemaSite(on: TestProject, config: object = {}): Promise<SchemaSite> {
  const { DB_NAME: database, DB_USER: user, DB_PASSWORD: password } = on.settings;
  const container = await new Docker().getContainer(namesOf(on.project).postgres).inspect();
  const host = Object.values(container.NetworkSettings.Networks)[0]?.IPAddress ?? '';
  const folder = await mkdtemp(join(tmpdir(), `${on.project}-site-`));
  const migrations = join(folder, 'migrations');
  const settings = {
    // Another project, which the engine does not know: the lock under test is the database's.
    project: `${on.project.slice(0, 24)}-x`,
    server: { image: 'example/none:1' },
    database: { migrations: 'migrations' },
  };
  await writeFile(join(folder, 'gameops.yaml'), stringify({ ...settings, ...config }));
  await writeFile(join(folder, '.env'), '', { mode: 0o600 });
  const env = { DB_HOST: host, DB_PORT: '5432', DB_NAME: database, DB_USER: user, DB_PASSWORD: password };
  await mkdir(migrations);
  const client = { host, port: 5432, user, password, database };
  const query = async (sql: string) => {
    const connection = new pg.Client(client);
    connection.on('error', () => {});
    await connection.connect();
    try {
      const answer = await connection.query(sql);
      return Array.isArray(answer) ? (answer.at(-1)?.rows ?? []) : answer.rows;
    } finally {
      await connection.end();
    }
  };
  const start = (args: readonly string[], more: Record<string, string> = {}) => {
    const began = performance.now();
    const child = spawn(process.execPath, ['--', bin, ...args, '--json'], {
      cwd: folder,
      env: { PATH: process.env.PATH ?? '', HOME: folder, ...env, ...more },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (text) => (stdout += text));
    child.stderr.on('data', (text) => (stderr += text));
    const ended = new Promise<RanDb>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (exitCode) => {
        const json = stdout === '' ? null : (JSON.parse(stdout) as Envelope);
        resolve({ exitCode, json, stderr, ms: Math.round(performance.now() - began) });
      });
    });
    const atWork = new Promise<void>((resolve) => {
      child.stderr.on('data', () => {
        if (stderr.includes('took the lock of migrations')) resolve();
      });
      child.on('close', () => resolve());
    });
    return { process: child, atWork, ended };
  };
  return {
    folder,
    migrations,
    database,
    start,
    query,
    project: settings.project,
    url: `postgres://${encodeURIComponent(user)}:${encodeURIComponent(password)}@${host}:5432/${database}`,
    run: (args, more) => start(args, more).ended,
    write: (name, up, down, header = '') =>
      writeFile(
        join(migrations, `${name}.sql`),
        `${header === '' ? '' : `-- gameops: ${header}\n`}-- Up Migration\n${up};\n-- Down Migration\n${down};\n`,
      ),
    async reset() {
      await query('DROP SCHEMA IF EXISTS gameops CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public');
      await rm(migrations, { recursive: true, force: true });
      await mkdir(migrations);
    },
    close: () => rm(folder, { recursive: true, force: true }),
  };
}
