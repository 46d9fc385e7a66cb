/** Postgres as an accessory: a row of the table. PURE. Promises that its password is in no specification. */
import { accessoryHost, namesOf, otherLogin, path, port } from '../contract.ts';
import type { ContainerSpec, FileEntry } from '../engine/port.ts';
import { megabyte } from '../units.ts';
import type { Accessory, AccessoryInput, AccessorySettings, MadeAccessory } from './model.ts';
import { mustUsePort } from './which.ts';

export const postgres: Accessory = {
  name: 'postgres',
  title: 'Postgres',
  pointer: { key: 'DB_HOST', host: ({ DB_HOST }) => DB_HOST ?? null },
  passwordKey: 'DB_PASSWORD',
  takesAnyPassword: false,
  mustFit({ DB_PORT }) {
    if (DB_PORT !== undefined) mustUsePort('DB_PORT', DB_PORT, port.postgres);
  },
  make: makePostgres,
};

function makePostgres({ settings, ...input }: AccessoryInput): MadeAccessory | null {
  const { DB_NAME, DB_USER, DB_PASSWORD } = settings;
  if (!DB_NAME || !DB_USER || !DB_PASSWORD) return null;
  const specFor = (login: string) => postgresSpec({ ...input, settings: { DB_NAME, DB_USER: login } });
  return {
    spec: specFor(DB_USER),
    formerSpec: specFor(otherLogin(DB_USER)),
    secretVolume: namesOf(input.project).volume.postgresSecret,
    secrets: postgresSecrets({ DB_PASSWORD }),
    password: DB_PASSWORD,
  };
}

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
    memoryBytes: (320 + connections * 2) * megabyte,
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
