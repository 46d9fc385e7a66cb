/**
 * A site whose secrets the real CLI rotates under clients and players that are never idle. Keeps every output and every secret,
 * so that the last test can search the outputs for secrets.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import type { Event } from '../../../src/report/events.ts';
import { type Clients, inDetail, startClients } from '../players/clients.ts';
import { openSite, type Ran, type Site } from './site.ts';

const players = 24;
const quick = ['--watch', '1s', '--drain', '20s'];

export interface RotationSite {
  site: Site;
  envPath: string;
  envText(): Promise<string>;
  run(...args: string[]): Promise<Ran>;
  rotate(what: string, ...more: string[]): Promise<Ran>;
  /** Sends SIGKILL at that event; resolves when the engine has removed the lock. */
  killedAt(what: string, isThere: (event: Event) => boolean): Promise<void>;
  startClients(): Promise<Clients>;
  /** Secrets that were in an output or in the journal. */
  leaked(): Promise<string[]>;
}

export async function openRotationSite(name: string): Promise<RotationSite> {
  const site = await openSite({ replicas: 2, name });
  const envPath = join(site.folder, '.env');
  const envText = () => readFile(envPath, 'utf8');
  await writeFile(envPath, `${await envText()}# The last line of it.\n`);
  const everything: string[] = [];
  const secrets = new Set<string>();

  async function heard(ran: Ran): Promise<Ran> {
    everything.push(ran.stdout, ran.stderr);
    for (const [key, value] of Object.entries(await site.env()))
      if (/SECRET|PASSWORD/.test(key) && value !== '') secrets.add(value);
    return ran;
  }
  const run = async (...args: string[]) => heard(await site.run(args));
  const args = (what: string) => ['env', 'rotate', what, ...quick];
  expectDone(await run('deploy', '--watch', '1s'));
  return {
    ...{ site, envPath, envText, run },
    rotate: (what, ...more) => run(...args(what), ...more),
    async killedAt(what, isThere) {
      const ran = await site.run(args(what), {
        onEvent: (event, child) => {
          if (isThere(event)) child.kill('SIGKILL');
        },
      });
      await heard(ran);
      expect(ran.signal, ran.stdout).toBe('SIGKILL');
      await site.unlocked();
    },
    startClients: async () => startClients({ url: await site.url(), clients: 8, players, pauseMs: 20 }),
    async leaked() {
      const text = everything.join('\n') + (await site.journal());
      expect(secrets.size).toBeGreaterThan(2);
      return [...secrets].filter((secret) => text.includes(secret));
    },
  };
}

export function expectDone(ran: Ran): void {
  expect({ exitCode: ran.exitCode, error: ran.json?.error }).toEqual({ exitCode: 0, error: undefined });
}

export async function expectUnnoticed(clients: Clients, deploys: number): Promise<void> {
  const seen = await clients.window();
  expect(seen.failed, inDetail(seen)).toBe(0);
  expect(seen.sent).toBeGreaterThan(1_000);
  expect(seen.players, inDetail(seen)).toMatchObject({ on: players, broken: 0, closed: 0 });
  expect(seen.players.moved).toBeGreaterThanOrEqual(players * deploys);
}

export const says = (word: string) => (event: Event) =>
  event.type === 'note' && event.message.startsWith(`${word}: `);

export const begins = (kind: string) => (event: Event) =>
  event.type === 'step-started' && event.step.kind === kind;

export const kindsIn = (ran: Ran): string[] =>
  ran.json?.result.left.map(({ kind }: { kind: string }) => kind);
