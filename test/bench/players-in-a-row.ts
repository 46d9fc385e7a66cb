/** Deploy after deploy under the same players: nothing may grow. */

import { pino } from 'pino';
import { regionOf, roomSize, roomsOf } from '../../src/load/crowd.ts';
import { limits } from '../../src/protocol.ts';
import { createReadiness } from '../../src/server/readiness.ts';
import { openBus } from '../../src/server/redis/bus.ts';
import { startLoad } from '../support/players/load.ts';
import type { TlsSite } from '../support/site/tls-site.ts';
import {
  childrenOf,
  gameProcesses,
  memoryOf,
  openFilesOf,
  pidOf,
  redisUrlOf,
  rssMB,
} from '../support/site/vital-signs.ts';
import { judge, say, sleep, worst } from './table.ts';

interface Sample {
  server: number;
  serverFiles: number;
  workers: number;
  nginx: number;
  nginxFiles: number;
  redis: number;
  keys: number;
}

/** Old Nginx workers may still be ending their last connections. */
const settleMs = 8_000;
const perDeployMs = 90_000;

export async function manyDeploys(tls: TlsSite, players: number, deploys: number): Promise<void> {
  const { site } = tls;
  await fillRooms(tls, players);
  const memory = await memoryOf(site);
  const load = startLoad(tls, players, deploys * perDeployMs);
  const outside = players - (await load.playing);
  const samples: Sample[] = [];
  let unproven = 0;
  try {
    for (let n = 0; n < deploys; n += 1) {
      const ran = await site.run(['deploy', '--again', '--watch', '3s', '--drain', '90s']);
      // A load that has ended already did not see this deploy.
      if (ran.exitCode !== 0 || load.running.process.exitCode !== null) unproven += 1;
      await sleep(settleMs);
      const games = await gameProcesses(site);
      const nginx = await pidOf(site, 'proxy');
      const workers = childrenOf(nginx);
      const all = [nginx, ...workers];
      const sum = (of: (pid: number) => number, pids: number[]) =>
        pids.reduce((total, pid) => total + of(pid), 0);
      const pids = games.map(({ pid }) => pid);
      const sample = {
        server: sum(rssMB, pids),
        serverFiles: sum(openFilesOf, pids),
        workers: workers.length,
        nginx: sum(rssMB, all),
        nginxFiles: sum(openFilesOf, all),
        redis: await memory.usedMB(),
        keys: await memory.keys(),
      };
      samples.push(sample);
      const told = JSON.stringify(ran.json?.result?.players);
      say(
        `deploy ${n + 1}: exit ${ran.exitCode}, ${(ran.ms / 1_000).toFixed(1)} s, ${told}: ${JSON.stringify(sample)}`,
      );
    }
  } finally {
    memory.close();
    load.running.process.kill('SIGINT');
  }
  const { json } = await load.running.ended;
  const { lost, duplicated, failed, moved, gapMs } = json?.result ?? {};
  say(
    `all of them: not in ${outside}, moved ${moved}, lost ${lost}, twice ${duplicated}, failed ${failed}, gap max ${gapMs?.max}`,
  );
  judge(`${deploys} deploys: failed, or seen by nobody`, [unproven], 0, worst);
  judge(`${deploys} deploys: not in, or gave up`, [outside + failed], 0, worst);
  judge(`${deploys} deploys: lost + twice`, [lost + duplicated], 0, worst);
  for (const key of ['server', 'serverFiles', 'workers', 'nginx', 'nginxFiles', 'redis', 'keys'] as const) {
    const values = samples.map((sample) => sample[key]);
    judge(`${deploys} deploys: ${key}, growth from first to last half, %`, [growthPercent(values)], 5, worst);
  }
}

/**
 * Redis keeps a thousand messages of each room. Until they are there its memory grows with time, whatever is deployed:
 * a room with one message a second takes longer to fill than ten deploys take.
 */
async function fillRooms({ site }: TlsSite, players: number): Promise<void> {
  const bus = openBus({
    url: await redisUrlOf(site),
    identity: { project: site.project, release: 0, replica: 1, drainMs: 0, unixSocket: null },
    readiness: createReadiness(5_000),
    log: pino({ level: 'silent' }),
    onEntries: () => undefined,
    onBreak: () => undefined,
  });
  if (!(await bus.whenUp(10_000))) throw new Error('Redis is not there to be filled');
  const rooms = Array.from({ length: roomsOf(players) }, (_, room) => regionOf(room * roomSize));
  const from = { id: 'load-fill-1234', name: 'load-fill-1234' };
  for (let n = 1; n <= 5 * limits.replayMessages; n += 1) {
    const event = {
      t: 'said' as const,
      from,
      text: `${from.id}:${n}:${Date.now()}`,
      at: new Date().toISOString(),
    };
    await Promise.all(rooms.map((room) => bus.announce(room, event)));
  }
  bus.close();
}

/**
 * How much the mean of the second half is above the mean of the first half, without the very first value, which is still
 * warming up. Not a number when there is nothing to compare.
 */
function growthPercent(values: readonly number[]): number {
  const settled = values.length > 3 ? values.slice(1) : values;
  const half = Math.floor(settled.length / 2);
  const mean = (some: readonly number[]) =>
    some.reduce((sum, one) => sum + one, 0) / Math.max(1, some.length);
  const [first, last] = [mean(settled.slice(0, half)), mean(settled.slice(-half))];
  return ((last - first) / first) * 100;
}
