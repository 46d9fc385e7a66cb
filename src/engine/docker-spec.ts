/**
 * ContainerSpec → the body Docker wants, and Docker's answer → ObservedContainer. PURE.
 * Promises the hardening of port.ts on every container; never puts anything of the operator's machine into one.
 */
import { createHash } from 'node:crypto';
import type Docker from 'dockerode';
import { formatVersion, label, type Role } from '../contract.ts';
import type { ContainerSpec, ContainerState, ObservedContainer } from './port.ts';

/** Enough for a hundred database connections, too few for a fork bomb to hurt the host. */
const pidsMax = 2048;
const tmpfsOptions = 'rw,noexec,nosuid,nodev,size=64m,mode=1777';

export function labelsOf(
  project: string,
  role: Role,
  more: Readonly<Record<string, string>> = {},
): Record<string, string> {
  return { ...more, [label.project]: project, [label.role]: role, [label.format]: String(formatVersion) };
}

/**
 * One short hash per field, so that drift can be named without keeping the values: "image=1f… env=9a…".
 * Identity (project, name) is left out; absent and undefined are the same.
 */
export function specLabel(fields: object): string {
  return Object.entries(fields)
    .filter(([key, value]) => value !== undefined && key !== 'project' && key !== 'name')
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key}=${shortHash(value)}`)
    .join(' ');
}

/** Fields in which two spec labels differ. */
export function driftBetween(made: string, wanted: string): string[] {
  const parse = (text: string) =>
    new Map(
      text
        .split(' ')
        .filter(Boolean)
        .map((pair) => pair.split('=') as [string, string]),
    );
  const [a, b] = [parse(made), parse(wanted)];
  return [...new Set([...a.keys(), ...b.keys()])].filter((key) => a.get(key) !== b.get(key)).sort();
}

function shortHash(value: unknown): string {
  return createHash('sha256').update(canonical(value)).digest('hex').slice(0, 10);
}

function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value) ?? 'null';
  const entries = Object.entries(value).filter(([, inner]) => inner !== undefined);
  return `{${entries
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, inner]) => `${JSON.stringify(key)}:${canonical(inner)}`)
    .join(',')}}`;
}

const nanoseconds = (ms: number) => Math.round(ms * 1e6);

/** @param openFiles null leaves the limit to the engine */
export function createBody(
  spec: ContainerSpec,
  labels: Record<string, string>,
  openFiles: number | null,
): Docker.ContainerCreateOptions {
  const publish = spec.publish ?? [];
  return {
    name: spec.name,
    Image: spec.image,
    Labels: labels,
    ...(spec.entrypoint ? { Entrypoint: [...spec.entrypoint] } : {}),
    ...(spec.command ? { Cmd: [...spec.command] } : {}),
    ...(spec.user !== undefined ? { User: spec.user } : {}),
    Env: Object.entries(spec.env ?? {}).map(([key, value]) => `${key}=${value}`),
    ExposedPorts: Object.fromEntries(publish.map((one) => [`${one.containerPort}/tcp`, {}])),
    // Without a stop signal Docker takes any signal for a manual stop and disarms the restart policy.
    StopSignal: spec.stopSignal ?? 'SIGTERM',
    ...(spec.stopGraceMs !== undefined ? { StopTimeout: Math.ceil(spec.stopGraceMs / 1000) } : {}),
    ...(spec.health ? { Healthcheck: healthOf(spec.health) } : {}),
    HostConfig: hostConfigOf(spec, openFiles),
    ...(spec.network === 'none' ? {} : { NetworkingConfig: { EndpointsConfig: endpointOf(spec.network) } }),
  };
}

function healthOf(health: NonNullable<ContainerSpec['health']>): Docker.HealthConfig {
  return {
    Test: ['CMD', ...health.command],
    Interval: nanoseconds(health.intervalMs),
    Timeout: nanoseconds(health.timeoutMs),
    Retries: health.retries,
    StartPeriod: nanoseconds(health.startMs),
  };
}

function endpointOf(network: Exclude<ContainerSpec['network'], 'none'>): Docker.EndpointsConfig {
  const endpoint = {
    ...(network.address ? { IPAMConfig: { IPv4Address: network.address } } : {}),
    ...(network.aliases ? { Aliases: [...network.aliases] } : {}),
  };
  return { [network.name]: endpoint as Docker.EndpointSettings };
}

function hostConfigOf(spec: ContainerSpec, openFiles: number | null): Docker.HostConfig {
  return {
    NetworkMode: spec.network === 'none' ? 'none' : spec.network.name,
    CapDrop: ['ALL'],
    ...(spec.capabilities?.length ? { CapAdd: [...spec.capabilities] } : {}),
    SecurityOpt: ['no-new-privileges'],
    Init: true,
    PidsLimit: pidsMax,
    LogConfig: { Type: 'local', Config: { 'max-size': '10m', 'max-file': '3' } },
    Memory: spec.memoryBytes,
    ...(spec.cpus !== undefined ? { NanoCpus: Math.round(spec.cpus * 1e9) } : {}),
    ...(openFiles === null ? {} : { Ulimits: [{ Name: 'nofile', Soft: openFiles, Hard: openFiles }] }),
    ReadonlyRootfs: spec.readOnlyRoot,
    RestartPolicy: { Name: spec.restart },
    ...(spec.tmpfs?.length
      ? { Tmpfs: Object.fromEntries(spec.tmpfs.map((path) => [path, tmpfsOptions])) }
      : {}),
    Mounts: (spec.mounts ?? []).map((mount) => ({
      Type: 'volume',
      Source: mount.volume,
      Target: mount.path,
      ReadOnly: mount.readOnly,
    })),
    PortBindings: bindingsOf(spec.publish ?? []),
  };
}

function bindingsOf(
  publish: NonNullable<ContainerSpec['publish']>,
): Record<string, { HostIp: string; HostPort: string }[]> {
  const bindings: Record<string, { HostIp: string; HostPort: string }[]> = {};
  for (const { address, hostPort, containerPort } of publish) {
    const key = `${containerPort}/tcp`;
    bindings[key] = [
      ...(bindings[key] ?? []),
      { HostIp: address, HostPort: hostPort === 0 ? '' : String(hostPort) },
    ];
  }
  return bindings;
}

export function observed(info: Docker.ContainerInspectInfo): ObservedContainer {
  const state = info.State.Status as ContainerState;
  const wasRun = !['created', 'running', 'paused', 'restarting'].includes(state);
  return {
    id: info.Id,
    name: info.Name.replace(/^\//, ''),
    role: (info.Config.Labels[label.role] ?? 'one-off') as Role,
    state,
    image: info.Image,
    labels: info.Config.Labels,
    exitCode: wasRun ? info.State.ExitCode : null,
    restartCount: info.RestartCount,
    health: (info.State.Health?.Status as ObservedContainer['health'] | undefined) ?? 'none',
    published: publishedPorts(info),
    createdAt: info.Created,
  };
}

/** What Docker chose while it runs; what was asked for (0 left out) while it does not. */
function publishedPorts(info: Docker.ContainerInspectInfo): Record<number, number> {
  const live = info.NetworkSettings?.Ports ?? {};
  const asked = (info.HostConfig.PortBindings ?? {}) as Record<string, { HostPort?: string }[] | null>;
  const published: Record<number, number> = {};
  for (const ports of [asked, live]) {
    for (const [key, bindings] of Object.entries(ports)) {
      const hostPort = Number(bindings?.[0]?.HostPort || 0);
      if (hostPort !== 0) published[Number.parseInt(key, 10)] = hostPort;
    }
  }
  return published;
}
