/** A project whose image belongs to the test and brings its own migrations, with Postgres as gameops runs it. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { namesOf } from '../../../src/contract.ts';
import { openSite, type Site, type SiteRequest } from './site.ts';

export interface MigratingSite extends Site {
  write(name: string, up: string, down: string, header?: string): Promise<void>;
  query(sql: string): Promise<Record<string, unknown>[]>;
  /** While `act` runs, rows of the table can be read and written, but the table itself can't be altered. */
  holding<T>(table: string, act: () => Promise<T>): Promise<T>;
  /** Names, in the order in which they were applied. */
  applied(): Promise<string[]>;
}

export async function openMigratingSite(request: SiteRequest): Promise<MigratingSite> {
  const site = await openSite(request);
  const folder = join(site.folder, 'migrations');
  await mkdir(folder, { recursive: true });
  await site.configure({ database: { migrations: 'migrations' } });
  const connected = async <T>(use: (client: pg.Client) => Promise<T>): Promise<T> => {
    const { DB_NAME: database, DB_USER: user, DB_PASSWORD: password } = await site.env();
    const container = await site.docker.getContainer(namesOf(site.project).postgres).inspect();
    const host = Object.values(container.NetworkSettings.Networks)[0]?.IPAddress ?? '';
    const client = new pg.Client({ host, port: 5432, database, user, password });
    client.on('error', () => undefined);
    await client.connect();
    try {
      return await use(client);
    } finally {
      await client.end();
    }
  };
  const query = (sql: string): Promise<Record<string, unknown>[]> =>
    connected(async (client) => {
      const answer = await client.query(sql);
      return Array.isArray(answer) ? (answer.at(-1)?.rows ?? []) : answer.rows;
    });
  return {
    ...site,
    query,
    holding: (table, act) =>
      connected(async (client) => {
        await client.query(`BEGIN; LOCK TABLE ${table} IN ACCESS SHARE MODE`);
        return act();
      }),
    write: (name, up, down, header = '') =>
      writeFile(
        join(folder, `${name}.sql`),
        `${header === '' ? '' : `-- gameops: ${header}\n`}-- Up Migration\n${up};\n-- Down Migration\n${down};\n`,
      ),
    applied: async () =>
      (await query('SELECT name FROM pgmigrations ORDER BY id')).map((row) => row.name as string),
  };
}
