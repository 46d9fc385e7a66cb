/**
 * A Postgres server for a few seconds, with the image of the project's own server, in a container of its own. It is not a
 * database beside the live one, because players would feel its locks, disk and load, and the role may have no right to
 * make a database. Promises that the container is gone afterwards, also after a failure and Ctrl-C; a container that a
 * killed gameops leaves is removed by the next command that takes the project's lock.
 */
import { randomBytes } from 'node:crypto';
import { realClock, until } from '../../clock.ts';
import { namesOf, port } from '../../contract.ts';
import type { Engine } from '../../engine/port.ts';
import { OpsError } from '../../errors.ts';
import { megabyte } from '../../units.ts';
import { majorOf } from '../backup/pg-tools.ts';
import { type DatabaseEndpoint, withClient } from './connection.ts';

export const throwAwayBytes = 384 * megabyte;
const cluster = '/tmp/cluster';

/** Nothing here must survive, so nothing waits for the disk, and the log takes as little of it as possible. */
const options = [
  'fsync=off',
  'full_page_writes=off',
  'wal_level=minimal',
  'max_wal_senders=0',
  'max_wal_size=128MB',
  'timezone=UTC',
];

export interface ThrowAway {
  project: string;
  /** An image that is on the engine already. */
  image: string;
  /** The name of the live database, because migrations may name it. */
  database: string;
  user: string;
  signal: AbortSignal;
}

/** Callers hold the project's lock. @throws ACCESSORY_NOT_READY */
export async function withThrowAway<T>(
  engine: Engine,
  { project, image, database, user, signal }: ThrowAway,
  use: (endpoint: DatabaseEndpoint) => Promise<T>,
): Promise<T> {
  const name = `${namesOf(project).postgres}-throw-away`;
  const password = randomBytes(18).toString('base64url');
  const hadNetwork = (await engine.network(project)) !== null;
  const { name: network } = await engine.ensureNetwork(project);
  await engine.removeContainer(project, name);
  try {
    await engine.ensureContainer({
      project,
      name,
      role: 'one-off',
      image,
      network: { name: network },
      command: ['postgres', ...options.flatMap((option) => ['-c', option])],
      user: 'postgres',
      env: {
        POSTGRES_USER: user,
        POSTGRES_DB: database,
        POSTGRES_PASSWORD: password,
        POSTGRES_INITDB_ARGS: '--auth-host=scram-sha-256 --encoding=UTF8 --locale=C.UTF-8',
        PGDATA: cluster,
      },
      tmpfs: ['/run/postgresql'],
      publish: [{ address: '127.0.0.1', hostPort: 0, containerPort: port.postgres }],
      memoryBytes: throwAwayBytes,
      readOnlyRoot: false,
      restart: 'no',
    });
    const at = await engine.dial(project, name, port.postgres);
    const endpoint = { ...at, database, user, password, accessory: name };
    await untilAnswers(engine, endpoint, { project, name, signal });
    return await use(endpoint);
  } finally {
    await engine.removeContainer(project, name);
    if (!hadNetwork) await engine.removeNetwork(project);
  }
}

export interface LiveServer {
  /** "db.example.com:5432" */
  at: string;
  /** "16.4" */
  version: string;
}

/** Major versions print the same schema differently, and know different SQL. @throws CONFIG_INVALID */
export function refuseOtherMajor({ at, version }: LiveServer, throwAway: string): void {
  const major = majorOf(version);
  if (major === majorOf(throwAway)) return;
  throw new OpsError('CONFIG_INVALID', {
    message: `the server at ${at} is Postgres ${version}, and the throw-away server of images.postgres is ${throwAway}: results of one do not hold for the other. Nothing was changed.`,
    next: [`set images.postgres to postgres:${major} in gameops.yaml`, 'gameops images prepare'],
    facts: { key: 'images.postgres', server: version, throwAway },
  });
}

/** Asks by TCP: while the image initialises, its temporary server listens only on a Unix socket. */
async function untilAnswers(
  engine: Engine,
  endpoint: DatabaseEndpoint,
  { project, name, signal }: { project: string; name: string; signal: AbortSignal },
): Promise<void> {
  let state: string | undefined;
  const ended = await until(realClock, { deadlineMs: 60_000, everyMs: 150, signal }, async () => {
    if (await withClient(endpoint, async () => true, { connectMs: 2_000 }).catch(() => false)) return 'up';
    state = (await engine.observe(project)).find((one) => one.name === name)?.state;
    return state === 'running' ? null : 'stopped';
  });
  if (ended === 'up') return;
  const log = await engine.logTail(project, name, 6).catch(() => []);
  throw new OpsError('ACCESSORY_NOT_READY', {
    message: `the throw-away Postgres did not start: ${log.at(-1) ?? `its container is ${state ?? 'gone'}`}. Nothing of the project was touched.`,
    next: ['gameops doctor', 'check images.postgres in gameops.yaml'],
    facts: { container: name, log },
  });
}
