/** Deploys with the real CLI on a real engine, under clients that are never idle: what players and operators see. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { label, namesOf } from '../../../src/contract.ts';
import { mendAfterFailure } from '../../support/mend.ts';
import { type Clients, inDetail, startClients } from '../../support/players/clients.ts';
import { until } from '../../support/players/game-server.ts';
import { type Operator, openSite, type Ran, type Site, stepsOf } from '../../support/site/site.ts';

const quick = ['--watch', '1s'];

const kindsOf = (ran: Ran) => stepsOf(ran).map((step) => step.kind);
const statusOf = async (site: Operator) => (await site.run(['status'])).json?.result;

/** Servers count their players every two seconds: of two operators who ask at once, one may read a newer number. */
const withoutPlayers = ({ json }: Ran) =>
  JSON.parse(JSON.stringify(json?.result, (key, value) => (key === 'players' ? undefined : value)));

/** Replica containers by name, with their ids: the same id means the same container. */
async function replicas(site: Site, release: number): Promise<Map<string, string>> {
  const game = (await site.containers()).filter(({ Labels }) => Labels[label.release] === String(release));
  return new Map(game.map(({ Names, Id }) => [Names[0] ?? '', Id]));
}

function expectDone(ran: Ran): void {
  expect({ exitCode: ran.exitCode, error: ran.json?.error }).toEqual({ exitCode: 0, error: undefined });
}

const firstTitle = 'brings up a first release from nothing';

