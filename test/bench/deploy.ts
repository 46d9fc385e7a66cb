/**
 * `npm run bench:deploy`: what a deploy costs in addition to its containers' own time to ready, the watch and the drain
 * (limit: 2 s), compared with a plain stop and start of the same containers; and ten replicas at once compared with ten
 * one after another (limit: 0.6 ×). Needs the build and the images; works on a project of its own and leaves nothing.
 */
import { cpus } from 'node:os';
import Docker from 'dockerode';
import { label } from '../../src/contract.ts';
import { openSite, type Ran, type Site } from '../support/site/site.ts';

const rounds = Number(process.argv[2] ?? 5);
/** Longer than old Nginx workers may live, so that no quiet time is added to the watch that was asked for. */
const watchMs = 6_000;
const docker = new Docker();

interface Replica {
  id: string;
  address: string;
}

async function replicasOf(site: Site, release: number): Promise<Replica[]> {
  const own = (await site.containers()).filter(({ Labels }) => Labels[label.release] === String(release));
  return own.map(({ Id, Labels }) => ({ id: Id, address: Labels[label.address] ?? '' }));
}

async function untilReady({ address }: Replica): Promise<void> {
  for (;;) {
    const ok = await fetch(`http://${address}:3000/readyz`, { signal: AbortSignal.timeout(1_000) }).then(
      async (answer) => {
        await answer.arrayBuffer();
        return answer.status === 200;
      },
      () => false,
    );
    if (ok) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const stopAll = (replicas: readonly Replica[]) =>
  Promise.all(replicas.map(({ id }) => docker.getContainer(id).stop({ t: 10 })));

async function timed(work: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await work();
  return performance.now() - began;
}

const start = (replica: Replica) =>
  docker
    .getContainer(replica.id)
    .start()
    .then(() => untilReady(replica));

function stepMs(ran: Ran, ...kinds: string[]): number {
  const steps: { kind: string; ms: number }[] = ran.json?.result.steps ?? [];
  return steps.filter(({ kind }) => kinds.includes(kind)).reduce((sum, { ms }) => sum + ms, 0);
}

function mustBeDone(ran: Ran): Ran {
  if (ran.exitCode !== 0) throw new Error(`exit ${ran.exitCode}: ${ran.stdout}`);
  return ran;
}

/** CPU time of all cores of this machine since it started, of all processes. */
function cpuMs(): number {
  return cpus().reduce((sum, { times }) => sum + times.user + times.nice + times.sys + times.irq, 0);
}

const median = (values: readonly number[]) =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
const s = (ms: number) => `${(ms / 1_000).toFixed(2)} s`;
const say = (text: string) => process.stdout.write(`${text}\n`);

async function overhead(): Promise<boolean> {
  const site = await openSite({ replicas: 2, name: 'bench' });
  const over: number[] = [];
  const deploys: number[] = [];
  const ready: number[] = [];
  const plain: number[] = [];
  try {
    mustBeDone(await site.run(['deploy', '--watch', '1s']));
    for (let round = 0; round < rounds; round += 1) {
      const ran = mustBeDone(await site.run(['deploy', '--again', '--watch', `${watchMs}ms`]));
      const replicas = await replicasOf(site, ran.json?.result.release);
      const stopMs = await timed(() => stopAll(replicas));
      const readyMs = await timed(() => Promise.all(replicas.map(start)));
      deploys.push(ran.ms);
      ready.push(readyMs);
      plain.push(stopMs + readyMs);
      over.push(ran.ms - readyMs - watchMs - stepMs(ran, 'drain'));
      const steps: { kind: string; ms: number }[] = ran.json?.result.steps;
      say(
        `  ${s(ran.ms)}: ${steps.map(({ kind, ms }) => `${kind} ${ms}`).join(', ')}; own time to ready ${s(readyMs)}`,
      );
    }
  } finally {
    await site.close();
  }
  say(`deploy ${s(median(deploys))} of which watch ${s(watchMs)}, own time to ready ${s(median(ready))}`);
  say(`plain stop and start of the same containers ${s(median(plain))}, and nobody is served in that time`);
  say(
    `over ready + watch + drain: ${s(median(over))} (limit 2 s, median of ${rounds}, worst ${s(Math.max(...over))})`,
  );
  return median(over) <= 2_000;
}

async function tenReplicas(): Promise<boolean> {
  const site = await openSite({ replicas: 10, name: 'bench' });
  try {
    const fresh = mustBeDone(await site.run(['deploy', '--watch', '1s']));
    const replicas = await replicasOf(site, 1);
    const inARow: number[] = [];
    const atOnce: number[] = [];
    const busy: number[] = [];
    for (let round = 0; round < 3; round += 1) {
      await stopAll(replicas);
      inARow.push(
        await timed(async () => {
          for (const replica of replicas) await start(replica);
        }),
      );
      await stopAll(replicas);
      // The repair of a fleet that is down starts all ten, as every deploy does.
      const before = cpuMs();
      const began = performance.now();
      const ran = mustBeDone(await site.run(['resume']));
      busy.push((cpuMs() - before) / cpus().length / (performance.now() - began));
      atOnce.push(stepMs(ran, 'start-fleet', 'await-ready'));
    }
    const ratio = median(atOnce) / median(inARow);
    say(
      `10 replicas: new ones ${s(stepMs(fresh, 'start-fleet', 'await-ready'))}; kept ones at once ${s(median(atOnce))}, one after another ${s(median(inARow))}: ${ratio.toFixed(2)} × (limit 0.6)`,
    );
    // When every core is busy all the time, only more cores or less work per start can lower it.
    say(`in that time ${cpus().length} cores were busy for ${Math.round(median(busy) * 100)} % of the time`);
    return ratio <= 0.6;
  } finally {
    await site.close();
  }
}

const met = [await overhead(), await tenReplicas()];
process.exitCode = met.every(Boolean) ? 0 : 1;
