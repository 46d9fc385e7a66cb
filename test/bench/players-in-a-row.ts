/** Deploy after deploy under the same players: nothing may grow. */

import { startLoad } from '../support/load.ts';
import type { TlsSite } from '../support/tls-site.ts';
import { childrenOf, gameProcesses, memoryOf, openFilesOf, pidOf, rssMiB } from '../support/vital-signs.ts';
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

/** Old Nginx workers may still be letting the last connections of theirs go. */
const settleMs = 8_000;
const perDeployMs = 90_000;

export async function manyDeploys(ground: TlsSite, players: number, deploys: number): Promise<void> {
  const { site } = ground;
  const memory = await memoryOf(site);
  const load = startLoad(ground, players, deploys * perDeployMs);
  await load.playing;
  const samples: Sample[] = [];
  try {
    for (let n = 0; n < deploys; n += 1) {
      const ran = await site.run(['deploy', '--again', '--watch', '3s', '--drain', '90s']);
      await sleep(settleMs);
      const games = await gameProcesses(site);
      const nginx = await pidOf(site, 'proxy');
      const workers = childrenOf(nginx);
      const all = [nginx, ...workers];
      const sum = (of: (pid: number) => number, pids: number[]) =>
        pids.reduce((total, pid) => total + of(pid), 0);
      const pids = games.map(({ pid }) => pid);
      const sample = {
        server: sum(rssMiB, pids),
        serverFiles: sum(openFilesOf, pids),
        workers: workers.length,
        nginx: sum(rssMiB, all),
        nginxFiles: sum(openFilesOf, all),
        redis: await memory.usedMiB(),
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
    `all of them: moved ${moved}, lost ${lost}, twice ${duplicated}, failed ${failed}, gap max ${gapMs?.max}`,
  );
  judge(`${deploys} deploys: lost + twice`, [lost + duplicated], 0, worst);
  for (const key of ['server', 'serverFiles', 'workers', 'nginx', 'nginxFiles', 'redis', 'keys'] as const) {
    const values = samples.map((sample) => sample[key]);
    judge(`${deploys} deploys: ${key}, growth from first to last half, %`, [growthPercent(values)], 5, worst);
  }
}

/** Of the second half's mean over the first half's, without the very first, which is still warming up. */
function growthPercent(values: readonly number[]): number {
  const settled = values.length > 3 ? values.slice(1) : values;
  const half = Math.floor(settled.length / 2);
  const mean = (some: readonly number[]) =>
    some.reduce((sum, one) => sum + one, 0) / Math.max(1, some.length);
  const [first, last] = [mean(settled.slice(0, half)), mean(settled.slice(-half))];
  return first === 0 ? 0 : ((last - first) / first) * 100;
}
