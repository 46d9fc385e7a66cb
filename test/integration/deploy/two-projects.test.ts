/** Projects that share an engine. */
import { describe, expect, it } from 'vitest';
import { openSite, type Ran } from '../../support/site/site.ts';

const quick = ['--watch', '1s'];

function expectDone(ran: Ran): void {
  expect({ exitCode: ran.exitCode, error: ran.json?.error }).toEqual({ exitCode: 0, error: undefined });
}

describe('two projects on one engine', () => {
  it('deploy at the same time, and neither changes the other', async () => {
    const request = { replicas: 1, config: { http: { port: 0, tlsPort: 0 } } };
    const sites = await Promise.all([openSite(request), openSite(request)]);
    try {
      const firsts = await Promise.all(sites.map((site) => site.run(['deploy', ...quick])));
      for (const ran of firsts) expectDone(ran);
      const urls = firsts.map((ran) => ran.json?.result.url as string);
      expect(new Set(urls).size).toBe(2);
      const untouched = (await sites[1]?.containers())?.map(({ Id }) => Id).sort();
      expectDone((await sites[0]?.run(['deploy', '--again', ...quick])) as Ran);
      expect((await sites[1]?.containers())?.map(({ Id }) => Id).sort()).toEqual(untouched);
    } finally {
      await Promise.all(sites.map((site) => site.close()));
    }
  });
});
