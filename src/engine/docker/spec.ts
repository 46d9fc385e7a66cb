/**
 * ContainerSpec → the body Docker wants, and Docker's answer → ObservedContainer. PURE.
 * Promises the hardening of port.ts on every container; never puts anything of the operator's machine into one.
 */
import type Docker from 'dockerode';
import { label, namesOf, type Role } from '../../contract.ts';
import type { ContainerSpec, ContainerState, ObservedContainer } from '../port.ts';

/** Enough for a hundred database connections, too few for a fork bomb to hurt the host. */
const pidsMax = 2048;
const tmpfsOptions = 'rw,noexec,nosuid,nodev,size=64m,mode=1777';

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
    address: addressOf(info),
    labels: info.Config.Labels,
    exitCode: wasRun ? info.State.ExitCode : null,
    isOutOfMemory: info.State.OOMKilled,
    restartCount: info.RestartCount,
    health: (info.State.Health?.Status as ObservedContainer['health'] | undefined) ?? 'none',
    published: publishedPorts(info),
    createdAt: info.Created,
  };
}

/** The present one while it runs, and the requested one while it does not. */
function addressOf(info: Docker.ContainerInspectInfo): string | null {
  const network = namesOf(info.Config.Labels[label.project] ?? '').network;
  const endpoint = info.NetworkSettings?.Networks?.[network];
  // A replica that somebody took off the network keeps its lease, and Nginx passes it over.
  const leased = info.Config.Labels[label.address];
  return endpoint?.IPAddress || endpoint?.IPAMConfig?.IPv4Address || leased || null;
}

/** The ports that Docker chose while it runs, and the requested ones (without 0) while it does not. */
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
