/**
 * The roles of a database that is not gameops' own: the login is no superuser, an account that may only make roles helps.
 * Who is in stays in, who comes anew gets in, no table is locked, and what the login was set to, the new logins are.
 */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { namesOf, port, roleNames } from '../../../src/contract.ts';
import type { DatabaseEndpoint } from '../../../src/database/server/connection.ts';
import { withClient } from '../../../src/database/server/connection.ts';
import { withRoleAdmin } from '../../../src/database/server/role-admin.ts';
import { disableWhenQuiet, enable, markCurrent, readRoles } from '../../../src/database/server/roles.ts';
import { takeOver } from '../../../src/database/server/take-over.ts';
import { openTestProject, type TestProject } from '../../support/site/accessories.ts';

const awkward = `Pä§s"'$ #%\\${Math.random()}`;
const signal = new AbortController().signal;

let lab: TestProject;
let app: DatabaseEndpoint;
let dba: DatabaseEndpoint;
let root: pg.Client;
const names = roleNames('app');

beforeAll(async () => {
  lab = await openTestProject('roles');
  await lab.ensure();
  const at = await lab.engine.dial(lab.project, namesOf(lab.project).postgres, port.postgres);
  const { DB_USER, DB_PASSWORD } = lab.settings;
  root = new pg.Client({ ...at, user: DB_USER, password: DB_PASSWORD, database: 'postgres' });
  await root.connect();
  app = { ...at, user: 'app', password: awkward, database: 'app_db', accessory: null };
  dba = { ...at, user: 'dba', password: 'the-password-of-the-dba', database: 'postgres', accessory: null };
  const quote = (text: string) => root.escapeLiteral(text);
  for (const sql of [
    `CREATE ROLE app LOGIN PASSWORD ${quote(app.password)} CONNECTION LIMIT 42`,
    'CREATE DATABASE app_db OWNER app',
    'REVOKE CONNECT ON DATABASE app_db FROM PUBLIC',
    `ALTER ROLE app SET search_path = "Game", public`,
    `ALTER ROLE app SET statement_timeout = '7s'`,
    `ALTER ROLE app IN DATABASE app_db SET work_mem = '5MB'`,
    `CREATE ROLE dba LOGIN CREATEROLE PASSWORD ${quote(dba.password)}`,
    'GRANT app TO dba WITH ADMIN OPTION',
  ])
    await root.query(sql);
  await withClient(app, (client) => client.query('CREATE TABLE public.scores AS SELECT 1 AS score'));
});
afterAll(async () => {
  await root?.end();
  await lab?.remove();
});

const as = (login: DatabaseEndpoint, sql: string) =>
  withClient(login, async (client) => (await client.query(sql)).rows);
const rolesNow = () => withClient(app, (client) => readRoles(client, 'app'));

