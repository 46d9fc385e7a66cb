/**
 * Releases that are no good and requests that can't be met, while a release is live: players keep playing where they were,
 * and the operator reads what is wrong and what to do.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { namesOf } from '../../../src/contract.ts';
import { mendAfterFailure } from '../../support/mend.ts';
import { type Clients, inDetail, startClients } from '../../support/players/clients.ts';
import type { ImageMaker } from '../../support/site/bad-images.ts';
import { engineImage } from '../../support/site/engine-image.ts';
import { fullDisk } from '../../support/site/full-disk.ts';
import {
  badImages,
  expectRefused,
  long,
  noSuchImage,
  type Refusal,
  short,
  whereTheyAre,
} from '../../support/site/refusals.ts';
import { openSite, type RunOptions, type Site, stepsOf } from '../../support/site/site.ts';

const quick = ['--watch', '1s'];

let images: ImageMaker;
let made: Record<string, string>;

beforeAll(async () => {
  ({ images, made } = await badImages());
});
afterAll(() => images?.removeAll());

describe('with a release live', () => {
  let site: Site;
  let clients: Clients;
  let before: Awaited<ReturnType<typeof whereTheyAre>>;

  beforeAll(async () => {
    site = await openSite({ replicas: 1, name: 'refused', config: long });
    const first = await site.run(['deploy', '--watch', '1s']);
    expect(first.exitCode, first.stdout).toBe(0);
    clients = await startClients({ url: await site.url(), clients: 4, players: 4, pauseMs: 20 });
    before = await whereTheyAre(site);
  });
  afterAll(async () => {
    await clients?.stop();
    await site?.close();
  });

  mendAfterFailure(() => site);
  // As it was deployed: a test changes what it needs, and one that fails leaves it changed.
  beforeEach(() =>
    site.configure({
      ...{ server: { replicas: 1, memory: '320m' }, servr: undefined },
      ...{ http: { templates: undefined }, ...long },
    }),
  );

  const refused = async (args: string[], refusal: Refusal, options: RunOptions = {}) => {
    await clients.window();
    const ran = await site.run(args, options);
    expectRefused(ran, refusal);
    expect(await whereTheyAre(site)).toEqual(before);
    const seen = await clients.window();
    return { ran, seen };
  };
  const unnoticed = async (args: string[], refusal: Refusal, options: RunOptions = {}) => {
    const { ran, seen } = await refused(args, refusal, options);
    expect(seen.failed, inDetail(seen)).toBe(0);
    expect(seen.players, inDetail(seen)).toMatchObject({ on: 4, closed: 0, broken: 0 });
    return ran;
  };

  // First, because players stay on their sockets in all tests that follow.
  it('an image that crashes during the watch is backed out, and players return to the live release', async () => {
    // Players and requests on the crashed replica are interrupted; nobody can undo that, but they are back at once.
    await refused(['deploy', '--image', made.crashes ?? '', '--watch', '10s'], {
      exitCode: 5,
      code: 'REPLICA_EXITED',
      says: /lost the map/,
    });
    await clients.window();
    await new Promise((resolve) => setTimeout(resolve, 500));
    const after = await clients.window();
    expect(after.failed, inDetail(after)).toBe(0);
    expect(after.players, inDetail(after)).toMatchObject({ on: 4, closed: 0, broken: 0 });
  });

  it('templates that redirect players fail their watch, and the release before is served as it was deployed', async () => {
    await mkdir(join(site.folder, 'moved'));
    await writeFile(join(site.folder, 'moved', 'public.eta'), 'location / { return 301 /elsewhere; }\n');
    await site.configure({ http: { templates: 'moved' } });
    const url = await site.url();
    const ask = async () => (await fetch(`${url}api/version`, { redirect: 'manual' })).status;
    expect(await ask()).toBe(200);
    await refused(['deploy', '--again', ...quick], {
      exitCode: 5,
      code: 'WATCH_FAILED',
      says: /answered 301/,
    });
    expect(await ask()).toBe(200);
    await site.configure({ http: { templates: undefined } });
  });

  it('an image that exits at boot is refused at once, with the last lines of its log', async () => {
    const ran = await unnoticed(['deploy', '--image', made.exits ?? '', ...quick], {
      exitCode: 5,
      code: 'REPLICA_EXITED',
      says: /the map of the world is missing/,
    });
    const failed = (await site.run(['releases'])).json?.result.releases[0];
    expect(failed).toMatchObject({ verdict: 'failed', reason: expect.stringContaining('REPLICA_EXITED') });
    // Kept stopped for inspection, and named.
    const name = String(ran.json?.error?.facts.replica);
    const kept = (await site.containers()).find(({ Names }) => Names.includes(`/${name}`));
    expect(kept?.State).toBe('exited');
  });

  it('an image that never becomes ready is refused at the deadline', async () => {
    await site.configure(short);
    await unnoticed(['deploy', '--image', made.never ?? '', ...quick], {
      exitCode: 5,
      code: 'FLEET_NOT_READY',
      says: /503 still reading the map/,
    });
  });

  it('an image that lets no player join is refused although it answers HTTP', async () => {
    await site.configure(short);
    await unnoticed(['deploy', '--image', made.refuses ?? '', ...quick], {
      exitCode: 5,
      code: 'JOIN_REFUSED',
      says: /403/,
    });
  });

  it('an image that no registry has is refused before anything is changed', async () => {
    await unnoticed(['deploy', '--image', noSuchImage, ...quick], {
      exitCode: 4,
      code: 'REGISTRY_UNREACHABLE',
      says: /gameops-no-such-registry/,
    });
  });

  it('a template that Nginx rejects is never loaded', async () => {
    await mkdir(join(site.folder, 'templates'));
    await writeFile(join(site.folder, 'templates', 'security.eta'), 'no_such_directive on;\n');
    await site.configure({ http: { templates: 'templates' }, ...long });
    const rejected = await unnoticed(['deploy', '--again', ...quick], {
      exitCode: 5,
      code: 'PROXY_CONFIG_REJECTED',
      says: /no_such_directive/,
    });
    await writeFile(join(site.folder, 'templates', 'security.eta'), '<% if (');
    const invalid = await unnoticed(['deploy', '--again', ...quick], {
      exitCode: 3,
      code: 'TEMPLATE_INVALID',
      says: /security/,
    });
    // Nobody was sent to the candidate, so nobody is waited for.
    for (const ran of [rejected, invalid])
      expect(stepsOf(ran).map(({ kind }) => kind)).toEqual([
        ...['open', 'start-fleet', 'await-ready', 'switch-traffic'],
        ...['condemn', 'retire', 'close'],
      ]);
    await site.configure({ http: { templates: undefined } });
  });

  it('a full disk is found before anything is changed', async () => {
    const disk = await fullDisk(join(site.folder, 'full.sock'), 'from the start');
    const env = { DOCKER_HOST: disk.host };
    await unnoticed(
      ['deploy', '--again', ...quick],
      { exitCode: 5, code: 'DISK_TOO_FULL', says: /0 kB of disk free/ },
      { env },
    );
    disk.close();
  });

  it('a disk that fills up during a deploy leaves players on the live release, and no new replica running', async () => {
    const volume = namesOf(site.project).volume.web;
    const disk = await fullDisk(join(site.folder, 'filling.sock'), { volume });
    const env = { DOCKER_HOST: disk.host };
    await unnoticed(
      ['deploy', '--again', ...quick],
      { exitCode: 5, code: 'DISK_TOO_FULL', says: /no space left on device/ },
      { env },
    );
    disk.close();
  });

  it('a container of somebody else that has the name of a replica is left alone', async () => {
    const next = (await site.run(['deploy', '--again', '--plan'])).json?.result.release;
    const name = `${site.project}-game-${next}-1`;
    const foreign = await site.docker.createContainer({ name, Image: await engineImage(), Cmd: ['true'] });
    try {
      await unnoticed(['deploy', '--again', ...quick], {
        exitCode: 3,
        code: 'FOREIGN_CONTAINER',
        says: new RegExp(name),
      });
      expect((await foreign.inspect()).State.Status).toBe('created');
    } finally {
      await foreign.remove({ force: true });
    }
  });

  it('wrong options and wrong settings change nothing', async () => {
    const cases: [string[], Refusal][] = [
      [['deploy', '--replicas', '0'], { exitCode: 2, code: 'USAGE', says: /1 to 50/ }],
      [['deploy', '--strategy', 'red-black'], { exitCode: 2, code: 'USAGE', says: /blue-green or rolling/ }],
      [['deploy', '--no-such-option'], { exitCode: 2, code: 'USAGE', says: /--no-such-option/ }],
      [['rollback', '--to', '99'], { exitCode: 2, code: 'RELEASE_UNKNOWN', says: /99/ }],
      [['resume', '--strategy', 'rolling'], { exitCode: 2, code: 'USAGE', says: /--strategy/ }],
      [['deploy', '--replicas', '50'], { exitCode: 5, code: 'MEMORY_TOO_SMALL', says: /replicas/ }],
    ];
    await site.configure({ server: { memory: '2g' } });
    await clients.window();
    for (const [args, refusal] of cases) expectRefused(await site.run(args), refusal);
    expect(await whereTheyAre(site)).toEqual(before);
    const seen = await clients.window();
    expect(seen.failed, inDetail(seen)).toBe(0);
    expect(seen.players, inDetail(seen)).toMatchObject({ on: 4, closed: 0, broken: 0 });
    await site.configure({ server: { memory: '320m', replicas: 0 } });
    await unnoticedConfig({ says: /server\.replicas/ });
    await site.configure({ server: { replicas: 1 }, servr: { replicas: 2 } });
    await unnoticedConfig({ says: /did you mean server/ });
  });

  async function unnoticedConfig({ says }: { says: RegExp }): Promise<void> {
    const ran = await site.run(['deploy', ...quick]);
    expectRefused(ran, { exitCode: 3, code: 'CONFIG_INVALID', says });
  }

  it('a deploy after all these refusals has nothing to do', async () => {
    await site.configure({ server: { replicas: 1 }, servr: undefined });
    const { json } = await site.run(['deploy', '--plan']);
    expect(json?.result.plan.steps).toEqual([]);
  });
});