describe('a deploy', () => {
  let site: Site;
  let clients: Clients | null = null;
  const everything: string[] = [];
  const canary = 'c4n4ry-in-the-coal-mine-0123456789-Zk3v_9QpXw7Lr2Tn8Ys4';

  const run = async (...args: string[]) => {
    const ran = await site.run(args);
    everything.push(ran.stdout, ran.stderr);
    return ran;
  };

  /** Runs it under the clients, none of which may notice. */
  const unnoticed = async (...args: string[]) => {
    clients ??= await startClients({ url: await site.url(), clients: 8, players: 8, pauseMs: 20 });
    await clients.window();
    const ran = await run(...args);
    expectDone(ran);
    const seen = await clients.window();
    expect(seen.failed, inDetail(seen)).toBe(0);
    expect(seen.sent).toBeGreaterThan(1_000);
    expect(seen.players, inDetail(seen)).toMatchObject({ on: 8, broken: 0 });
    return ran;
  };

  beforeAll(async () => {
    site = await openSite({ replicas: 2 });
    await site.setEnv({ JWT_SECRET: canary, MAP_SERVICE_TOKEN: `${canary}-map` });
  });
  afterAll(async () => {
    await clients?.stop();
    await site?.close();
  });

  mendAfterFailure(() => site);
  /** Deploys when an earlier test has failed to. */
  beforeEach(async ({ task }) => {
    if (task.name === firstTitle) return;
    const isDeployed = (await site.containers()).some(({ Labels }) => Labels[label.role] === 'game');
    if (!isDeployed) expectDone(await run('deploy', ...quick));
  });

  it(firstTitle, async () => {
    const ran = await run('deploy', ...quick);
    expectDone(ran);
    expect(ran.json?.result).toMatchObject({ release: 1, previous: null, strategy: 'blue-green' });
    const answer = await fetch(new URL('/api/version', ran.json?.result.url));
    expect(answer.status).toBe(200);
    // Over the Unix socket: Nginx logs which upstream it asked.
    const nginx = site.docker.getContainer(namesOf(site.project).proxy);
    const isBySocket = async () =>
      /"upstream":"unix:[^"]*[.]sock"/.test((await nginx.logs({ stdout: true })).toString());
    await until(isBySocket);
  });

  it('plans nothing for a release that is live already', async () => {
    const again = await run('deploy', ...quick);
    expectDone(again);
    expect(kindsOf(again)).toEqual([]);
    const shown = await run('deploy', '--plan');
    expect(shown.json?.result).toMatchObject({ changed: false, plan: { steps: [] } });
  });

  it('names the keys of changed settings, never their values, and is noticed by nobody', async () => {
    await site.setEnv({ LOG_LEVEL: 'warn', MAP_SERVICE_TOKEN: `${canary}-another` });
    const shown = await run('deploy', '--plan', ...quick);
    const planned = shown.json?.result.plan.steps;
    expect(planned[0].cause).toContain('settings changed: LOG_LEVEL, MAP_SERVICE_TOKEN');
    // Once with clients that saturate the site: those who come after leave the cores to the other test files.
    clients = await startClients({ url: await site.url(), clients: 32, players: 8 });
    const ran = await unnoticed('deploy', ...quick);
    await clients.stop();
    clients = null;
    // The plan that is run is the plan that was shown.
    expect(kindsOf(ran)).toEqual(planned.map((step: { kind: string }) => step.kind));
  });

  it('with the rolling strategy is noticed by nobody', async () => {
    const ran = await unnoticed('deploy', '--again', '--strategy', 'rolling', ...quick);
    expect(kindsOf(ran).filter((kind) => kind === 'switch-traffic')).toHaveLength(2);
  });

  it('is rolled back at once with the containers that were kept, and nobody notices that either', async () => {
    const fleets: { release: number; phase: string }[] = (await run('status')).json?.result.fleets ?? [];
    const release = fleets.find((fleet) => fleet.phase === 'serving')?.release ?? 0;
    const kept = await replicas(site, release - 1);
    expect(kept.size).toBe(2);
    const ran = await unnoticed('rollback');
    expect(ran.json?.result).toMatchObject({ release: release - 1, previous: release });
    expect(await replicas(site, release - 1)).toEqual(kept);
  });

  it('is refused while another deploy runs, and the error names that one', async () => {
    let second: Promise<Ran> | null = null;
    const other = await site.operator('second');
    const first = await site.start(['deploy', '--again', ...quick], {
      onEvent: (event, child) => {
        if (second !== null || event.type !== 'step-started' || event.step.kind !== 'await-ready') return;
        // Stands still meanwhile, so that it can't be done before the second one has asked for the lock.
        child.kill('SIGSTOP');
        second = other.run(['deploy', '--again', ...quick]).finally(() => child.kill('SIGCONT'));
      },
    }).ended;
    expectDone(first);
    const refused = await (second as Promise<Ran> | null);
    expect(refused?.exitCode).toBe(8);
    expect(refused?.json?.error).toMatchObject({
      code: 'LOCKED',
      facts: {
        verb: 'deploy',
        holder: expect.stringContaining('@'),
        since: expect.stringMatching(/^\d{4}-/),
      },
    });
  });

  it('looks the same from another machine, which can finish a deploy that was killed on the first', async () => {
    const other = await site.operator('second');
    for (const verb of ['status', 'releases', 'history']) {
      const [here, there] = await Promise.all([site.run([verb]), other.run([verb])]);
      expect(withoutPlayers(there), verb).toEqual(withoutPlayers(here));
    }
    // A watch that is long enough to be killed in it, however late this process hears of its begin.
    const killed = await site.start(['deploy', '--again', '--watch', '10s'], {
      onEvent: (event, child) => {
        if (event.type === 'step-done' && event.step.kind === 'switch-traffic') child.kill('SIGKILL');
      },
    }).ended;
    expect(killed.signal).toBe('SIGKILL');
    const { unfinished } = await statusOf(other);
    expect(unfinished).toMatchObject({ verb: 'deploy', stage: 'open' });
    // The lock dies with its holder, within a second.
    await site.unlocked();
    expect((await statusOf(other)).lockedBy).toBeNull();
    const resumed = await other.run(['resume']);
    expectDone(resumed);
    expect(resumed.json?.result.release).toBe(unfinished.release);
    const seen = await clients?.window();
    expect(seen?.failed, seen && inDetail(seen)).toBe(0);
    expect(seen?.players, seen && inDetail(seen)).toMatchObject({ on: 8, broken: 0 });
    expect(kindsOf(await other.run(['deploy']))).toEqual([]);
  });

  it('shows no secret in its output, its journal or the engine’s answers', async () => {
    const inspected = await Promise.all(
      (await site.containers()).map(({ Id }) => site.docker.getContainer(Id).inspect()),
    );
    const env = await site.env();
    const secrets = [canary, env.DB_PASSWORD ?? '', /:([^:@]+)@/.exec(env.REDIS_URL ?? '')?.[1] ?? ''];
    expect(secrets.every((secret) => secret.length > 20)).toBe(true);
    const told = [...everything, await site.journal(), JSON.stringify(inspected)].join('\n');
    expect(told.length).toBeGreaterThan(10_000);
    for (const secret of secrets) expect(told.includes(secret)).toBe(false);
  });
});
