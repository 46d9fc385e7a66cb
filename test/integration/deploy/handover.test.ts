/**
 * Players of a site who talk all the while, as a fleet leaves under them: the CLI, Nginx, Redis and the servers
 * together. What the servers do by themselves is in server-handover.test.ts.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type LoadPlayer, newTimes, startPlayer } from '../../../src/client/player.ts';
import { label } from '../../../src/contract.ts';
import type { Event } from '../../../src/report/events.ts';
import { mintToken } from '../../../src/tokens.ts';
import { liveOf, recover } from '../../chaos/scenarios.ts';
import { mendAfterFailure } from '../../support/mend.ts';
import { until } from '../../support/players/game-server.ts';
import { openSite, type Ran, type Site, stepsOf } from '../../support/site/site.ts';

const size = 40;
const rolling = ['deploy', '--again', '--strategy', 'rolling', '--watch', '1s'];

interface Crowd {
  players: LoadPlayer[];
  /** Resolves when every player has heard all that was said. */
  settled(): Promise<void>;
  servedBy(): Set<string | null>;
  stop(): void;
}

/** One room: players in turn say their next number, which all others check. */
async function crowdOn(site: Site): Promise<Crowd> {
  const url = new URL('/ws', await site.url());
  url.protocol = 'ws:';
  const secret = (await site.env()).JWT_SECRET ?? '';
  const run = `crowd-${Math.random().toString(36).slice(2, 6)}`;
  const times = newTimes();
  const players = Array.from({ length: size }, (_, n) => {
    const name = `${run}-${n}`;
    const token = mintToken(secret, { id: name, name }, 600_000);
    return startPlayer({ url: url.href, token, name, region: 'r3-3', times });
  });
  let turn = 0;
  const talking = setInterval(() => players[turn++ % size]?.count(), 50);
  await until(() => players.every((player) => player.isOn()));
  const isSettled = () =>
    players.every((player) => player.isOn() && player.waiting() === 0) &&
    new Set(players.map((player) => player.place()?.offset)).size === 1;
  return {
    players,
    async settled() {
      clearInterval(talking);
      await until(isSettled);
    },
    servedBy: () => new Set(players.map((player) => player.servedBy()?.split('/')[0] ?? null)),
    stop() {
      clearInterval(talking);
      for (const player of players) player.stop();
    },
  };
}

const sum = (crowd: Crowd, of: keyof LoadPlayer['counts']) =>
  crowd.players.reduce((all, { counts }) => all + (counts[of] ?? 0), 0);

function expectNothingLost(crowd: Crowd): void {
  const seen = {
    lost: sum(crowd, 'lost'),
    duplicated: sum(crowd, 'duplicated'),
    matesLeft: sum(crowd, 'matesLeft'),
    anew: sum(crowd, 'anew'),
  };
  expect(seen).toEqual({ lost: 0, duplicated: 0, matesLeft: 0, anew: 0 });
}

