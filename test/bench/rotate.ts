/**
 * `npm run bench:rotate -- [players=500 clients=32 kills=1]`: rotates JWT_SECRET and the database's role while clients
 * saturate the site and players play; the command is killed in between and called again. Prints what each part cost the
 * players and clients; exits 1 when a request failed, a socket was closed or a reconnect to the database was refused.
 * Leaves nothing.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { label } from '../../src/contract.ts';
import type { Event } from '../../src/report/events.ts';
import { type Clients, inWords, startClients } from '../support/players/clients.ts';
import { openSite, type Ran } from '../support/site/site.ts';
import { judge, missed, say, table, worst } from './table.ts';

const asked = Object.fromEntries(process.argv.slice(2).map((pair) => pair.split('=')));
const players = Number(asked.players ?? 500);
const clients = Number(asked.clients ?? 32);
const isKilled = asked.kills !== '0';
const quick = ['--watch', '2s', '--drain', '60s'];

const site = await openSite({ replicas: 2, name: 'bench-rotate' });
const failed: number[] = [];
const closed: number[] = [];
const broken: number[] = [];

async function killed(what: string, isThere: (event: Event) => boolean): Promise<void> {
  if (!isKilled) return;
  const ran = await site.run(['env', 'rotate', what, ...quick], {
    onEvent: (event, child) => {
      if (isThere(event)) child.kill('SIGKILL');
    },
  });
  if (ran.signal !== 'SIGKILL') throw new Error(`${what} ended with ${ran.exitCode}: ${ran.stdout}`);
  const isLocked = async () => (await site.containers()).some(({ Labels }) => Labels[label.role] === 'lock');
  while (await isLocked()) await sleep(50);
}

const says = (word: string) => (event: Event) =>
  event.type === 'note' && event.message.startsWith(`${word}: `);
const begins = (kind: string) => (event: Event) => event.type === 'step-started' && event.step.kind === kind;

async function rotated(what: string, ...more: string[]): Promise<Ran> {
  const ran = await site.run(['env', 'rotate', what, ...quick, ...more]);
  if (ran.exitCode !== 0) throw new Error(`rotate ${what} ended with ${ran.exitCode}: ${ran.stdout}`);
  return ran;
}

const start = async () => startClients({ url: await site.url(), clients, players, pauseMs: 20 });

async function seen(on: Clients, name: string): Promise<void> {
  const report = await on.window();
  const { moved, closed: restarts, broken: breaks, longestAwayMs } = report.players;
  failed.push(report.failed);
  closed.push(restarts);
  broken.push(breaks + report.players.of - report.players.on);
  say(
    `${name}: ${(report.windowMs / 1_000).toFixed(0)} s, HTTP ${inWords(report)}; players: moved ${moved}, closed ${restarts}, broken ${breaks}, longest away ${longestAwayMs} ms`,
  );
}

/** Somebody who has what .env says, and comes anew all the time. */
async function reconnecting() {
  const postgres = (await site.containers()).find(({ Labels }) => Labels[label.role] === 'postgres');
  const host = Object.values(postgres?.NetworkSettings.Networks ?? {})[0]?.IPAddress ?? '';
  let isOver = false;
  const count = { tried: 0, refused: 0 };
  const loop = (async () => {
    while (!isOver) {
      const { DB_NAME: database = '', DB_USER: user = '', DB_PASSWORD: password = '' } = await site.env();
      const client = new pg.Client({ host, port: 5432, database, user, password });
      client.on('error', () => undefined);
      count.tried += 1;
      await client.connect().catch(() => {
        count.refused += 1;
      });
      await client.end().catch(() => undefined);
      await sleep(10);
    }
  })();
  return async () => {
    isOver = true;
    await loop;
    return count;
  };
}

try {
  const deployed = await site.run(['deploy', '--watch', '1s']);
  if (deployed.exitCode !== 0) throw new Error(deployed.stdout);
  let on = await start();
  await on.window();
  await killed('jwt', begins('await-ready'));
  await killed('jwt', begins('drain'));
  await rotated('jwt');
  await seen(on, 'jwt: a new key signs');
  await on.stop();
  on = await start();
  await on.window();
  await rotated('jwt', '--now');
  await seen(on, 'jwt: the old key goes');

  const stop = await reconnecting();
  for (const word of ['take-over', 'hand-on']) await killed('db', says(word));
  await killed('db', begins('await-ready'));
  for (const word of ['mark', 'disable']) await killed('db', says(word));
  await rotated('db', '--wait', '1m');
  await seen(on, 'db: an owner is made, the alternate comes in');
  await rotated('db', '--wait', '1m');
  await seen(on, 'db: the first one comes back in');
  await on.stop();
  const { tried, refused } = await stop();
  say(`reconnects to the database with what .env says: ${tried}, refused ${refused}`);
  judge('failed requests', failed, 0, worst);
  judge('closed players', closed, 0, worst);
  judge('broken or missing players', broken, 0, worst);
  judge('refused reconnects', [refused], 0, worst);
} finally {
  await site.close();
}
table();
process.exitCode = missed() ? 1 : 0;
