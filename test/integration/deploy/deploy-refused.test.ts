/**
 * Releases that are no good and requests that can't be met: whoever plays keeps playing where they were, and the
 * operator reads what is wrong and what to do.
 */

import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { label, namesOf } from '../../../src/contract.ts';
import { type Clients, inDetail, startClients } from '../../support/players/clients.ts';
import { badServers, type ImageMaker, imageMaker } from '../../support/site/bad-images.ts';
import { engineImage } from '../../support/site/engine-image.ts';
import { fullDisk } from '../../support/site/full-disk.ts';
import { openSite, type Ran, type RunOptions, type Site, stepsOf } from '../../support/site/site.ts';

const quick = ['--watch', '2s'];
/** What never gets ready is waited for no longer than this; what ends by itself gets the time that a busy machine needs. */
const short = { deploy: { ready: '12s' } };
const long = { deploy: { ready: '60s' } };
const noSuchImage = 'gameops-no-such-registry.invalid/arena:1';

let images: ImageMaker;
const made: Record<string, string> = {};

beforeAll(async () => {
  images = await imageMaker();
  const ours = { isOurs: true };
  made.exits = (await images.make('exits', badServers.exitsAtBoot, ours)).tag;
  made.never = (await images.make('never', badServers.neverReady, ours)).tag;
  made.crashes = (await images.make('crashes', badServers.crashesWhenWatched, ours)).tag;
  made.refuses = (await images.make('refuses', badServers.refusesJoins, ours)).tag;
});
afterAll(() => images.removeAll());

interface Refusal {
  exitCode: number;
  code: string;
  /** In message and facts together: what an operator needs to see of the cause. */
  says: RegExp;
}

function expectRefused(ran: Ran, { exitCode, code, says }: Refusal): void {
  const error = ran.json?.error;
  expect({ exitCode: ran.exitCode, code: error?.code, message: error?.message }).toMatchObject({
    exitCode,
    code,
  });
  expect(`${error?.message} ${JSON.stringify(error?.facts)}`).toMatch(says);
  expect(error?.next[0]).toMatch(/\S/);
}

/** Traffic, fleets with somebody to serve, and the live release: what no refused deploy may change. */
async function whereTheyAre(site: Site) {
  const { result } = (await site.run(['status'])).json ?? {};
  // Without the players: servers report them every two seconds, and the clients count their own sockets better.
  const running = result.fleets
    .filter((fleet: { ready: number }) => fleet.ready > 0)
    .map((fleet: object) => ({ ...fleet, players: undefined }));
  return { traffic: result.traffic, running, unfinished: result.unfinished, lockedBy: result.lockedBy };
}