const closes = (crowd: Crowd) => sum(crowd, 'restarts') + sum(crowd, 'breaks');
describe('players of a fleet that drains', () => {
  let site: Site;
  let crowd: Crowd;

  beforeAll(async () => {
    site = await openSite({ replicas: 2, name: 'handover', config: { deploy: { drain: '20s' } } });
    const first = await site.run(['deploy', '--watch', '1s']);
    expect(first.exitCode, first.stdout).toBe(0);
    crowd = await crowdOn(site);
  });
  afterAll(async () => {
    crowd?.stop();
    await site?.close();
  });
  mendAfterFailure(() => site);

  /** Each obligation begins with players who have seen nothing yet. */
  const anew = async () => {
    crowd.stop();
    crowd = await crowdOn(site);
  };

  async function redisContainer() {
    const [redis] = (await site.containers()).filter(({ Labels }) => Labels[label.role] === 'redis');
    return site.docker.getContainer(redis?.Id ?? '');
  }

  /** Runs a deploy and signals it when the first players have been handed over. */
  async function strike(args: readonly string[], signal: NodeJS.Signals): Promise<Ran> {
    let isStruck = false;
    const onEvent = (event: Event, child: { kill(signal: NodeJS.Signals): boolean }) => {
      if (isStruck || event.type !== 'progress' || event.label !== 'handed over') return;
      isStruck = true;
      child.kill(signal);
    };
    const ran = await site.run(args, { onEvent });
    expect(isStruck, ran.stdout).toBe(true);
    return ran;
  }

  it('move once each in a rolling deploy, however many batches it has, and no socket is closed', async () => {
    const ran = await site.run(rolling);
    expect(ran.exitCode, ran.stdout).toBe(0);
    await crowd.settled();
    expect(new Set(crowd.players.map(({ counts }) => counts.moves))).toEqual(new Set([1]));
    expect(closes(crowd)).toBe(0);
    expectNothingLost(crowd);
    expect(ran.json?.result?.players).toMatchObject({ moved: size, closed: 0, lost: 0 });
  });

  it('are all back on their old release when a rolling deploy is interrupted and aborted', async () => {
    await anew();
    const live = await liveOf(site);
    const ran = await strike(rolling, 'SIGINT');
    expect(ran.exitCode, ran.stdout).toBe(130);
    const aborted = await site.run(['abort']);
    expect(aborted.exitCode, aborted.stdout).toBe(0);
    await until(() => crowd.servedBy().size === 1);
    expect([...crowd.servedBy()]).toEqual([String(live)]);
    await crowd.settled();
    expectNothingLost(crowd);
  });

  it('are handed back when a deploy is interrupted after its commitment and aborted', async () => {
    await anew();
    const live = await liveOf(site);
    const ran = await site.run(['deploy', '--again', '--watch', '1s'], {
      onEvent: (event, child) => {
        if (event.type === 'step-started' && event.step.kind === 'drain') child.kill('SIGINT');
      },
    });
    expect(ran.exitCode, ran.stdout).toBe(130);
    expect(await liveOf(site)).toBeGreaterThan(live);
    const aborted = await site.run(['abort']);
    expect(aborted.exitCode, aborted.stdout).toBe(0);
    expect(stepsOf(aborted).map(({ kind }) => kind)).toEqual([
      ...['condemn', 'switch-traffic', 'quiesce', 'drain', 'retire', 'close'],
    ]);
    await crowd.settled();
    expect([...crowd.servedBy()]).toEqual([String(live)]);
    expect(await liveOf(site)).toBe(live);
    expect(closes(crowd)).toBe(0);
    expectNothingLost(crowd);
    expect((await site.run(['status'])).json?.result).toMatchObject({ unfinished: null });
  });

  it('keep moving when gameops is killed, and the next command finishes the deploy without losing a player', async () => {
    await anew();
    const live = await liveOf(site);
    const ran = await strike(['deploy', '--again', '--watch', '1s'], 'SIGKILL');
    expect(ran.signal).toBe('SIGKILL');
    expect(await recover(site, 'resume')).toEqual([]);
    await crowd.settled();
    expect([...crowd.servedBy()]).toEqual([String(await liveOf(site))]);
    expect(await liveOf(site)).toBeGreaterThan(live);
    expect(closes(crowd)).toBe(0);
    expectNothingLost(crowd);
  });

  it('are handed over although Redis is paused when the order is given', async () => {
    await anew();
    const redis = await redisContainer();
    let stoodStill: Promise<void> | null = null;
    const standStill = async () => {
      await redis.pause();
      await new Promise((resolve) => setTimeout(resolve, 4_500));
      await redis.unpause();
    };
    const ran = await site.run(['deploy', '--again', '--watch', '1s'], {
      onEvent: (event) => {
        if (event.type === 'step-done' && event.step.kind === 'watch') stoodStill ??= standStill();
      },
    });
    await stoodStill;
    expect(ran.exitCode, ran.stdout).toBe(0);
    await crowd.settled();
    expect([...crowd.servedBy()]).toEqual([String(await liveOf(site))]);
    expect(closes(crowd)).toBe(0);
    expectNothingLost(crowd);
    expect(ran.json?.result?.players).toMatchObject({ moved: size, closed: 0, lost: 0 });
  });

  it('lose no message and stay in the game when Redis is restarted', async () => {
    await anew();
    await (await redisContainer()).restart({ t: 60 });
    const saidBefore = sum(crowd, 'acknowledged');
    await until(() => sum(crowd, 'acknowledged') > saidBefore + size);
    await crowd.settled();
    expectNothingLost(crowd);
    expect(sum(crowd, 'breaks')).toBe(0);
  });

  it('are waited for by a deploy with --when-quiet, which changes nothing while it waits', async () => {
    await anew();
    const live = await liveOf(site);
    // Servers may still count players of the former crowd.
    await until(async () => {
      const fleets: { players: number | null }[] = (await site.run(['status'])).json?.result.fleets ?? [];
      return fleets.some(({ players }) => (players ?? 0) > 5);
    });
    let isWaiting = false;
    const deploying = site.run(['deploy', '--again', '--watch', '1s', '--when-quiet', '5'], {
      onEvent: (event) => {
        if (event.type === 'note' && event.message.includes('waiting for 5 or fewer')) isWaiting = true;
      },
    });
    const early = await Promise.race([deploying, until(() => isWaiting)]);
    expect(early?.stdout).toBeUndefined();
    expect(await liveOf(site)).toBe(live);
    crowd.stop();
    const ran = await deploying;
    expect(ran.exitCode, ran.stdout).toBe(0);
    expect(await liveOf(site)).toBeGreaterThan(live);
  });
});
