/**
 * A Postgres server for a few seconds: the image that the project's own server runs, in a container of its own. Not a
 * database beside the live one: its locks, its disk and its load would be the players', and the role may not be allowed
 * to make one. Promises that the container is gone afterwards, also after a failure and Ctrl-C; what a killed gameops
 * leaves is removed by whoever takes the project's lock next.
 */
import { randomBytes } from 'node:crypto';
import { realClock, until } from '../../clock.ts';
import { namesOf, port } from '../../contract.ts';
import type { Engine } from '../../engine/port.ts';
import { OpsError } from '../../errors.ts';
import { majorOf } from '../backup/pg-tools.ts';
import { type DatabaseEndpoint, withClient } from './connection.ts';

const mebibyte = 1024 ** 2;
export const throwAwayBytes = 384 * mebibyte;
const cluster = '/tmp/cluster';

/** Nothing here has to survive: nothing waits for the disk, and the log takes as little of it as it can. */
const options = [
  ...['fsync=off', 'full_page_writes=off', 'wal_level=minimal', 'max_wal_senders=0', 'max_wal_size=128MB'],
  'timezone=UTC',
];

export interface ThrowAway {
  project: string;
  /** On the engine already. */
  image: string;
  /** As the live one is called, for migrations that name it. */
  database: string;
  user: string;
  signal: AbortSignal;
}

/** Whoever calls holds the project's lock. @throws ACCESSORY_NOT_READY */
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
      ...{ project, name, role: 'one-off', image, network: { name: network } },
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

/** Majors write the same schema down in other words, and know other SQL. @throws CONFIG_INVALID */
export function refuseOtherMajor({ at, version }: LiveServer, throwAway: string): void {
  const major = majorOf(version);
  if (major === majorOf(throwAway)) return;
  throw new OpsError('CONFIG_INVALID', {
    message: `the server at ${at} is Postgres ${version}, the throw-away one of images.postgres is ${throwAway}: what is found on one does not hold for the other; nothing was changed`,
    next: [`set images.postgres to postgres:${major} in gameops.yaml`, 'gameops images prepare'],
    facts: { key: 'images.postgres', server: version, throwAway },
  });
}

/** By TCP: while it initialises, the image's temporary server listens on its socket alone. */
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
    message: `the throw-away Postgres did not start: ${log.at(-1) ?? `it is ${state ?? 'gone'}`}; nothing of the project was touched`,
    next: ['gameops doctor', 'check images.postgres in gameops.yaml'],
    facts: { container: name, log },
  });
}
