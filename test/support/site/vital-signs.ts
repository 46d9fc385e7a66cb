/** What the parts of a site cost while players are on it, read from the outside: memory, files, workers, keys, CPU. */
import { readdirSync, readFileSync } from 'node:fs';
import { Redis } from 'ioredis';
import { label, port, redisKeys } from '../../../src/contract.ts';
import type { Site } from './site.ts';
import { addressOf } from './tls-site.ts';

export interface GameProcess {
  release: number;
  replica: number;
  pid: number;
  address: string;
}

export async function gameProcesses(site: Site): Promise<GameProcess[]> {
  const games = (await site.containers()).filter(
    ({ Labels, State }) => Labels[label.role] === 'game' && State === 'running',
  );
  return Promise.all(
    games.map(async ({ Id, Labels }) => ({
      release: Number(Labels[label.release]),
      replica: Number(Labels[label.replica]),
      pid: below((await site.docker.getContainer(Id).inspect()).State.Pid),
      address: Labels[label.address] ?? '',
    })),
  );
}

export async function pidOf(site: Site, role: 'proxy' | 'redis'): Promise<number> {
  const [found] = (await site.containers()).filter(({ Labels }) => Labels[label.role] === role);
  return found ? below((await site.docker.getContainer(found.Id).inspect()).State.Pid) : 0;
}

/** The engine's init stands before the game and Redis. */
function below(pid: number): number {
  const [child] = childrenOf(pid);
  return read(`/proc/${pid}/comm`).includes('init') && child !== undefined ? child : pid;
}

export function rssMB(pid: number): number {
  const [, kib = '0'] = /^VmRSS:\s+(\d+)/m.exec(read(`/proc/${pid}/status`)) ?? [];
  return Math.round(Number(kib) / 1024);
}

export const openFilesOf = (pid: number): number => {
  try {
    return readdirSync(`/proc/${pid}/fd`).length;
  } catch {
    return 0;
  }
};

export const childrenOf = (pid: number): number[] =>
  read(`/proc/${pid}/task/${pid}/children`).trim().split(' ').filter(Boolean).map(Number);

/** Seconds of CPU so far, children that ended included. */
export function cpuSeconds(pid: number): number {
  const fields = read(`/proc/${pid}/stat`).split(') ')[1]?.split(' ') ?? [];
  return [11, 12, 13, 14].reduce((sum, at) => sum + Number(fields[at] ?? 0), 0) / 100;
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}

/** Busy seconds of all cores since the machine started. */
export function machineCpuSeconds(): number {
  const fields = (/^cpu .*$/m.exec(read('/proc/stat'))?.[0] ?? '').trim().split(/\s+/).slice(1).map(Number);
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = fields;
  return (user + nice + system + irq + softirq) / 100;
}

const resolutionMs = 10;

export interface Gauges {
  /** 99th percentile of the event loop's delay since the last reading, which begins anew with each. */
  loopP99Ms: number;
  /** Messages of rooms so far, once for each player. */
  deliveries: number;
}

/** What is not told is no number. */
export async function takeGauges({ address }: GameProcess): Promise<Gauges> {
  const text = await (await fetch(`http://${address}:${port.admin}/metrics`)).text();
  const [, seconds] = /^nodejs_eventloop_lag_p99_seconds\S* (\S+)/m.exec(text) ?? [];
  const [, deliveries] = /^gameops_ws_deliveries_total\S* (\S+)/m.exec(text) ?? [];
  // Between two ticks of a timer: its own period is no delay.
  const loopP99Ms = Math.max(0, Math.round((Number(seconds) * 1_000 - resolutionMs) * 10) / 10);
  return { loopP99Ms, deliveries: Number(deliveries) };
}

export interface Memory {
  /** Ids of those who count as present now, by score. */
  present(): Promise<string[]>;
  keys(): Promise<number>;
  usedMB(): Promise<number>;
  close(): void;
}

/** As this machine reaches it. */
export async function redisUrlOf(site: Site): Promise<string> {
  const url = new URL((await site.env()).REDIS_URL ?? '');
  url.hostname = await addressOf(site, 'redis');
  return url.href;
}

export async function memoryOf(site: Site): Promise<Memory> {
  const redis = new Redis(await redisUrlOf(site));
  const { present } = redisKeys(site.project);
  return {
    present: () => redis.zrangebyscore(present, Date.now(), '+inf'),
    keys: () => redis.dbsize(),
    async usedMB() {
      const [, bytes = '0'] = /used_memory:(\d+)/.exec(await redis.info('memory')) ?? [];
      return Math.round(Number(bytes) / 1024 ** 2);
    },
    close: () => redis.disconnect(),
  };
}
