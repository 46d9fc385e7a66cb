/**
 * The accessories, Postgres and Redis, as plain specifications: which of them gameops runs, and of what they are made.
 * PURE: no engine, no clock. Promises that no password is in a specification, so none is in `docker inspect`.
 */
import type { Config } from '../config.ts';
import { accessoryHost, namesOf, path, port } from '../contract.ts';
import type { ContainerSpec, FileEntry } from '../engine/port.ts';
import type { ServerSettings } from '../env/settings.ts';
import { OpsError } from '../errors.ts';
import { isLoopback } from '../hosts.ts';

export type AccessoryName = 'postgres' | 'redis';
export type AccessorySettings = Pick<
  ServerSettings,
  'DB_HOST' | 'DB_PORT' | 'DB_NAME' | 'DB_USER' | 'DB_PASSWORD' | 'REDIS_URL'
>;
export type Ownership = 'managed' | 'external';

const mebibyte = 1024 ** 2;

// Which of them are ours ------------------------------------------------------------------------------------------

/** @throws DB_HOST_LOOPBACK, CONFIG_INVALID when gameops.yaml and .env contradict each other */
export function whichAccessories(
  config: Pick<Config, 'accessories'>,
  settings: Partial<AccessorySettings>,
): Record<AccessoryName, Ownership> {
  const redis = settings.REDIS_URL === undefined ? null : new URL(settings.REDIS_URL);
  const owned = {
    postgres: ownership('postgres', config.accessories.postgres, 'DB_HOST', settings.DB_HOST ?? null),
    redis: ownership('redis', config.accessories.redis, 'REDIS_URL', redis?.hostname ?? null),
  };
  if (owned.postgres === 'managed' && settings.DB_PORT !== undefined) {
    mustUsePort('DB_PORT', settings.DB_PORT, port.postgres);
  }
  if (owned.redis === 'managed' && redis !== null) {
    mustUsePort('the port in REDIS_URL', Number(redis.port || port.redis), port.redis);
    mustBePlainRedis(redis);
  }
  return owned;
}

function ownership(
  name: AccessoryName,
  wish: Ownership | 'auto',
  key: string,
  host: string | null,
): Ownership {
  const ours = accessoryHost[name];
  if (host !== null && isLoopback(host)) {
    throw new OpsError('DB_HOST_LOOPBACK', {
      message: `${key} names ${host}, which inside a container is that container: the game server would find nothing there`,
      next: [
        `write ${ours} as the host in ${key} to use the one gameops runs`,
        'or name a host that containers can reach',
      ],
      facts: { key, host },
    });
  }
  const implied: Ownership = host === ours ? 'managed' : 'external';
  if (wish === 'auto' || wish === implied) return implied;
  const message =
    wish === 'managed'
      ? `accessories.${name} is "managed", but ${key} names ${host ?? 'nothing'}, not ${ours}: players' data would go elsewhere`
      : `accessories.${name} is "external", but ${key} names ${ours}, the host name of the one gameops runs`;
  const next = wish === 'managed' ? `write ${ours} as the host in ${key}` : `name your own server in ${key}`;
  throw new OpsError('CONFIG_INVALID', {
    message,
    next: [next, `or set accessories.${name}: auto in gameops.yaml`],
    facts: { key, host },
  });
}

function mustUsePort(what: string, given: number, wanted: number): void {
  if (given === wanted) return;
  throw new OpsError('CONFIG_INVALID', {
    message: `${what} is ${given}, but the accessory listens on ${wanted}`,
    next: [`set ${what} to ${wanted}`],
    facts: { given, wanted },
  });
}

function mustBePlainRedis(url: URL): void {
  if (url.protocol === 'rediss:') {
    throw new OpsError('CONFIG_INVALID', {
      message:
        'REDIS_URL asks for TLS (rediss:), which the Redis that gameops runs does not speak: it is on the private network',
      next: [`begin REDIS_URL with redis://`],
    });
  }
  if (url.username !== '' && url.username !== 'default') {
    throw new OpsError('CONFIG_INVALID', {
      message: 'REDIS_URL names a user, but the Redis that gameops runs knows only the default one',
      next: ['leave the user out: redis://:<password>@redis:6379'],
    });
  }
}

// Postgres --------------------------------------------------------------------------------------------------------

export interface PostgresInput {
  project: string;
  image: string;
  settings: Pick<AccessorySettings, 'DB_NAME' | 'DB_USER'>;
  replicas: number;
  connectionsPerReplica: number;
}

const postgresHome = '/var/lib/postgresql';

