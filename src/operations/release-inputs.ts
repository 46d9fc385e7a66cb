/**
 * What a release is made of (image, gameops.yaml, .env, page), and what it is given beside its container: settings, page, a
 * token to probe with. Promises that two machines with the same input make the same release, that a deploy never takes what
 * `env check` calls an error, and that values of secrets leave here as keyed fingerprints only.
 */

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import type { Config } from '../config.ts';
import { gameUid, probePlayer, tokenKeyNames } from '../contract.ts';
import { factsOf } from '../env/file/facts.ts';
import { exampleOf } from '../env/read.ts';
import { checkEnv } from '../env/rules/check.ts';
import { type EnvFinding, shownKey } from '../env/rules/findings.ts';
import { companionsOf, isSecretKey } from '../env/settings.ts';
import { winnersBeside } from '../env/sources.ts';
import { OpsError } from '../errors.ts';
import { packageRoot } from '../package-root.ts';
import { changedKeys, fingerprintAll, fingerprintOf, fingerprintOfSetting } from '../record/fingerprints.ts';
import type { ProjectRecord } from '../record/record.ts';
import type { ImageNeeds, ProxyInputs, Release, Shape } from '../release/model.ts';
import { type Origin, originOfImage, originOfRelease } from '../release/origin.ts';
import type { ReleaseInputs } from '../runner/outside.ts';
import { mintToken } from '../tokens.ts';
import type { Context, EnvFile } from './context.ts';

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
  proxy: ProxyInputs;
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
    proxy: input.proxy,
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

/** An earlier release with its image and settings, and today's secrets. */
export function revivedCandidate(
  record: Keys,
  release: Release,
  values: Readonly<Record<string, string>>,
): Release {
  const fingerprints = fingerprintAll(record.fingerprintKey, settingsOf(release, values));
  const fingerprint = fingerprintOf([release.image, release.shape, release.page], fingerprints);
  return { ...release, fingerprints, fingerprint, verdict: 'candidate', reason: null };
}

/** The live release under another number and with today's secrets; nothing else changes. */
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
 * Every setting of a release as its container gets it: its own plain settings, today's secrets, and the settings that
 * belong to a secret, also where an older release has those among its plain ones.
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

/** Why there is something to deploy, in words. Never contains a value. */
export function causeOf(candidate: Release, live: Release | undefined, bringsMigrations = false): string {
  if (!live) return 'nothing is live';
  const causes: string[] = [];
  if (candidate.image !== live.image) causes.push('image changed');
  const keys = changedKeys(candidate, live);
  if (keys.length > 0) causes.push(`settings changed: ${keys.join(', ')}`);
  if (JSON.stringify(candidate.shape) !== JSON.stringify(live.shape)) causes.push('server section changed');
  if (candidate.page !== live.page) causes.push('page changed');
  if (candidate.replicas !== live.replicas) causes.push(`replicas ${live.replicas} → ${candidate.replicas}`);
  if (causes.length === 0)
    return bringsMigrations ? 'migrations pending' : 'nothing changed; asked with --again';
  return causes.join('; ');
}

/** Whether it differs from the live release in secrets only: it would come back with today's secrets, so as the live release. */
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

/** The number of a user can't be told from its name; with a number, the files of the release belong to that user. An image without a user runs as 0. */
const numericUser = (user: string) => (/^\d+(:\d+)?$/.test(user) ? user : user === '' ? '0' : null);

function shapeOf({ server }: Config, image: CandidateInput['image']): Shape {
  return {
    port: server.port,
    memoryBytes: server.memoryBytes,
    cpus: server.cpus,
    probe: server.probe,
    settingsAs: server.settingsAs,
    user:
      server.security.user ??
      (originOfRelease(image) === 'bundled' ? `${gameUid}:${gameUid}` : numericUser(image.user)),
    readOnlyRoot: server.security.readOnly,
    capabilities: server.security.capabilities,
  };
}

const probeTokenLifeMs = 60_000;

/** Folder of the static files; null when every path goes to the server. @throws CONFIG_INVALID */
export function findPage(context: Context, origin: Origin): string | null {
  const { dir } = context.config.web;
  if (dir === undefined) return origin === 'bundled' ? join(packageRoot(), 'dist', 'web') : null;
  const folder = resolve(context.cwd, dir);
  try {
    readdirSync(folder);
    return folder;
  } catch (cause) {
    throw new OpsError('CONFIG_INVALID', {
      message: `web.dir of gameops.yaml is ${dir}, but that folder can't be read. Nothing was changed.`,
      next: ['create the folder, or correct web.dir in gameops.yaml'],
      facts: { folder },
      cause,
    });
  }
}

