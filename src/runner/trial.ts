/**
 * A release that is tried without serving anybody: one container of its image and shape, with its settings, on a database
 * and a Redis that are thrown away. Promises that the live ones are not named in any setting that gameops knows as such,
 * and that all of it is gone afterwards; what a killed gameops leaves is removed by whoever takes the project's lock next.
 */

import { randomBytes } from 'node:crypto';
import { realClock, until } from '../clock.ts';
import { namesOf, path, port } from '../contract.ts';
import type { ContainerSpec, Engine } from '../engine/port.ts';
import type { Door } from '../proxy/door.ts';
import type { Release } from '../release/model.ts';
import { originOfRelease } from '../release/origin.ts';
import { megabyte } from '../units.ts';
import { fleetSpec, settingsFile } from './fleet.ts';

export const trialRedisBytes = 128 * megabyte;
const probeTimeoutMs = 2_000;

export interface Trial {
  project: string;
  release: Release;
  /** As its replicas have them. */
  settings: Readonly<Record<string, string>>;
  /** Reached by that name on the project's network. */
  database: { host: string; name: string; user: string; password: string };
  /** For a throw-away Redis. */
  redisImage: string;
  readyMs: number;
  signal: AbortSignal;
  openDoor(url: string): Pick<Door, 'askPublic' | 'joinPublic'>;
  token(): string;
}

export type TrialResult =
  /** joined: null for an image that speaks another protocol. */
  { isReady: true; joined: true | null } | { isReady: false; reason: string; log: string[] };

/** Whoever calls holds the project's lock. */
export async function tryRelease(engine: Engine, trial: Trial): Promise<TrialResult> {
  const { project, release } = trial;
  const names = namesOf(project);
  const throwAway = {
    game: `${project}-game-throw-away`,
    redis: `${names.redis}-throw-away`,
    settings: `${project}-settings-throw-away`,
  };
  const remove = async () => {
    await Promise.all([
      engine.removeContainer(project, throwAway.game),
      engine.removeContainer(project, throwAway.redis),
    ]);
    await engine.removeVolume(project, throwAway.settings);
  };
  const password = randomBytes(18).toString('hex');
  const redisUrl = `redis://:${password}@${throwAway.redis}:${port.redis}`;
  const settings = elsewhere(trial, redisUrl);
  await remove();
  try {
    await engine.ensureVolume(project, throwAway.settings, 'one-off');
    await engine.putFiles(project, throwAway.settings, [settingsFile(release, settings)]);
    await engine.ensureContainer(redisSpec(trial, throwAway.redis, password));
    await engine.ensureContainer(gameSpec(trial, throwAway, settings));
    return await untilReady(engine, trial, throwAway.game);
  } finally {
    await remove();
  }
}

function redisSpec({ project, redisImage }: Trial, name: string, password: string): ContainerSpec {
  return {
    project,
    name,
    role: 'one-off',
    image: redisImage,
    network: { name: namesOf(project).network },
    entrypoint: ['redis-server'],
    command: ['--requirepass', password, '--save', '', '--dir', '/tmp'],
    user: 'redis',
    tmpfs: ['/tmp'],
    memoryBytes: trialRedisBytes,
    readOnlyRoot: true,
    restart: 'no',
  };
}

function gameSpec(
  { project, release }: Trial,
  { game, settings: volume }: { game: string; settings: string },
  settings: Record<string, string>,
): ContainerSpec {
  const { container, image, network } = fleetSpec(project, release, [1], settings);
  const env = Object.entries(container.env ?? {}).map(([key, value]) => [
    key,
    value.replace('{replica}', '1'),
  ]);
  const { labels: _, ...rest } = container;
  return {
    ...rest,
    project,
    name: game,
    role: 'one-off',
    image: image.id,
    network: { name: network },
    env: Object.fromEntries(env),
    mounts: [{ volume, path: path.settings, readOnly: true }],
    publish: [{ address: '127.0.0.1', hostPort: 0, containerPort: release.shape.port }],
    restart: 'no',
  };
}

/** Every way to the live database or Redis that a setting holds: the known keys, and any URL of the kind. */
export function elsewhere(
  { settings, database }: Pick<Trial, 'settings' | 'database'>,
  redisUrl: string,
): Record<string, string> {
  const known: Record<string, string> = {
    DB_HOST: database.host,
    DB_PORT: String(port.postgres),
    DB_NAME: database.name,
    DB_USER: database.user,
    DB_PASSWORD: database.password,
    REDIS_URL: redisUrl,
  };
  const { user, password, host, name } = database;
  const databaseUrl = `postgres://${encodeURIComponent(user)}:${encodeURIComponent(password)}@${host}:${port.postgres}/${encodeURIComponent(name)}`;
  const moved = ([key, value]: [string, string]): [string, string] => {
    if (/^postgres(ql)?:\/\//i.test(value)) return [key, databaseUrl];
    if (/^rediss?:\/\//i.test(value)) return [key, redisUrl];
    return [key, known[key] ?? value];
  };
  return Object.fromEntries(Object.entries(settings).map(moved));
}

async function untilReady(engine: Engine, trial: Trial, name: string): Promise<TrialResult> {
  const { project, release, signal, readyMs } = trial;
  const { host, port: published } = await engine.dial(project, name, release.shape.port);
  const door = trial.openDoor(`http://${host}:${published}`);
  let reason = 'it did not start';
  const failed = async (): Promise<TrialResult> => {
    const log = await engine.logTail(project, name, 12).catch(() => []);
    return { isReady: false, reason, log };
  };
  const pace = { deadlineMs: readyMs, everyMs: 200, signal };
  const end = await until(realClock, pace, async () => {
    const answer = await door.askPublic(release.shape.probe, probeTimeoutMs);
    if (answer.ok && answer.answer.status === 200) return 'ready';
    const seen = (await engine.observe(project)).find((one) => one.name === name);
    const isGone = seen?.state !== 'running';
    if (isGone) reason = `it exited${seen?.exitCode == null ? '' : ` with ${seen.exitCode}`}`;
    else if (!answer.ok) reason = `${release.shape.probe}: ${answer.reason}`;
    else
      reason =
        `${release.shape.probe} answered ${answer.answer.status} ${answer.answer.body.split('\n')[0]?.slice(0, 120) ?? ''}`.trim();
    return isGone ? 'gone' : null;
  });
  if (end !== 'ready') return failed();
  if (originOfRelease(release) === 'own') return { isReady: true, joined: null };
  const join = await door.joinPublic(trial.token(), probeTimeoutMs);
  if (join.ok) return { isReady: true, joined: true };
  reason = `a WebSocket player could not join: ${join.reason}`;
  return failed();
}
