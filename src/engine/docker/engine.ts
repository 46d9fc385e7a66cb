/**
 * The Docker body of the Engine port. See port.ts for what it promises.
 * Never lets a dockerode error out: every verb's failure is in the words of the catalogue.
 */
import { statfs } from 'node:fs/promises';
import { label, namesOf } from '../../contract.ts';
import type { Emit } from '../../report/events.ts';
import { megabyte } from '../../units.ts';
import { engineFailed, foreign } from '../failures.ts';
import type { Engine, EngineInfo } from '../port.ts';
import { isNameOf } from '../spec.ts';
import { carrierVerbs } from './carrier.ts';
import { type Connection, connect } from './client.ts';
import { containerVerbs } from './containers.ts';
import { translate } from './errors.ts';
import { fleetVerbs } from './fleet.ts';
import { imageVerbs } from './images/images.ts';
import { lockVerbs } from './lock.ts';
import { networkVerbs } from './network.ts';
import { pipeVerbs } from './pipe.ts';

/** @param options.host as DOCKER_HOST, which it overrides @throws ENGINE_UNREACHABLE */
export async function dockerEngine(options: { host?: string; emit?: Emit } = {}): Promise<Engine> {
  const connection = await connect(options.host, options.emit ?? (() => undefined));
  const containers = containerVerbs(connection);
  const networks = networkVerbs(connection);
  const carriers = carrierVerbs(connection);
  const engine: Engine = {
    info: () => info(connection),
    mustOwnNames: (project) => mustOwnNames(connection, project),
    projects: () => projects(connection),
    ...containers,
    ...pipeVerbs(connection),
    ...imageVerbs(connection),
    ...networks,
    ...carriers,
    ...fleetVerbs(connection, { ...networks, ...carriers }),
    ...lockVerbs(connection),
    freeDiskBytes: (project, image) => freeDiskBytes(connection, containers.runOnce, project, image),
    close: async () => connection.close(),
  };
  return inOurWords(engine, connection.address);
}

function inOurWords(engine: Engine, address: string): Engine {
  const told = Object.entries(engine).map(
    ([verb, act]: [string, (...args: unknown[]) => Promise<unknown>]) => [
      verb,
      async (...args: unknown[]) => {
        try {
          return await act(...args);
        } catch (error) {
          throw translate(error, address);
        }
      },
    ],
  );
  return Object.fromEntries(told) as Engine;
}

async function info({ docker, isLocal }: Connection): Promise<EngineInfo> {
  const [version, about] = await Promise.all([
    docker.version(),
    docker.info() as Promise<Record<string, unknown>>,
  ]);
  return {
    version: version.Version,
    apiVersion: version.ApiVersion,
    platform: `${version.Os}/${version.Arch}`,
    memoryBytes: Number(about.MemTotal ?? 0),
    cpus: Number(about.NCPU ?? 1),
    time: String(about.SystemTime ?? ''),
    isLocal,
    isIsolating: isIsolating(about),
  };
}

function isIsolating({ SecurityOptions, DefaultRuntime }: Record<string, unknown>): boolean {
  const options = Array.isArray(SecurityOptions) ? SecurityOptions.map(String) : [];
  // Kata has a kernel for each container, gVisor one in user space.
  const sharesKernel =
    DefaultRuntime === undefined || /^(io[.]containerd[.])?(runc|crun)/.test(String(DefaultRuntime));
  return !sharesKernel || options.some((option) => option.includes('name=selinux'));
}

async function mustOwnNames({ docker }: Connection, project: string): Promise<void> {
  const [containers, volumes, networks] = await Promise.all([
    docker.listContainers({ all: true }),
    docker.listVolumes(),
    docker.listNetworks(),
  ]);
  const found = [
    ...containers.map(({ Names, Labels }) => ({ kind: 'container', name: Names[0]?.slice(1), Labels })),
    ...(volumes.Volumes ?? []).map(({ Name, Labels }) => ({ kind: 'volume', name: Name, Labels })),
    ...networks.map(({ Name, Labels }) => ({ kind: 'network', name: Name, Labels })),
  ];
  for (const { kind, name = '', Labels } of found) {
    if (isNameOf(project, name) && Labels?.[label.project] !== project) throw foreign(kind, name, project);
  }
}

async function projects({ docker }: Connection): Promise<string[]> {
  const filters = { label: [label.project] };
  const [containers, volumes, networks] = await Promise.all([
    docker.listContainers({ all: true, filters }),
    docker.listVolumes({ filters: filters as never }),
    docker.listNetworks({ filters: filters as never }),
  ]);
  const named = [...containers, ...(volumes.Volumes ?? []), ...networks].map(
    (one) => one.Labels?.[label.project] ?? '',
  );
  return [...new Set(named)].filter((name) => name !== '').sort();
}

/** Read directly where the engine's files are ours to see; asked from inside a container elsewhere. */
async function freeDiskBytes(
  { docker, isLocal }: Connection,
  runOnce: Engine['runOnce'],
  project: string,
  image: string,
): Promise<number> {
  const { DockerRootDir } = (await docker.info()) as { DockerRootDir?: string };
  if (isLocal && DockerRootDir !== undefined) {
    const seen = await statfs(DockerRootDir).catch(() => null);
    if (seen !== null) return seen.bavail * seen.bsize;
  }
  const answer = await runOnce(
    {
      project,
      name: `${namesOf(project).carrier}-disk`,
      role: 'one-off',
      image,
      entrypoint: ['df', '-Pk', '/'],
      command: [],
      network: 'none',
      memoryBytes: 64 * megabyte,
      readOnlyRoot: true,
      restart: 'no',
    },
    15_000,
  );
  const kibibytes = Number(answer.stdout.trim().split('\n').at(-1)?.split(/\s+/)[3]);
  if (!Number.isFinite(kibibytes))
    throw engineFailed(`df said: ${answer.stderr.trim() || answer.stdout.trim()}`);
  return kibibytes * 1024;
}
