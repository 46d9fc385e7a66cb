/**
 * A site for rollbacks that revert the schema, too: release one is live with players, and 2_rank waits to be brought by
 * release two.
 */
import { expect } from 'vitest';
import type { Event } from '../../../src/report/events.ts';
import { imageMaker } from './bad-images.ts';
import { type MigratingSite, openMigratingSite } from './migrating-site.ts';
import { type Ran, stepsOf } from './site.ts';
import { tinyGame } from './tiny-game.ts';

export interface RollbackSite {
  site: MigratingSite;
  /** By the name of its image. */
  deploy(name: string, ...more: string[]): Promise<Ran>;
  // biome-ignore lint/suspicious/noExplicitAny: tests read single fields.
  status(): Promise<any>;
  /** The release that serves. */
  live(): Promise<number>;
  /** SIGKILL there; resolves when the lock of the killed one is gone, too. */
  killedAt(at: 'step-started' | 'step-done', kind: string, args: string[]): Promise<Ran>;
  close(): Promise<void>;
}

/** @param newest the newest migration that an image needs and knows, by the name of the image */
export async function openRollbackSite(newest: Record<string, string>): Promise<RollbackSite> {
  const images = await imageMaker();
  const made: Record<string, string> = {};
  for (const [name, migration] of Object.entries(newest)) {
    const states = { needs: migration, knows: migration };
    made[name] = (await images.make(`back-${name}`, `${tinyGame}\n// ${name}`, states)).tag;
  }
  const site = await openMigratingSite({ replicas: 1, name: 'back' });
  const deploy = (name: string, ...more: string[]) =>
    site.run(['deploy', '--image', made[name] ?? '', '--watch', '1s', ...more]);
  const status = async () => (await site.run(['status'])).json?.result;
  await site.write(
    '1_players',
    'CREATE TABLE players (id int PRIMARY KEY)',
    'DROP TABLE players',
    'reversible=lossy',
  );
  expectDone(await deploy('one'));
  await site.query('INSERT INTO players VALUES (1), (2), (3)');
  await site.write(
    '2_rank',
    'ALTER TABLE players ADD rank int',
    'ALTER TABLE players DROP rank',
    'reversible=lossy',
  );
  return {
    site,
    deploy,
    status,
    live: async () => (await status()).traffic[0]?.release as number,
    async killedAt(at, kind, args) {
      const onEvent = (event: Event, child: { kill(signal: NodeJS.Signals): boolean }) => {
        if (event.type === at && event.step.kind === kind) child.kill('SIGKILL');
      };
      const killed = await site.start(args, { onEvent }).ended;
      await site.unlocked();
      return killed;
    },
    async close() {
      await site.close();
      await images.removeAll();
    },
  };
}

export function expectDone(ran: Ran): void {
  expect({ exitCode: ran.exitCode, error: ran.json?.error }).toEqual({ exitCode: 0, error: undefined });
}

export const kindsOf = (ran: Ran) => stepsOf(ran).map((step) => step.kind);
