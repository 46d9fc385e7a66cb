/**
 * The database's role is rotated under clients and players that are never idle, and gameops is killed in between: no request
 * fails, no player is disconnected, no connection to the database is refused, and the next call continues where a killed one
 * stopped.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { label } from '../../../src/contract.ts';
import { mendAfterFailure } from '../../support/mend.ts';
import type { Clients } from '../../support/players/clients.ts';
import {
  begins,
  expectDone,
  expectUnnoticed,
  kindsIn,
  openRotationSite,
  type RotationSite,
  says,
} from '../../support/site/rotation.ts';

describe('env rotate db', () => {
  let rotationSite: RotationSite;
  let clients: Clients;
  let loginOf: (user: string, password: string) => pg.ClientConfig;
  const query = async (sql: string) => {
    const { DB_USER = '', DB_PASSWORD = '' } = await rotationSite.site.env();
    const client = new pg.Client(loginOf(DB_USER, DB_PASSWORD));
    await client.connect();
    try {
      return (await client.query(sql)).rows;
    } finally {
      await client.end();
    }
  };

  let earlierBackup: string;
  beforeAll(async () => {
    rotationSite = await openRotationSite('rotate-db');
    // DATABASE_URL beside DB_* must lead to the same database as they do.
    const { DB_USER: user, DB_PASSWORD: password, DB_NAME: name } = await rotationSite.site.env();
    await rotationSite.site.setEnv({
      DATABASE_URL: `postgres://${user}:${password}@postgres:5432/${name}?sslmode=disable`,
    });
    earlierBackup = (await rotationSite.run('db', 'backup')).json?.result.id;
    const postgres = (await rotationSite.site.containers()).find(
      ({ Labels }) => Labels[label.role] === 'postgres',
    );
    const host = Object.values(postgres?.NetworkSettings.Networks ?? {})[0]?.IPAddress ?? '';
    const { DB_NAME } = await rotationSite.site.env();
    loginOf = (user, password) => ({ host, port: 5432, database: DB_NAME ?? '', user, password });
    clients = await rotationSite.startClients();
  });
  mendAfterFailure(
    () => rotationSite.site,
    () => rotationSite.rotate('db', '--wait', '20s'),
  );

  afterAll(async () => {
    await clients?.stop().catch(() => undefined);
    await rotationSite?.site.close();
  });

  /** Somebody who has what .env says, and connects anew all the time. */
  function reconnecting() {
    const failures: string[] = [];
    let isOver = false;
    let count = 0;
    const loop = (async () => {
      while (!isOver) {
        count += 1;
        await query('SELECT 1').catch((error: Error) => failures.push(error.message));
        await sleep(25);
      }
    })();
    const stop = async () => {
      isOver = true;
      await loop;
      return { failures, count };
    };
    onTestFinished(async () => {
      await stop();
    });
    return stop;
  }

  it('takes over an installation with one role; killed before every step, the next call continues, and nobody notices', async () => {
    const old = await rotationSite.site.env();
    const stop = reconnecting();
    const plan = await rotationSite.rotate('db', '--plan');
    expect(kindsIn(plan)).toEqual([...['take-over', 'hand-on', 'deploy', 'mark', 'disable']]);
    await clients.window();
    for (const word of ['take-over', 'hand-on', 'deploy']) await rotationSite.killedAt('db', says(word));
    await rotationSite.killedAt('db', begins('await-ready'));
    for (const word of ['mark', 'disable']) await rotationSite.killedAt('db', says(word));
    const ran = await rotationSite.rotate('db', '--wait', '20s');
    expectDone(ran);
    const owner = `${old.DB_USER}_owner`;
    expect(ran.json?.result).toMatchObject({ state: 'done', user: `${old.DB_USER}_alternate`, owner });
    await expectUnnoticed(clients, 1);
    expect((await rotationSite.run('env', 'check', '--strict')).json?.result.findings).toEqual([]);
    const { failures, count } = await stop();
    expect(failures).toEqual([]);
    expect(count).toBeGreaterThan(100);
    const former = new pg.Client(loginOf(old.DB_USER ?? '', old.DB_PASSWORD ?? ''));
    await expect(former.connect()).rejects.toThrow(/not permitted to log in|password authentication failed/);
  });

  it('gives everything to the owner, also tables that are made later, and leaves the Postgres container as it was', async () => {
    const owner = `${(await rotationSite.site.env()).DB_NAME}_owner`;
    await query('CREATE TABLE made_later (id int)');
    const owners = await query(
      `SELECT DISTINCT pg_get_userbyid(relowner) AS who FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
       WHERE nspname IN ('public', 'gameops')`,
    );
    expect(owners).toEqual([{ who: owner }]);
    await query('DROP TABLE made_later');
    const ran = await rotationSite.run('deploy', '--again', '--watch', '1s');
    expectDone(ran);
    const warnings = ran.events.filter((event) => event.type === 'note' && event.level === 'warning');
    expect(warnings).toEqual([]);
    expect((await rotationSite.run('db', 'status')).exitCode).toBe(0);
  });

  it('changes the places of both roles the next time; a connection that still uses the old role is named and never ended', async () => {
    const { DB_USER = '', DB_PASSWORD = '' } = await rotationSite.site.env();
    const straggler = new pg.Client({ ...loginOf(DB_USER, DB_PASSWORD), application_name: 'nightly-report' });
    await straggler.connect();
    onTestFinished(() => straggler.end());
    const stop = reconnecting();
    await clients.window();
    const ran = await rotationSite.rotate('db', '--wait', '2s');
    expect([ran.exitCode, ran.json?.error?.code]).toEqual([6, 'ROTATION_UNFINISHED']);
    expect(ran.json?.error?.message).toContain('nightly-report');
    expect((await straggler.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    await straggler.end();
    expectDone(await rotationSite.rotate('db'));
    const other = DB_USER.endsWith('_alternate') ? DB_USER.replace('_alternate', '') : `${DB_USER}_alternate`;
    expect((await rotationSite.site.env()).DB_USER).toBe(other);
    await expectUnnoticed(clients, 1);
    expect((await stop()).failures).toEqual([]);
  });

  it('lets a rollback start the earlier release with the present role and password', async () => {
    expectDone(await rotationSite.run('rollback'));
    await expectUnnoticed(clients, 1);
  });

  it('lets a backup from before the take-over be restored, and everything in it then belongs to the owner', async () => {
    await clients.stop();
    expectDone(await rotationSite.run('db', 'restore', earlierBackup, '--yes'));
    const { DB_NAME } = await rotationSite.site.env();
    const owners = await query(
      `SELECT DISTINCT pg_get_userbyid(relowner) AS who FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
       WHERE nspname IN ('public', 'gameops')`,
    );
    expect(owners).toEqual([{ who: `${DB_NAME}_owner` }]);
  });

  it('shows no secret, old or new, in any output or in the journal', async () => {
    expect(await rotationSite.leaked()).toEqual([]);
  });
});
