/** Releases that are refused: images that are bad in one way each, what an operator must read, and what may not change. */
import { expect } from 'vitest';
import { badServers, type ImageMaker, imageMaker } from './bad-images.ts';
import type { Ran, Site } from './site.ts';

export interface Refusal {
  exitCode: number;
  code: string;
  /** In message and facts together: what an operator needs to see of the cause. */
  says: RegExp;
}

export const noSuchImage = 'gameops-no-such-registry.invalid/arena:1';
/** An image that never gets ready is waited for no longer than this; one that ends gets the time that a busy machine needs. */
export const short = { deploy: { ready: '12s' } };
export const long = { deploy: { ready: '10m' } };

/** Tags by what is wrong with the image. */
export async function badImages(): Promise<{ images: ImageMaker; made: Record<string, string> }> {
  const images = await imageMaker();
  const make = async (name: string, script: string) =>
    (await images.make(name, script, { isOurs: true })).tag;
  const made = {
    exits: await make('exits', badServers.exitsAtBoot),
    never: await make('never', badServers.neverReady),
    crashes: await make('crashes', badServers.crashesWhenWatched),
    refuses: await make('refuses', badServers.refusesJoins),
  };
  return { images, made };
}

export function expectRefused(ran: Ran, { exitCode, code, says }: Refusal): void {
  const error = ran.json?.error;
  expect({ exitCode: ran.exitCode, code: error?.code, message: error?.message }).toMatchObject({
    exitCode,
    code,
  });
  expect(`${error?.message} ${JSON.stringify(error?.facts)}`).toMatch(says);
  expect(error?.next[0]).toMatch(/\S/);
}

/** Traffic, fleets that serve, and the live release: what no refused deploy may change. */
export async function whereTheyAre(site: Site) {
  const { result } = (await site.run(['status'])).json ?? {};
  // Without the players: servers report them every two seconds, and the clients count their own sockets better.
  const running = result.fleets
    .filter((fleet: { ready: number }) => fleet.ready > 0)
    .map((fleet: object) => ({ ...fleet, players: undefined }));
  return { traffic: result.traffic, running, unfinished: result.unfinished, lockedBy: result.lockedBy };
}
