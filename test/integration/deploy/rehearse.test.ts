/** gameops deploy --rehearse: what it runs, what it finds, and that nothing which serves is affected. */
import { cp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { namesOf } from '../../../src/contract.ts';
import { databaseEndpoint, withClient } from '../../../src/database/server/connection.ts';
import { dockerEngine } from '../../../src/engine/docker/engine.ts';
import type { Engine } from '../../../src/engine/port.ts';
import { packageRoot } from '../../../src/package-root.ts';
import { type Clients, inDetail, startClients } from '../../support/players/clients.ts';
import { until } from '../../support/players/game-server.ts';
import { type ImageMaker, imageMaker } from '../../support/site/bad-images.ts';
import { fullDisk } from '../../support/site/full-disk.ts';
import { openSite, type Ran, type Site } from '../../support/site/site.ts';
import { tinyGame } from '../../support/site/tiny-game.ts';

/** What the next release would bring. */
const [guild, guilds, index] = [
  '20270101000000000_guild',
  '20270101000000001_guilds',
  '20270101000000002_guild_index',
] as const;

let site: Site;
let engine: Engine;
let clients: Clients;
let images: ImageMaker;

beforeAll(async () => {
  engine = await dockerEngine();
  images = await imageMaker();
  site = await openSite({ replicas: 1, name: 'rehearse' });
  const first = await site.run(['deploy', '--watch', '1s']);
  expect(first.exitCode, first.stdout).toBe(0);
  await query(`INSERT INTO discoveries (player_id, player_name, region, what, idempotency_key)
    SELECT 'p' || n, 'p', 'r', 'a stone', 'k' || n FROM generate_series(1, 3000) n`);
  await write(
    guild,
    'ALTER TABLE discoveries ADD guild int',
    'ALTER TABLE discoveries DROP guild',
    'reversible=lossy',
  );
  await write(guilds, 'CREATE TABLE guilds (id int)', 'DROP TABLE guilds', 'reversible=lossy');
  await write(
    index,
    'CREATE INDEX CONCURRENTLY discoveries_guild ON discoveries (guild)',
    'DROP INDEX CONCURRENTLY discoveries_guild',
    'transaction=off',
  );
  clients = await startClients({ url: await site.url(), clients: 4, players: 4, pauseMs: 20 });
});
afterAll(async () => {
  await clients?.stop();
  await site?.close();
  await images?.removeAll();
  await engine?.close();
});

async function query(sql: string): Promise<Record<string, unknown>[]> {
  const env = await site.env();
  const settings = { DB_HOST: 'postgres', DB_PORT: 5432, ...env } as never;
  return withClient(await databaseEndpoint(engine, site.project, settings), async (client) => {
    return (await client.query(sql)).rows;
  });
}

/** All that a rehearsal must not change: what is on the engine, and the live schema and its books. */
async function everything() {
  const containers = await engine.observe(site.project);
  const { result } = (await site.run(['db', 'status'])).json ?? {};
  return {
    containers: containers.map(({ id, name, state }) => ({ id, name, state })),
    volumes: await engine.volumes(site.project),
    schema: { fingerprint: result.fingerprint, pending: result.pending, applied: result.applied.length },
    discoveries: await query(
      `SELECT count(*)::int AS n, max(id)::int FROM discoveries WHERE player_name = 'p'`,
    ),
  };
}

const lockIsFree = () => until(async () => (await engine.lockHolder(site.project)) === null);

const steps = ({ json }: Ran): string[] =>
  json?.result.steps.map(({ step, name }: { step: string; name: string }) => `${step} ${name}`);

/** An image of the operator's own, with a folder of its own: the bundled migrations and what is written there. */
const asking = ['deploy', '--rehearse', '--image', 'example/next:1'];
const rehearse = () => site.run(asking);
const folder = () => join(site.folder, 'migrations');

async function write(name: string, up: string, down: string, header: string): Promise<void> {
  await cp(join(packageRoot(), 'migrations'), folder(), { recursive: true });
  const text = `-- gameops: ${header}\n-- Up Migration\n${up};\n-- Down Migration\n${down};\n`;
  await writeFile(join(folder(), `${name}.sql`), text);
}

/** Ready as long as its settings lead to the live accessories. */
const onlyAtHome = tinyGame.replace(
  `return response.end('ready')`,
  `{
      const { DB_HOST, REDIS_URL } = JSON.parse(require('node:fs').readFileSync('/run/gameops/settings.json', 'utf8'));
      const where = DB_HOST + ' ' + new URL(REDIS_URL).hostname;
      return where === 'postgres redis' ? response.end('ready') : response.writeHead(503).end('not at home: ' + where);
    }`,
);

/** With one more, for this run alone. */
async function withMigration(up: string, down: string, header = 'reversible=lossy'): Promise<Ran> {
  await write('20270102000000000_next', up, down, header);
  const ran = await rehearse();
  await rm(join(folder(), '20270102000000000_next.sql'));
  return ran;
}

describe('a rehearsal', () => {
  it('restores a backup, applies the migrations, boots the live image, lets a player join, and reverts them, unnoticed', async () => {
    const before = await everything();
    await clients.window();
    const ran = await rehearse();
    expect(ran.exitCode, ran.stdout).toBe(0);
    const { backup, release, joined, oneWay } = ran.json?.result ?? {};
    expect({ release, joined, oneWay }).toEqual({ release: 1, joined: true, oneWay: [] });
    expect(steps(ran)).toEqual([
      ...[`backup ${backup.id}`, `restore ${backup.id}`],
      ...[`up ${guild}`, `up ${guilds}`, `up ${index}`, 'boot 1'],
      ...[`down ${index}`, `down ${guilds}`, `down ${guild}`, 'compare schema'],
    ]);
    const [, restore, ...rest] = ran.json?.result.steps ?? [];
    expect(restore.rows).toBeGreaterThan(3_000);
    expect(rest[0].holdsUp).toEqual([
      { table: 'public.discoveries', rows: expect.any(Number), who: 'readers and writers' },
    ]);
    expect(rest[1].holdsUp).toEqual([]);
    expect(rest[2].holdsUp).toBeNull();
    expect(await everything()).toEqual(before);
    const seen = await clients.window();
    expect(seen.failed, inDetail(seen)).toBe(0);
    expect(seen.players, inDetail(seen)).toMatchObject({ on: 4, closed: 0, broken: 0 });
  });

  it('uses the last backup while the schema is unchanged, and takes a new one when it has changed', async () => {
    const again = await rehearse();
    expect(steps(again)?.[0]).toMatch(/^restore /);
    await query('CREATE TABLE by_hand (id int)');
    const fresh = await rehearse();
    expect(steps(fresh)?.[0]).toMatch(/^backup /);
    await query('DROP TABLE by_hand');
    expect(fresh.exitCode).toBe(0);
  });

  it('is refused and leaves nothing when a copy does not fit on the disk', async () => {
    const before = await everything();
    const disk = await fullDisk(join(site.folder, 'engine.sock'), 'from the start');
    const ran = await site.run(asking, { env: { DOCKER_HOST: disk.host } });
    disk.close();
    expect(ran).toMatchObject({ exitCode: 5, json: { error: { code: 'DISK_TOO_FULL' } } });
    expect(await everything()).toEqual(before);
  });

  it('finds a migration that fails on the existing rows', async () => {
    const before = await everything();
    const ran = await withMigration(
      'ALTER TABLE discoveries ADD CONSTRAINT few CHECK (id < 100)',
      'ALTER TABLE discoveries DROP CONSTRAINT few',
    );
    expect(ran).toMatchObject({
      exitCode: 9,
      json: { error: { code: 'REHEARSAL_FAILED', facts: { step: 'up', sqlstate: '23514' } } },
    });
    expect(steps(ran)?.at(-1)).toBe(`up ${index}`);
    expect(await everything()).toEqual(before);
  });

  it('finds a down migration that leads to another schema, and says when there is none', async () => {
    const other = await withMigration(
      'ALTER TABLE discoveries ADD extra int, ADD more int',
      'ALTER TABLE discoveries DROP extra',
    );
    expect(other).toMatchObject({
      exitCode: 9,
      json: { error: { code: 'REHEARSAL_FAILED', facts: { step: 'compare' } } },
    });
    expect(other.json?.error?.message).toContain('extra: column public.discoveries more: integer');
    const none = await withMigration('ALTER TABLE discoveries ADD extra int', 'SELECT 1', 'reversible=no');
    expect(none).toMatchObject({ exitCode: 0, json: { result: { oneWay: ['20270102000000000_next'] } } });
    expect(steps(none)?.at(-1)).toBe('boot 1');
  });

  it.each(['restore', `up ${guild}`, 'boot 1'])(
    'that is killed after "%s" leaves nothing that the next `db verify` or rehearsal does not remove',
    async (moment) => {
      const before = await everything();
      const running = site.start(asking, {
        onEvent: (event, child) => {
          if (event.type === 'note' && event.message.startsWith(moment)) child.kill('SIGKILL');
        },
      });
      await running.ended;
      await lockIsFree();
      const next = await site.run(['db', 'verify']);
      expect(next.exitCode, next.stdout).toBe(0);
      expect(await everything()).toEqual(before);
    },
  );

  it('that is killed while the live image boots leaves nothing either', async () => {
    const before = await everything();
    const running = site.start(asking);
    const game = `${site.project}-game-throw-away`;
    await expect
      .poll(
        async () => {
          const isThere = (await engine.observe(site.project)).some(({ name }) => name === game);
          if (isThere) running.process.kill('SIGKILL');
          return isThere;
        },
        { interval: 20 },
      )
      .toBe(true);
    await running.ended;
    await lockIsFree();
    expect(await engine.volumes(site.project)).toContain(`${site.project}-settings-throw-away`);
    // Every command that works beside players tidies up, also one that needs no lock for its own work.
    expect((await site.run(['db', 'backup'])).exitCode).toBe(0);
    expect(await everything()).toEqual(before);
  });

  it('stops at Ctrl-C and leaves nothing', async () => {
    const before = await everything();
    const running = site.start(asking, {
      onEvent: (event, child) => {
        if (event.type === 'note' && event.message.startsWith('restore')) child.kill('SIGINT');
      },
    });
    expect((await running.ended).exitCode).toBe(130);
    expect(await everything()).toEqual(before);
  });

  it('says that it has nothing to do when no migration is pending', async () => {
    const ran = await site.run(['deploy', '--rehearse']);
    expect(ran).toMatchObject({ exitCode: 0, json: { result: { pending: [], steps: [], backup: null } } });
  });

  it('finds a live image that does not work on the new schema; its settings lead only to the copy', async () => {
    const { tag } = await images.make('homesick', onlyAtHome, { isOurs: true });
    const deployed = await site.run(['deploy', '--image', tag, '--watch', '1s']);
    expect(deployed.exitCode, deployed.stdout).toBe(0);
    await site.configure({ deploy: { ready: '12s' } });
    const before = await everything();
    const ran = await withMigration(
      'ALTER TABLE discoveries RENAME TO finds',
      'ALTER TABLE finds RENAME TO discoveries',
    );
    expect(ran).toMatchObject({
      exitCode: 9,
      json: { error: { code: 'REHEARSAL_FAILED', facts: { step: 'boot', release: 2 } } },
    });
    const { postgres, redis } = namesOf(site.project);
    expect(ran.json?.error?.message).toContain(
      `release 2 does not work on the new schema: /readyz answered 503 not at home: ${postgres}-throw-away ${redis}-throw-away`,
    );
    expect(await everything()).toEqual(before);
  });
});
