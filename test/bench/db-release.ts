/**
 * `npm run bench:db-release`: a migration by hand, a deploy that brings two more (one of them a concurrent index), a
 * rollback --schema and a contract migration, while 32 HTTP clients that never pause and 500 players are on the bundled
 * server. Fails when one request failed or one player was broken. Works on a project of its own and leaves nothing.
 */
import { cp, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import Docker from 'dockerode';
import { imageNeeds } from '../../src/boot-rule.ts';
import { label, migrationsFile } from '../../src/contract.ts';
import { listMigrations } from '../../src/database/migrate/files.ts';
import { dockerEngine } from '../../src/engine/docker/engine.ts';
import { packageRoot } from '../../src/package-root.ts';
import { type Clients, inDetail, inWords, startClients } from '../support/players/clients.ts';
import { type MigratingSite, openMigratingSite } from '../support/site/migrating-site.ts';
import type { Ran } from '../support/site/site.ts';

const clientCount = Number(process.argv[2] ?? 32);
const playerCount = Number(process.argv[3] ?? 500);

const say = (text: string) => process.stdout.write(`${text}\n`);
const engine = await dockerEngine();
const made: string[] = [];
let failures = 0;

/** Counted since the players joined; a window is a difference. */
let before = { moved: 0, closed: 0 };

/** The bundled server under another name, with labels that state the migrations of the site's folder. */
async function imageWith(site: MigratingSite, name: string): Promise<string> {
  const base = (await site.run(['releases'])).json?.result.releases.at(-1).imageRef as string;
  const needs = imageNeeds(await listMigrations(join(site.folder, 'migrations')));
  const tag = `t-gameops-bench-${site.project}:${name}`;
  await engine.buildImage({
    tag,
    context: [
      { path: 'Dockerfile', content: `FROM ${base}\nCOPY ${migrationsFile} /app/${migrationsFile}\n` },
      { path: migrationsFile, content: JSON.stringify(needs), mode: 0o644 },
    ],
    labels: {
      [label.role]: 'test',
      [label.content]: `${site.project}-${name}`,
      [label.needs]: needs.needs ?? '',
      [label.knows]: needs.knows ?? '',
    },
  });
  made.push(tag);
  return tag;
}

function mustBeDone(ran: Ran): Ran {
  if (ran.exitCode !== 0) throw new Error(`exit ${ran.exitCode}: ${ran.stdout.slice(0, 800)}`);
  return ran;
}

async function unnoticed(clients: Clients, what: string, act: () => Promise<Ran>): Promise<void> {
  await clients.window();
  const { ms } = mustBeDone(await act());
  const seen = await clients.window();
  const { on, of, moved, closed, broken } = seen.players;
  say(
    `${what}, ${(ms / 1000).toFixed(1)} s: ${inWords(seen)} · players ${on} of ${of}, ${moved - before.moved} moved, ${closed - before.closed} closed, ${broken} broken`,
  );
  before = { moved, closed };
  if (seen.failed > 0 || broken > 0) {
    failures += 1;
    say(`  ${inDetail(seen)}`);
  }
}

async function play(site: MigratingSite): Promise<void> {
  const quick = ['--watch', '5s'];
  mustBeDone(await site.run(['deploy', '--watch', '1s']));
  await site.write(
    '29990101000000001_mood',
    'ALTER TABLE discoveries ADD mood text',
    'ALTER TABLE discoveries DROP mood',
    'reversible=lossy',
  );
  const first = await imageWith(site, 'one');
  await site.configure({ server: { image: first }, web: { dir: join(packageRoot(), 'dist', 'web') } });
  const clients = await startClients({ url: await site.url(), clients: clientCount, players: playerCount });
  try {
    await unnoticed(clients, 'db migrate', () => site.run(['db', 'migrate']));
    await unnoticed(clients, 'deploy', () => site.run(['deploy', ...quick]));
    await site.write(
      '29990101000000002_weather',
      'ALTER TABLE discoveries ADD weather text',
      'ALTER TABLE discoveries DROP weather',
      'reversible=lossy',
    );
    await site.write(
      '29990101000000003_names',
      'CREATE INDEX CONCURRENTLY discoveries_names ON discoveries (player_name)',
      'DROP INDEX CONCURRENTLY discoveries_names',
      'transaction=off',
    );
    const second = await imageWith(site, 'two');
    await unnoticed(clients, 'deploy with backup and two migrations', () =>
      site.run(['deploy', '--image', second, ...quick]),
    );
    await site.query(`UPDATE discoveries SET weather = 'rain'`);
    await unnoticed(clients, 'rollback --schema', () => site.run(['rollback', '--schema', '--accept-loss']));
    const applied = await site.applied();
    if (applied.at(-1) !== '29990101000000001_mood') throw new Error(`applied is ${applied.join(', ')}`);
    await contract(site, clients, quick);
  } finally {
    await clients.stop();
  }
}

/** It may run only when no kept release uses what it removes. */
async function contract(site: MigratingSite, clients: Clients, quick: readonly string[]): Promise<void> {
  const gone = '29990101000000004_mood_gone';
  const header = 'phase=contract reversible=lossy';
  await site.write(
    gone,
    'ALTER TABLE discoveries DROP mood',
    'ALTER TABLE discoveries ADD mood text',
    header,
  );
  const third = await imageWith(site, 'three');
  await unnoticed(clients, 'deploy of an image that can do without', () =>
    site.run(['deploy', '--image', third, ...quick]),
  );
  mustBeDone(await site.run(['prune', '--keep', '1']));
  await unnoticed(clients, 'deploy of it again', () =>
    site.run(['deploy', '--image', third, '--again', ...quick]),
  );
  mustBeDone(await site.run(['prune', '--keep', '1']));
  await unnoticed(clients, 'db migrate --contract', () => site.run(['db', 'migrate', '--contract']));
  const applied = await site.applied();
  if (applied.at(-1) !== gone) throw new Error(`applied is ${applied.join(', ')}`);
}

const site = await openMigratingSite({
  replicas: 2,
  name: 'bench-release',
  config: { deploy: { drain: '60s' } },
});
try {
  await mkdir(join(site.folder, 'migrations'), { recursive: true });
  await cp(join(packageRoot(), 'migrations'), join(site.folder, 'migrations'), { recursive: true });
  await play(site);
} finally {
  await site.close();
  const docker = new Docker();
  for (const tag of made)
    await docker
      .getImage(tag)
      .remove({ force: true })
      .catch(() => undefined);
  await engine.close();
}
if (failures > 0) process.exitCode = 1;
say(failures === 0 ? '0 failed requests, 0 broken players' : `${failures} acts were noticed`);