/** The values that a release may get today. For a setting that belongs to a secret, gameops.yaml overrides .env, as in a new release. */
export function valuesFor({ config }: Context, env: EnvFile, release: Release): Record<string, string> {
  const goesWith = new Set(companionsOf(Object.keys(release.fingerprints)));
  const asked = Object.entries(config.server.env).filter(([key]) => goesWith.has(key));
  return { ...env.values, PORT: String(release.shape.port), ...Object.fromEntries(asked) };
}

export function releaseInputs(context: Context, env: EnvFile): ReleaseInputs {
  return {
    settings: (release) => settingsOf(release, valuesFor(context, env, release)),
    // Only our own protocol joins with a token; the settings of the bundled server always have the secret.
    probeToken: () =>
      mintToken(env.settings.jwtSecret ?? '', { id: probePlayer, name: 'gameops' }, probeTokenLifeMs),
    page(release) {
      const folder = findPage(context, originOfRelease(release));
      return folder === null ? null : filesIn(folder);
    },
  };
}

/** Hashes names and contents: a changed page is another release, because players see it like any other change. */
export function hashPage(folder: string | null): string | null {
  if (folder === null) return null;
  const hash = createHash('sha256');
  const files = filesIn(folder).sort((a, b) => (a.path < b.path ? -1 : 1));
  for (const { path, content } of files) hash.update(`${path}\0${content.length}\0`).update(content);
  return hash.digest('hex').slice(0, 32);
}

function filesIn(folder: string): { path: string; content: Uint8Array }[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .map((file) => ({ path: relative(folder, file), content: readFileSync(file) }));
}

// What is wrong with .env ------------------------------------------------------------------------------------------

const shown = 5;

/**
 * Refuses a password that some program reads only in part, a placeholder, a weak key. Never called for rollbacks and
 * rotations, because they are the ways to replace such a value.
 * @param image the image that the settings are for @throws ENV_INVALID
 */
export function refuseEnvErrors(context: Context, env: EnvFile, image: string): void {
  const { config, envPath, cwd } = context;
  const file = relative(cwd, envPath) || envPath;
  const { findings, errors } = checkEnv({
    file,
    text: env.text,
    hasFile: env.exists,
    values: winnersBeside(env.gathered, config.server.env),
    problems: env.gathered.problems,
    isBundled: originOfImage(image) === 'bundled',
    userKeys: config.env.keys,
    example: exampleOf(cwd, undefined, dirname(envPath)),
    facts: env.exists ? factsOf(envPath) : null,
    levels: config.env.rules,
  });
  if (errors === 0) return;
  const grave = findings.filter(({ severity }) => severity === 'error');
  const more = errors > shown ? ` and ${errors - shown} more` : '';
  throw new OpsError('ENV_INVALID', {
    message: `${file} has ${errors} error${errors === 1 ? '' : 's'}: ${grave.slice(0, shown).map(inWords).join(', ')}${more}. Nothing was changed; players are where they were.`,
    next: ['gameops env check', ...waysOut(grave)],
    facts: { file, rules: [...new Set(grave.map(({ rule }) => rule))], keys: keysOf(grave) },
  });
}

/** Warns about a .env of somebody else, or an older one. It is deployed all the same: the key may be meant to change at once. */
export function warnOfLostKey(
  { config, emit }: Context,
  { values }: EnvFile,
  { fingerprintKey }: ProjectRecord,
  live: Release | undefined,
): void {
  const print = live?.fingerprints.JWT_SECRET;
  if (live === undefined || print === undefined) return;
  const today: Readonly<Record<string, string>> = { ...values, ...config.server.env };
  const isHeld = tokenKeyNames.some(
    (name) => fingerprintOfSetting(fingerprintKey, 'JWT_SECRET', today[name] ?? '') === print,
  );
  if (isHeld) return;
  const message = `players will have to log in again: .env does not hold the key that release ${live.id} signs tokens with. Is it an older .env? gameops env rotate jwt changes a key without a player noticing`;
  emit({ type: 'note', level: 'warning', message });
}

function inWords({ rule, key, line }: EnvFinding): string {
  const where = line === null ? '' : ` on line ${line}`;
  return `${rule}${where}${key === null ? '' : ` (${shownKey(key)})`}`;
}

function waysOut(grave: readonly EnvFinding[]): string[] {
  const is = (name: string) => grave.some(({ key }) => key === name);
  return [
    ...(is('JWT_SECRET') ? ['gameops env rotate jwt, if a release with players is live'] : []),
    ...(is('DB_PASSWORD') ? ['gameops env rotate db, if the database already has that password'] : []),
  ];
}

const keysOf = (grave: readonly EnvFinding[]): string[] => [
  ...new Set(grave.flatMap(({ key }) => (key === null ? [] : [shownKey(key)]))),
];
