/** First deploys that fail: nothing is made, or nothing is left that serves, and a good deploy then works. */
import { once } from 'node:events';
import { createServer } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { label, namesOf } from '../../../src/contract.ts';
import { freePort } from '../../support/players/game-server.ts';
import type { ImageMaker } from '../../support/site/bad-images.ts';
import {
  badImages,
  expectRefused,
  long,
  noSuchImage,
  type Refusal,
  short,
  whereTheyAre,
} from '../../support/site/refusals.ts';
import { openSite, type Site } from '../../support/site/site.ts';

const quick = ['--watch', '1s'];

let images: ImageMaker;
let made: Record<string, string>;

beforeAll(async () => {
  ({ images, made } = await badImages());
});
afterAll(() => images?.removeAll());

describe('as a first deploy', () => {
  let site: Site;
  let own = 0;
  beforeAll(async () => {
    own = await freePort();
    site = await openSite({ replicas: 1, name: 'refused', config: { ...long, http: { port: own } } });
  });
  afterAll(() => site?.close());

  it('an engine that does not answer, or a port that is taken, is named before anything is made', async () => {
    const unreachable = await site.run(['deploy', ...quick], {
      env: { DOCKER_HOST: 'unix:///nonexistent/docker.sock' },
    });
    expectRefused(unreachable, { exitCode: 4, code: 'ENGINE_UNREACHABLE', says: /nonexistent/ });
    expect(await site.containers()).toEqual([]);

    const squatter = createServer().listen(0, '127.0.0.1');
    await once(squatter, 'listening');
    const { port } = squatter.address() as { port: number };
    await site.configure({ http: { port } });
    const taken = await site.run(['deploy', ...quick]);
    expectRefused(taken, { exitCode: 3, code: 'PORT_TAKEN', says: new RegExp(String(port)) });
    expect(await site.containers()).toEqual([]);
    squatter.close();
    await site.configure({ http: { port: own } });
  });

  it('a wrong folder, address or name is refused before anything is made', async () => {
    const foreign = await site.docker.createVolume({ Name: namesOf(site.project).volume.web });
    const cases: [object, Refusal][] = [
      [{}, { exitCode: 3, code: 'FOREIGN_CONTAINER', says: /-web/ }],
      [{ web: { dir: 'nowhere' } }, { exitCode: 3, code: 'CONFIG_INVALID', says: /nowhere/ }],
      [{ http: { templates: 'nowhere' } }, { exitCode: 3, code: 'TEMPLATE_INVALID', says: /nowhere/ }],
      [
        { http: { address: '192.0.2.7', port: 18_999 } },
        { exitCode: 3, code: 'CONFIG_INVALID', says: /not an address of this machine/ },
      ],
    ];
    const asIs = { web: undefined, http: { templates: undefined, address: '127.0.0.1', port: own } };
    for (const [change, refusal] of cases) {
      await site.configure(change as Record<string, unknown>);
      expectRefused(await site.run(['deploy', ...quick]), refusal);
      await foreign.remove().catch(() => undefined);
      await site.configure(asIs);
    }
    const filters = JSON.stringify({ label: [`${label.project}=${site.project}`] });
    expect((await site.docker.listVolumes({ filters: filters as never })).Volumes ?? []).toEqual([]);
    expect(await site.containers()).toEqual([]);
  });

  it('a bad release leaves nothing that serves, and a good release then does', async () => {
    expectRefused(await site.run(['deploy', '--image', noSuchImage, ...quick]), {
      exitCode: 4,
      code: 'REGISTRY_UNREACHABLE',
      says: /gameops-no-such-registry/,
    });
    const cases: [string, typeof short, Refusal][] = [
      ['exits', long, { exitCode: 5, code: 'REPLICA_EXITED', says: /the map of the world is missing/ }],
      ['never', short, { exitCode: 5, code: 'FLEET_NOT_READY', says: /503/ }],
      ['refuses', short, { exitCode: 5, code: 'JOIN_REFUSED', says: /403/ }],
      ['crashes', long, { exitCode: 5, code: 'REPLICA_EXITED', says: /lost the map/ }],
    ];
    for (const [image, patience, refusal] of cases) {
      await site.configure(patience);
      expectRefused(await site.run(['deploy', '--image', made[image] ?? '', '--watch', '10s']), refusal);
      expect(await whereTheyAre(site)).toMatchObject({ traffic: [], running: [], unfinished: null });
      const answer = await fetch(await site.url());
      expect(answer.status).toBe(503);
    }
    await site.configure({ server: { memory: '24m' } });
    expectRefused(await site.run(['deploy', '--watch', '10s']), {
      exitCode: 5,
      code: 'REPLICA_EXITED',
      says: /needed more memory than server.memory allows/,
    });
    await site.configure({ server: { memory: '320m' } });
    const good = await site.run(['deploy', '--watch', '1s']);
    expect(good.exitCode, good.stdout).toBe(0);
  });
});
