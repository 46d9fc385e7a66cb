/**
 * What tests leave on the engine and on the disk when they are killed. Every project of a test is named after the process
 * that opened it, so that the next run (as vitest's global set-up) removes exactly what dead processes left, and nothing of
 * a run beside it.
 */
import { createHash, randomBytes } from 'node:crypto';
import { readdir, readFile, rm } from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import Docker from 'dockerode';
import { label } from '../../src/contract.ts';

/** An engine can serve several hosts, and a process id says nothing on another one. */
const host = createHash('sha256').update(hostname()).digest('hex').slice(0, 3);
const owned = new RegExp(`\\bt-[a-z-]+-${host}([0-9a-z]{1,5})[0-9a-z]{5}(?![0-9a-z])`);
let marks = 0;

/** "<host><process><five of its own>": short, because a project's name has at most 32 characters. */
export function mark(): string {
  marks += 1;
  const own = marks.toString(36).padStart(2, '0') + randomBytes(2).toString('hex').slice(1);
  return `${host}${process.pid.toString(36)}${own}`;
}

/** A project that nobody else uses, "t-deploy-3f02h801c9e". */
export const testProject = (area: string) => `t-${area}-${mark()}`;

/** vitest's global set-up. */
export default async function setup(): Promise<void> {
  const docker = new Docker();
  await removeContainers(docker);
  await Promise.all([removeNetworks(docker), removeVolumes(docker), removeImages(docker)]);
  await Promise.all([endServers(), removeFolders()]);
}

/** Whether a name belongs to a test whose process is gone. */
function isLeftover(name: string | undefined): boolean {
  const pid = owned.exec(name ?? '')?.[1];
  return pid !== undefined && !isAlive(Number.parseInt(pid, 36));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

const gone = () => undefined;

async function removeContainers(docker: Docker): Promise<void> {
  const all = await docker.listContainers({ all: true });
  const left = all.filter(({ Names, Labels }) => [...Names, Labels[label.project]].some(isLeftover));
  await Promise.all(
    left.map(({ Id }) => docker.getContainer(Id).remove({ force: true, v: true }).catch(gone)),
  );
}

async function removeNetworks(docker: Docker): Promise<void> {
  const left = (await docker.listNetworks()).filter(({ Name }) => isLeftover(Name));
  await Promise.all(left.map(({ Id }) => docker.getNetwork(Id).remove().catch(gone)));
}

async function removeVolumes(docker: Docker): Promise<void> {
  const left = ((await docker.listVolumes()).Volumes ?? []).filter(({ Name }) => isLeftover(Name));
  await Promise.all(left.map(({ Name }) => docker.getVolume(Name).remove().catch(gone)));
}

async function removeImages(docker: Docker): Promise<void> {
  const tags = (await docker.listImages()).flatMap(({ RepoTags }) => RepoTags ?? []).filter(isLeftover);
  for (const tag of tags) await docker.getImage(tag).remove({ force: true }).catch(gone);
}

/** Game servers that a test started as processes of this machine outlive it when it is killed. */
async function endServers(): Promise<void> {
  const pids = (await readdir('/proc').catch(() => [])).filter((name) => /^\d+$/.test(name));
  for (const pid of pids) {
    const environment = await readFile(`/proc/${pid}/environ`, 'utf8').catch(() => '');
    const project = environment.split('\0').find((line) => line.startsWith('GAMEOPS_PROJECT='));
    if (isLeftover(project)) process.kill(Number(pid), 'SIGKILL');
  }
}

async function removeFolders(): Promise<void> {
  const left = (await readdir(tmpdir())).filter(isLeftover);
  await Promise.all(left.map((name) => rm(join(tmpdir(), name), { recursive: true, force: true })));
}
