/**
 * What every body of the port makes of a specification: labels, the hash that tells drift, a replica's container. PURE.
 * Knows nothing of Docker.
 */
import { createHash } from 'node:crypto';
import { formatVersion, label, namesOf, type Role } from '../contract.ts';
import type { ContainerSpec, FleetSpec, VolumeMount } from './port.ts';

/** What a game server takes for "let your players go, then end", whoever sends it. */
export const drainSignal = 'SIGTERM';

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

/** Every label a container of this specification carries. */
export function identityLabels(spec: ContainerSpec, specHash = specLabel(spec)): Record<string, string> {
  const address = spec.network === 'none' ? undefined : spec.network.address;
  return {
    ...labelsOf(spec.project, spec.role, spec.labels),
    [label.spec]: specHash,
    ...(address ? { [label.address]: address } : {}),
  };
}

/** Beyond its drain's deadline: a server that ends itself at the deadline should not be killed in that moment. */
const stopMarginMs = 5_000;

/** The container of one replica, out of the fleet's template. @param mounts beside the template's own, before them */
export function replicaSpec(
  fleet: FleetSpec,
  replica: number,
  address: string,
  mounts: readonly VolumeMount[] = [],
): ContainerSpec {
  const env = Object.entries(fleet.container.env ?? {});
  return {
    ...fleet.container,
    project: fleet.project,
    role: 'game',
    image: fleet.image.id,
    mounts: [...mounts, ...(fleet.container.mounts ?? [])],
    stopSignal: drainSignal,
    stopGraceMs: fleet.drainMs + stopMarginMs,
    name: namesOf(fleet.project).game(fleet.release, replica),
    network: { name: fleet.network, address },
    env: Object.fromEntries(env.map(([key, value]) => [key, value.replaceAll('{replica}', String(replica))])),
    labels: {
      ...fleet.container.labels,
      [label.release]: String(fleet.release),
      [label.replica]: String(replica),
    },
  };
}

/**
 * Hash label of all replicas of a fleet: address and replica number apart, they are one template. The grace is left out:
 * it follows from the drain's deadline, which servers have in their environment.
 */
export function fleetLabel(fleet: FleetSpec, mounts: readonly VolumeMount[] = []): string {
  const { container, image, network } = fleet;
  const all = [...mounts, ...(container.mounts ?? [])];
  return specLabel({ ...container, image: image.id, mounts: all, stopSignal: drainSignal, network });
}

/** Whether a replica of the one label may be started as one of the other. An older gameops hashed the grace, too. */
export function isSameFleet(made: string, wanted: string): boolean {
  return driftBetween(made, wanted).every((field) => field === 'stopGraceMs');
}

/** For bodies that bring a fleet's files in by a volume, one for each release. */
export function fileMounts({ project, release, files }: FleetSpec): VolumeMount[] {
  if (!files) return [];
  return [{ volume: namesOf(project).volume.settings(release), path: files.folder, readOnly: true }];
}

/** Whether a container, volume or network of that name would be taken for one of the project's. */
export function isNameOf(project: string, name: string): boolean {
  const { volume, ...others } = namesOf(project);
  const fixed = [...Object.values(others), ...Object.values(volume)];
  if (fixed.some((one) => one === name)) return true;
  const [release = 0, replica = 0] = (/-(?:game|settings)-(\d+)(?:-(\d+))?$/.exec(name) ?? [])
    .slice(1)
    .map(Number);
  return name === others.game(release, replica) || name === volume.settings(release);
}
