/** A few of the kills and failures that `npm run test:soak -- deploy` causes by the dozen: test/chaos/. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { label, namesOf } from '../../../src/contract.ts';
import {
  interruptAndResume,
  killAndRecover,
  killReplicaIn,
  liveOf,
  recover,
  whatIsNotWhole,
} from '../../chaos/scenarios.ts';
import { mendAfterFailure } from '../../support/mend.ts';
import { type Clients, startClients } from '../../support/players/clients.ts';
import { statusOf, until } from '../../support/players/game-server.ts';
import { openSite, type Site } from '../../support/site/site.ts';

describe('a deploy under load', () => {
  let site: Site;
  let clients: Clients;
  beforeAll(async () => {
    // Ports that gameops chooses and must find again.
    const config = { http: { port: 0, tlsPort: 0 } };
    site = await openSite({ replicas: 2, name: 'crash', config });
    const first = await site.run(['deploy', '--watch', '1s']);
    expect(first.exitCode, first.stdout).toBe(0);
    clients = await startClients({ url: await site.url(), clients: 8, pauseMs: 30 });
  });
  afterAll(async () => {
    await clients?.stop();
    await site?.close();
  });

  mendAfterFailure(() => site);

  // Every other moment: test/simulation/crash-walk.test.ts without an engine, and the soak with one.
  it.each([
    ['at the switch', { at: 'step-started', nth: 4 }, 'deploy', 'blue-green'],
    ['between two batches', { at: 'step-done', nth: 7 }, 'resume', 'rolling'],
  ] as const)(
    'that is killed %s is finished by the next command, and nobody notices',
    async (_, moment, recovery, strategy) => {
      const struck = await killAndRecover(site, clients, { strategy, moment, recovery });
      expect(struck).toMatchObject({ hit: true, problems: [] });
    },
  );

  it('stops at a safe boundary on Ctrl-C and is resumed', async () => {
    const struck = await interruptAndResume(site, clients, {
      strategy: 'blue-green',
      moment: { at: 'step-started', nth: 5 },
    });
    expect(struck).toMatchObject({ hit: true, problems: [] });
  });

  it('is backed out when a new replica is killed during the watch', async () => {
    const struck = await killReplicaIn(site, { kind: 'watch', whose: 'new', strategy: 'blue-green' });
    expect(struck).toMatchObject({ hit: true, problems: [], exitCode: 5 });
  });

  it('serves again when every container was restarted, as by a reboot', async () => {
    const live = await liveOf(site);
    const running = (await site.containers()).filter(({ State }) => State === 'running');
    await Promise.all(running.map(({ Id }) => site.docker.getContainer(Id).restart({ t: 60 })));
    await until(async () => (await statusOf(new URL('/api/discoveries', await site.url()).href)) === 200);
    expect(await whatIsNotWhole(site, live)).toEqual([]);
  });

  it('serves again after resume when its network was removed', async () => {
    const live = await liveOf(site);
    const network = site.docker.getNetwork(namesOf(site.project).network);
    for (const { Id, State } of await site.containers())
      if (State === 'running') await network.disconnect({ Container: Id, Force: true });
    await network.remove();
    expect((await site.run(['resume'])).exitCode).toBe(0);
    expect(await statusOf(new URL('/api/discoveries', await site.url()).href)).toBe(200);
    expect(await whatIsNotWhole(site, live)).toEqual([]);
  });

  it('serves again at its old address when Nginx and Postgres were removed and the advice of doctor was followed', async () => {
    const live = await liveOf(site);
    const { proxy, postgres } = namesOf(site.project);
    const remove = (name: string) => site.docker.getContainer(name).remove({ force: true });
    let url = await site.url();
    for (;;) {
      await Promise.all([proxy, postgres].map(remove));
      const told = await site.run(['doctor']);
      const running = told.json?.result.findings.find(({ id }: { id: string }) => id === 'running');
      expect(running).toMatchObject({
        level: 'warning',
        message: `not running: ${proxy}, ${postgres}`,
        fix: 'gameops resume',
      });
      expect(await recover(site, 'resume')).toEqual([]);
      const before = url;
      url = await site.url();
      // A project of a test beside this one may take the port while nobody has it. Then the question is asked again.
      if (url !== before && (await isTakenByAnother(site, before))) continue;
      expect(url).toBe(before);
      break;
    }
    await until(async () => (await statusOf(new URL('/api/discoveries', url).href)) === 200);
    expect(await whatIsNotWhole(site, live)).toEqual([]);
  });
});

async function isTakenByAnother({ docker, project }: Site, url: string): Promise<boolean> {
  const port = Number(new URL(url).port);
  const all = await docker.listContainers();
  return all.some(
    ({ Labels, Ports }) =>
      Labels[label.project] !== project && Ports.some(({ PublicPort }) => PublicPort === port),
  );
}
