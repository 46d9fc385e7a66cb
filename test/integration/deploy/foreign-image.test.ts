/** Game servers that gameops did not build. */
import { describe, expect, it } from 'vitest';
import { type Clients, inDetail, startClients } from '../../support/players/clients.ts';
import { imageMaker } from '../../support/site/bad-images.ts';
import { openSite, type Ran } from '../../support/site/site.ts';
import { tinyGame } from '../../support/site/tiny-game.ts';

const quick = ['--watch', '1s'];

function expectDone(ran: Ran): void {
  expect({ exitCode: ran.exitCode, error: ran.json?.error }).toEqual({ exitCode: 0, error: undefined });
}

describe('an image that gameops did not build', () => {
  it('is deployed and replaced without a failed request', async () => {
    const images = await imageMaker();
    const site = await openSite({ replicas: 2 });
    let clients: Clients | null = null;
    try {
      const [first, second] = [
        await images.make('foreign-a', tinyGame),
        await images.make('foreign-b', `${tinyGame}\n// another build`),
      ];
      expectDone(await site.run(['deploy', '--image', first.tag, ...quick]));
      clients = await startClients({
        url: await site.url(),
        clients: 8,
        pauseMs: 10,
        paths: ['/', '/any/path'],
      });
      expectDone(await site.run(['deploy', '--image', second.tag, ...quick]));
      const seen = await clients.window();
      expect(seen.failed, inDetail(seen)).toBe(0);
    } finally {
      await clients?.stop();
      await site.close();
      await images.removeAll();
    }
  });
});