describe('making an owner role of a login role', () => {
  it('is refused without an administrator, and when the second login role exists already; then nothing is changed', async () => {
    await expect(withRoleAdmin(app, null, async () => undefined)).rejects.toMatchObject({
      code: 'ROTATION_REFUSED',
    });
    await root.query(`CREATE ROLE ${names.alternate}`);
    await expect(withRoleAdmin(app, dba, (admin) => takeOver(admin, app, names))).rejects.toMatchObject({
      code: 'ROTATION_REFUSED',
      facts: { role: names.alternate },
    });
    await root.query(`DROP ROLE ${names.alternate}`);
    expect(await rolesNow()).toBeNull();
  });

  it('is refused while the login role finds a schema by "$user", which the owner role would not find', async () => {
    await root.query('ALTER ROLE app IN DATABASE app_db SET search_path = "$user", public');
    await as(app, 'CREATE SCHEMA app');
    const refused = withRoleAdmin(app, dba, (admin) => takeOver(admin, app, names));
    await expect(refused).rejects.toMatchObject({
      code: 'ROTATION_REFUSED',
      next: [expect.stringContaining('SET search_path = "app", public'), expect.anything()],
      facts: { schema: 'app' },
    });
    expect(await rolesNow()).toBeNull();
    await as(app, 'DROP SCHEMA app');
    await root.query('ALTER ROLE app IN DATABASE app_db RESET search_path');
  });

  it('works beside an open transaction on its table, and no login fails meanwhile', async () => {
    const player = new pg.Client({ ...app });
    await player.connect();
    await player.query('BEGIN');
    await player.query('SELECT * FROM public.scores');
    const failures: string[] = [];
    let isOver = false;
    const comers = Promise.all(
      Array.from({ length: 4 }, async () => {
        while (!isOver)
          await as(app, 'SELECT score FROM public.scores').catch((error: Error) =>
            failures.push(error.message),
          );
      }),
    );
    await withRoleAdmin(app, dba, (admin) => takeOver(admin, app, names));
    await as(app, 'SELECT 1');
    isOver = true;
    await comers;
    expect(failures).toEqual([]);
    await player.query('INSERT INTO public.scores VALUES (2)');
    await player.query('COMMIT');
    await player.end();
    expect(await rolesNow()).toEqual({
      owner: 'app_owner',
      logins: [
        { name: 'app', state: 'current', canLogin: true },
        { name: 'app_alternate', state: 'resting', canLogin: false },
      ],
    });
  });

  it('gives both login roles the settings of the first one, and the owner role owns what they make', async () => {
    await withRoleAdmin(app, dba, (admin) =>
      enable(admin, app, { name: names.alternate, password: 'a-new-password' }),
    );
    for (const login of [app, { ...app, user: names.alternate, password: 'a-new-password' }]) {
      const client = new pg.Client({ ...login });
      await client.connect();
      const { rows } = await client.query(
        `SELECT current_user AS acts, current_setting('search_path') AS path, current_setting('work_mem') AS memory,
                current_setting('statement_timeout') AS timeout`,
      );
      expect(rows).toEqual([{ acts: 'app_owner', path: '"Game", public', memory: '5MB', timeout: '7s' }]);
      await client.query(
        'CREATE TABLE public.made (id int); ALTER TABLE public.scores ADD COLUMN at timestamptz',
      );
      const owner = await client.query(`SELECT tableowner FROM pg_tables WHERE tablename = 'made'`);
      expect(owner.rows).toEqual([{ tableowner: 'app_owner' }]);
      await client.query('DROP TABLE public.made; ALTER TABLE public.scores DROP COLUMN at');
      await client.end();
    }
    const limits = await root.query(
      `SELECT rolconnlimit AS most FROM pg_roles WHERE rolname IN ('app', 'app_alternate')`,
    );
    expect(limits.rows).toEqual([{ most: 42 }, { most: 42 }]);
  });

  it('disables the old login role when it has no connection left; until then its clients can reconnect', async () => {
    const login = { ...app, user: names.alternate, password: 'a-new-password' };
    const disable = (deadline: number) =>
      withRoleAdmin(login, dba, (admin) =>
        disableWhenQuiet(admin, 'app', { owner: 'app_owner', deadline, signal }),
      );
    await withRoleAdmin(login, dba, (admin) => markCurrent(admin, names.alternate, 'app'));
    const straggler = new pg.Client({ ...app, application_name: 'report' });
    await straggler.connect();
    expect(await disable(Date.now() + 1_000)).toHaveLength(1);
    expect(await as(app, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    // As a call leaves it that was killed between disabling the login and looking for connections.
    await root.query('ALTER ROLE app NOLOGIN');
    expect(await disable(Date.now() + 1_000)).toHaveLength(1);
    expect(await as(app, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    await straggler.end();
    expect(await disable(Date.now() + 60_000)).toEqual([]);
    await expect(as(app, 'SELECT 1')).rejects.toMatchObject({ code: 'DATABASE_UNREACHABLE' });
    expect(await as(login, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
  });

  it('leaves no password in the log of the server', async () => {
    const log = await lab.engine.logTail(lab.project, namesOf(lab.project).postgres, 500);
    expect(
      log.filter((line) => line.includes('a-new-password') || line.includes(awkward.slice(0, 6))),
    ).toEqual([]);
  });
});
