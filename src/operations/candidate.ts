/**
 * What a request makes of image, gameops.yaml and .env: a release. Pure but for hashing; two machines with the same
 * input make the same one, and values of secrets leave here as keyed fingerprints only.
 */
import type { Config } from '../config.ts';
import { gameUid } from '../contract.ts';
import { companionsOf, isSecretKey } from '../env/settings.ts';
import { changedKeys, fingerprintAll, fingerprintOf } from '../record/fingerprints.ts';
import type { ProjectRecord } from '../record/record.ts';
import type { ImageNeeds, Release, Shape } from '../release/model.ts';

export interface CandidateInput {
  config: Config;
  /** Parsed .env joined with the process environment. */
  values: Readonly<Record<string, string>>;
  image: {
    id: string;
    ref: string;
    protocol: string | null;
    unixSocket: boolean;
    migrations: ImageNeeds | null;
    digestRef: string | null;
    user: string;
  };
  /** Hash of its static files; null for none. */
  page: string | null;
  replicas: number;
  by: string;
  at: string;
}

type Keys = Pick<ProjectRecord, 'fingerprintKey' | 'releases'>;

export function newCandidate(record: Keys, input: CandidateInput): Release {
  const { config, image } = input;
  // The port is the container's business: gameops.yaml says it, whatever .env says for a server run by hand.
  const settings: Record<string, string> = {
    ...input.values,
    PORT: String(config.server.port),
    ...config.server.env,
  };
  const companions = new Set(companionsOf(Object.keys(settings)));
  const isPlain = (key: string) => key in config.server.env || !(isSecretKey(key) || companions.has(key));
  const plainKeys = Object.keys(settings).filter(isPlain);
  const shape = shapeOf(config, image);
  const fingerprints = fingerprintAll(record.fingerprintKey, settings);
  return {
    id: Math.max(0, ...record.releases.map((release) => release.id)) + 1,
    image: image.id,
    imageRef: image.ref,
    digestRef: image.digestRef,
    protocol: image.protocol,
    unixSocket: image.unixSocket,
    page: input.page,
    replicas: input.replicas,
    shape,
    plain: Object.fromEntries(plainKeys.map((key) => [key, settings[key] ?? ''])),
    fingerprints,
    fingerprint: fingerprintOf([image.id, shape, input.page], fingerprints),
    migrations: image.migrations,
    backup: null,
    drainMs: config.deploy.drainMs,
    createdAt: input.at,
    createdBy: input.by,
    verdict: 'candidate',
    reason: null,
  };
}

/** The old image and settings, with today's secrets. */
export function revivedCandidate(
  record: Keys,
  release: Release,
  values: Readonly<Record<string, string>>,
): Release {
  const fingerprints = fingerprintAll(record.fingerprintKey, settingsOf(release, values));
  const fingerprint = fingerprintOf([release.image, release.shape, release.page], fingerprints);
  return { ...release, fingerprints, fingerprint, verdict: 'candidate', reason: null };
}

/** A release that runs, under another number and with today's secrets: nothing else of it changes. */
export function rekeyedCandidate(
  record: Keys,
  live: Release,
  values: Readonly<Record<string, string>>,
  { by, at }: Pick<CandidateInput, 'by' | 'at'>,
): Release {
  const id = Math.max(0, ...record.releases.map((release) => release.id)) + 1;
  return { ...revivedCandidate(record, live, values), id, backup: null, createdAt: at, createdBy: by };
}

/**
 * Every setting of a release as its container gets it: its own plain ones, today's secrets and what goes with them, also
 * where a release of before has that among its plain ones.
 */
export function settingsOf(
  release: Release,
  values: Readonly<Record<string, string>>,
): Record<string, string> {
  const own = Object.keys(release.fingerprints);
  const goesWith = new Set(companionsOf(own));
  const valueNow = (key: string) =>
    goesWith.has(key) ? (values[key] ?? release.plain[key]) : (release.plain[key] ?? values[key]);
  const known = [...new Set([...own, ...goesWith])].map((key) => [key, valueNow(key)] as const);
  return Object.fromEntries(known.filter((entry): entry is [string, string] => entry[1] !== undefined));
}

/** Why there is something to deploy, in words: never a value. */
export function causeOf(candidate: Release, live: Release | undefined, bringsMigrations = false): string {
  if (!live) return 'nothing is live';
  const causes: string[] = [];
  if (candidate.image !== live.image) causes.push('image changed');
  const keys = changedKeys(candidate, live);
  if (keys.length > 0) causes.push(`settings changed: ${keys.join(', ')}`);
  if (JSON.stringify(candidate.shape) !== JSON.stringify(live.shape)) causes.push('server section changed');
  if (candidate.page !== live.page) causes.push('page changed');
  if (candidate.replicas !== live.replicas) causes.push(`replicas ${live.replicas} → ${candidate.replicas}`);
  if (causes.length === 0) return bringsMigrations ? 'migrations pending' : 'asked again';
  return causes.join('; ');
}

/** Whether it differs from what is live in secrets only, which a release that comes back gets from today: all the same then. */
export function isRekeyed(release: Release, live: Release): boolean {
  const keys = (one: Release) => Object.keys(one.fingerprints).sort();
  const goesWith = new Set(companionsOf([...keys(release), ...keys(live)]));
  const apartFromSecrets = (one: Release) => {
    const own = keys(one).filter((key) => !goesWith.has(key));
    const settings = own.map((key) => [key, one.plain[key] ?? null]);
    return JSON.stringify([one.image, one.page, one.shape, one.replicas, settings]);
  };
  return apartFromSecrets(release) === apartFromSecrets(live) && changedKeys(release, live).length > 0;
}

/** A user known by name has no number here; who has one (an image without any runs as 0) gets files of its own. */
const numericUser = (user: string) => (/^\d+(:\d+)?$/.test(user) ? user : user === '' ? '0' : null);

function shapeOf({ server }: Config, image: CandidateInput['image']): Shape {
  return {
    port: server.port,
    memoryBytes: server.memoryBytes,
    cpus: server.cpus,
    probe: server.probe,
    settingsAs: server.settingsAs,
    user: server.security.user ?? (image.protocol ? `${gameUid}:${gameUid}` : numericUser(image.user)),
    readOnlyRoot: server.security.readOnly,
    capabilities: server.security.capabilities,
  };
}
