/** A real database with something of everything in it, a folder for its backups, and the CLI on both. */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Backup, Manifest } from '../../../src/database/backup/model.ts';
import type { BackupAccess } from '../../../src/database/backup/take.ts';
import {
  type DatabaseEndpoint,
  databaseEndpoint,
  withClient,
} from '../../../src/database/server/connection.ts';
import type { Event } from '../../../src/report/events.ts';
import { type Run, start } from '../program.ts';
import { openTestProject, type TestProject } from './accessories.ts';
import { engineImage } from './engine-image.ts';

export interface BackupLab {
  on: TestProject;
  endpoint: DatabaseEndpoint;
  /** With a folder of its own, empty. */
  open(over?: Partial<BackupAccess>): Promise<BackupAccess>;
  query<T extends object>(sql: string, database?: string): Promise<T[]>;
  /** The program, in a folder of its own: backups go to `<cwd>/backups/<project>`. */
  cli(args: readonly string[], over?: CliOptions): Running;
  /** Where the CLI puts them. */
  folder(cwd: string): string;
  events: Event[];
  remove(): Promise<void>;
}

export interface CliOptions {
  cwd?: string;
  env?: Record<string, string>;
  through?: readonly string[];
}

export interface Running {
  cwd: string;
  child: ReturnType<typeof start>['child'];
  ended: Promise<Run & { json: CliEnvelope }>;
}

export type CliEnvelope = {
  ok: boolean;
  // biome-ignore lint/suspicious/noExplicitAny: a result of any verb
  result?: any;
  error?: { code: string; message: string; next: string[] };
};

/** Something of all that a dump has to bring back. */
export const everything = `
  DROP SCHEMA public CASCADE; CREATE SCHEMA public;
  CREATE EXTENSION IF NOT EXISTS plpgsql;
  CREATE TYPE mood AS ENUM ('calm', 'keen');
  CREATE DOMAIN score AS int CHECK (value >= 0);
  CREATE TABLE players (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE,
    mood mood NOT NULL DEFAULT 'calm', points score NOT NULL DEFAULT 0, code text GENERATED ALWAYS AS (upper(name)) STORED);
  CREATE TABLE finds (id serial PRIMARY KEY, player bigint NOT NULL REFERENCES players ON DELETE CASCADE, what bytea);
  CREATE INDEX finds_player ON finds (player) WHERE what IS NOT NULL;
  CREATE TABLE moves (at date NOT NULL, n int) PARTITION BY RANGE (at);
  CREATE TABLE moves_26 PARTITION OF moves FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
  CREATE VIEW best AS SELECT name, points FROM players ORDER BY points DESC;
  CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS n FROM players;
  CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
  CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
  CREATE TRIGGER touched BEFORE INSERT ON finds FOR EACH ROW EXECUTE FUNCTION touch();
  CREATE SEQUENCE tickets START 100 INCREMENT 5;
  INSERT INTO players (name) SELECT 'player ' || n FROM generate_series(1, 500) n;
  INSERT INTO finds (player, what) SELECT 1 + n % 500, decode(md5(n::text) || md5((n * 7)::text), 'hex') FROM generate_series(1, 4000) n;
  INSERT INTO moves SELECT date '2026-01-01' + n, n FROM generate_series(1, 200) n;
  SELECT nextval('tickets'), nextval('tickets');
  CREATE TABLE pgmigrations (id serial PRIMARY KEY, name varchar(255) NOT NULL, run_on timestamp NOT NULL);
  INSERT INTO pgmigrations (name, run_on) VALUES ('1_first', now()), ('2_second', now());`;

export async function backupLab(area: string): Promise<BackupLab> {
  const on = await openTestProject(area);
  await on.ensure();
  const endpoint = await databaseEndpoint(on.engine, on.project, on.settings);
  const image = await engineImage('postgres');
  const events: Event[] = [];
  const folders: string[] = [];
  const newFolder = async () => {
    const folder = await mkdtemp(join(tmpdir(), 'gameops-backup-'));
    folders.push(folder);
    return folder;
  };
  const env = {
    ...Object.fromEntries(Object.entries(on.settings).map(([key, value]) => [key, String(value)])),
    JWT_SECRET: 'a-secret-of-the-tests-that-is-long-enough',
    DOCKER_HOST: process.env.DOCKER_HOST ?? 'unix:///var/run/docker.sock',
  };
  return {
    on,
    endpoint,
    events,
    async open(over = {}) {
      const emit = (event: Event) => void events.push(event);
      return {
        engine: on.engine,
        project: on.project,
        endpoint,
        image,
        folder: await newFolder(),
        emit,
        ...over,
      };
    },
    query: (sql, database = endpoint.database) =>
      withClient(
        { ...endpoint, database },
        async (client) => {
          const answer = await client.query(sql);
          return (Array.isArray(answer) ? answer.at(-1) : answer).rows;
        },
        { lockMs: 30_000, statementMs: 170_000 },
      ),
    cli(args, over = {}) {
      const cwd = over.cwd ?? tmpdir();
      const { child, ended } = start(['--project', on.project, '--json', ...args], {
        cwd,
        env: { ...env, ...over.env },
        through: over.through ?? [],
      });
      return { cwd, child, ended: ended.then((run) => ({ ...run, json: JSON.parse(run.out || '{}') })) };
    },
    folder: (cwd) => join(cwd, 'backups', on.project),
    async remove() {
      for (const folder of folders) await rm(folder, { recursive: true, force: true });
      await on.remove();
    },
  };
}

/** The same backup in a folder of its own, to be damaged. */
export async function copyOf(backup: Backup): Promise<{ folder: string; dump: string; manifest: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'gameops-damaged-'));
  const dump = join(folder, `${backup.id}.dump`);
  const manifest = join(folder, `${backup.id}.json`);
  await cp(backup.path, dump);
  await cp(backup.path.replace(/dump$/, 'json'), manifest);
  return { folder, dump, manifest };
}

export async function change(path: string, by: (content: Buffer) => Buffer): Promise<void> {
  await writeFile(path, by(await readFile(path)));
}

export async function manifestIn(path: string): Promise<Manifest> {
  return JSON.parse(await readFile(path, 'utf8')).manifest;
}