describe('with a release live', () => {
  let site: Site;
  let clients: Clients;
  let before: Awaited<ReturnType<typeof whereTheyAre>>;

  beforeAll(async () => {
    site = await openSite({ replicas: 1, name: 'refused', config: long });
    const first = await site.run(['deploy', '--watch', '1s']);
    expect(first.exitCode, first.stdout).toBe(0);
    clients = await startClients({ url: await site.url(), clients: 8, players: 4, pauseMs: 10 });
    before = await whereTheyAre(site);
  });
  afterAll(async () => {
    await clients?.stop();
    await site?.close();
  });

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

  // First, because players are to stay on their sockets for as long as all that follows takes.
  it('an image that crashes while it is watched sends players back to where they were', async () => {
    // Players and requests that were on it meet its crash; no operator can undo that, but everybody is back at once.
    await refused(['deploy', '--image', made.crashes ?? '', '--watch', '5s'], {
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

  it('an image that exits at boot is refused at once, with its last words', async () => {
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

  it('an image that never gets ready is given up at the deadline', async () => {
    await site.configure(short);
    await unnoticed(['deploy', '--image', made.never ?? '', ...quick], {
      exitCode: 5,
      code: 'FLEET_NOT_READY',
      says: /503 still reading the map/,
    });
  });

  it('an image that lets no player join is refused though its HTTP is fine', async () => {
    await site.configure(short);
    await unnoticed(['deploy', '--image', made.refuses ?? '', ...quick], {
      exitCode: 5,
      code: 'JOIN_REFUSED',
      says: /403/,
    });
  });

  it('an image that nobody has is refused before anything is touched', async () => {
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

  it('a disk that is full is met before anything is touched', async () => {
    const disk = await fullDisk(join(site.folder, 'full.sock'), 'from the start');
    const env = { DOCKER_HOST: disk.host };
    await unnoticed(
      ['deploy', '--again', ...quick],
      { exitCode: 5, code: 'DISK_TOO_FULL', says: /0 MiB of disk free/ },
      { env },
    );
    disk.close();
  });

  it('a disk that fills up on the way leaves players where they are, and nothing running', async () => {
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

  it('a container of somebody else under our name is left alone', async () => {
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

  it('requests that make no sense change nothing', async () => {
    const cases: [string[], Refusal][] = [
      [['deploy', '--replicas', '0'], { exitCode: 2, code: 'USAGE', says: /1 to 50/ }],
      [['deploy', '--strategy', 'red-black'], { exitCode: 2, code: 'USAGE', says: /blue-green and rolling/ }],
      [['deploy', '--no-such-option'], { exitCode: 2, code: 'USAGE', says: /--no-such-option/ }],
      [['rollback', '--to', '99'], { exitCode: 2, code: 'RELEASE_UNKNOWN', says: /99/ }],
      [['resume', '--strategy', 'rolling'], { exitCode: 2, code: 'USAGE', says: /--strategy/ }],
      [['deploy', '--replicas', '50'], { exitCode: 5, code: 'MEMORY_TOO_SMALL', says: /replicas/ }],
    ];
    await site.configure({ server: { memory: '2g' } });
    for (const [args, refusal] of cases) await unnoticed(args, refusal);
    await site.configure({ server: { memory: '320m', replicas: 0 } });
    await unnoticedConfig({ says: /server\.replicas/ });
    await site.configure({ server: { replicas: 1 }, servr: { replicas: 2 } });
    await unnoticedConfig({ says: /did you mean server/ });
  });

  async function unnoticedConfig({ says }: { says: RegExp }): Promise<void> {
    const ran = await site.run(['deploy', ...quick]);
    expectRefused(ran, { exitCode: 3, code: 'CONFIG_INVALID', says });
  }

  it('and what was refused is forgotten: the live release still needs nothing', async () => {
    await site.configure({ server: { replicas: 1 }, servr: undefined });
    const { json } = await site.run(['deploy', '--plan']);
    expect(json?.result.plan.steps).toEqual([]);
  });
});

describe('as a first deploy', () => {
  let site: Site;
  beforeAll(async () => {
    site = await openSite({ replicas: 1, name: 'refused', config: long });
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
    await site.configure({ http: { port: 0 } });
  });

  it('what is asked for and can not be is told with nothing made', async () => {
    const foreign = await site.docker.createVolume({ Name: namesOf(site.project).volume.web });
    const cases: [object, Refusal][] = [
      [{}, { exitCode: 3, code: 'FOREIGN_CONTAINER', says: /-web/ }],
      [{ web: { dir: 'nowhere' } }, { exitCode: 3, code: 'CONFIG_INVALID', says: /nowhere/ }],
      [{ http: { templates: 'nowhere' } }, { exitCode: 3, code: 'TEMPLATE_INVALID', says: /nowhere/ }],
      [
        { http: { address: '192.0.2.7', port: 18_999 } },
        { exitCode: 3, code: 'CONFIG_INVALID', says: /no address of this machine/ },
      ],
    ];
    const asIs = { web: undefined, http: { templates: undefined, address: '127.0.0.1', port: 0 } };
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

  it('a bad release leaves nothing that serves, and a good one then does', async () => {
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
      expectRefused(await site.run(['deploy', '--image', made[image] ?? '', ...quick]), refusal);
      expect(await whereTheyAre(site)).toMatchObject({ traffic: [], running: [], unfinished: null });
      const answer = await fetch(await site.url());
      expect(answer.status).toBe(503);
    }
    const good = await site.run(['deploy', '--watch', '1s']);
    expect(good.exitCode, good.stdout).toBe(0);
  });
});