export function postgresSpec(input: PostgresInput): ContainerSpec {
  const names = namesOf(input.project);
  const { DB_NAME: database, DB_USER: user } = input.settings;
  const connections = connectionsMax(input.replicas, input.connectionsPerReplica);
  return {
    project: input.project,
    name: names.postgres,
    role: 'postgres',
    image: input.image,
    command: ['postgres', ...postgresOptions(connections).flatMap((option) => ['-c', option])],
    user: 'postgres',
    env: {
      POSTGRES_USER: user,
      POSTGRES_DB: database,
      POSTGRES_PASSWORD_FILE: `${path.accessorySecrets}/password`,
      POSTGRES_INITDB_ARGS: '--auth-host=scram-sha-256 --data-checksums --encoding=UTF8 --locale=C.UTF-8',
      // Neither the old image's volume (…/data) nor the new one's versioned folder: the same place in every image.
      PGDATA: `${postgresHome}/cluster`,
    },
    network: { name: names.network, aliases: [accessoryHost.postgres] },
    mounts: [
      { volume: names.volume.postgres, path: postgresHome, readOnly: false },
      { volume: names.volume.postgresSecret, path: path.accessorySecrets, readOnly: true },
    ],
    tmpfs: ['/run/postgresql', '/tmp'],
    publish: [{ address: '127.0.0.1', hostPort: 0, containerPort: port.postgres }],
    health: {
      // By TCP: while it initialises, the image's temporary server listens on its socket alone.
      command: ['pg_isready', '-q', '-h', '127.0.0.1', '-U', user, '-d', database],
      intervalMs: 10_000,
      timeoutMs: 5_000,
      retries: 3,
      startMs: 60_000,
    },
    memoryBytes: (320 + connections * 2) * mebibyte,
    readOnlyRoot: true,
    restart: 'always',
    // Fast shutdown; SIGTERM would wait for every client to leave.
    stopSignal: 'SIGINT',
    stopGraceMs: 60_000,
  };
}

/** Two fleets and room for people, in steps of 100: a few replicas more must not read as drift. */
function connectionsMax(replicas: number, perReplica: number): number {
  return Math.ceil((replicas * perReplica * 2 + 20) / 100) * 100;
}

function postgresOptions(connections: number): string[] {
  return [
    `max_connections=${connections}`,
    'shared_buffers=128MB',
    'effective_cache_size=256MB',
    'work_mem=4MB',
    'maintenance_work_mem=64MB',
    // A parallel hash join outgrows the 64 MB of /dev/shm that Docker gives.
    'max_parallel_workers_per_gather=0',
    'max_wal_size=1GB',
    'idle_in_transaction_session_timeout=60s',
    'client_connection_check_interval=1s',
    'tcp_keepalives_idle=60',
    'log_min_duration_statement=1s',
    'log_lock_waits=on',
    'timezone=UTC',
  ];
}

export function postgresSecrets(settings: Pick<AccessorySettings, 'DB_PASSWORD'>): FileEntry[] {
  return [{ path: 'password', content: settings.DB_PASSWORD }];
}

// Redis -----------------------------------------------------------------------------------------------------------

export interface RedisInput {
  project: string;
  image: string;
}

const redisMemory = { limitBytes: 384 * mebibyte, dataBytes: 192 * mebibyte };
const redisHome = '/data';

// The password reaches redis-cli by its environment: neither `docker inspect` nor the process list shows it.
// An answer without it (NOAUTH) would also come from a server that is still loading its data.
const redisHealth = `REDISCLI_AUTH="$(cat ${path.accessorySecrets}/password)" redis-cli -h 127.0.0.1 ping | grep -q PONG`;

export function redisSpec(input: RedisInput): ContainerSpec {
  const names = namesOf(input.project);
  return {
    project: input.project,
    name: names.redis,
    role: 'redis',
    image: input.image,
    // Past the image's own entrypoint: it would add modules, and differs from image to image.
    entrypoint: ['redis-server'],
    command: [`${path.accessorySecrets}/redis.conf`],
    user: 'redis',
    network: { name: names.network, aliases: [accessoryHost.redis] },
    mounts: [
      { volume: names.volume.redis, path: redisHome, readOnly: false },
      { volume: names.volume.redisSecret, path: path.accessorySecrets, readOnly: true },
    ],
    tmpfs: ['/tmp'],
    publish: [{ address: '127.0.0.1', hostPort: 0, containerPort: port.redis }],
    health: {
      command: ['sh', '-c', redisHealth],
      intervalMs: 10_000,
      timeoutMs: 5_000,
      retries: 3,
      startMs: 60_000,
    },
    memoryBytes: redisMemory.limitBytes,
    readOnlyRoot: true,
    restart: 'always',
    stopSignal: 'SIGTERM',
    stopGraceMs: 30_000,
  };
}

export function redisPassword(settings: Pick<AccessorySettings, 'REDIS_URL'>): string {
  return decodeURIComponent(new URL(settings.REDIS_URL).password);
}

export function redisSecrets(settings: Pick<AccessorySettings, 'REDIS_URL'>): FileEntry[] {
  const password = redisPassword(settings);
  return [
    { path: 'password', content: password },
    { path: 'redis.conf', content: redisConfiguration(password) },
  ];
}

function redisConfiguration(password: string): string {
  const lines = [
    `port ${port.redis}`,
    'bind * -::*',
    // Without a password Redis would refuse every address but loopback, so the game servers too.
    password === '' ? 'protected-mode no' : `requirepass ${quoted(password)}`,
    `dir ${redisHome}`,
    'appendonly yes',
    'appendfsync everysec',
    'save 3600 1 300 100 60 10000',
    // Below the container's limit: a full Redis answers with an error, a killed one with silence. The rest is for
    // the copies of pages made while it rewrites its log.
    `maxmemory ${redisMemory.dataBytes}`,
    'maxmemory-policy noeviction',
    'tcp-keepalive 60',
    'timeout 0',
  ];
  return `${lines.join('\n')}\n`;
}

/** Redis's own quoting, every byte that is not plain as \xHH: no password can end its line or add another. */
function quoted(text: string): string {
  const bytes = [...Buffer.from(text, 'utf8')].map((byte) =>
    /[A-Za-z0-9]/.test(String.fromCharCode(byte))
      ? String.fromCharCode(byte)
      : `\\x${byte.toString(16).padStart(2, '0')}`,
  );
  return `"${bytes.join('')}"`;
}
