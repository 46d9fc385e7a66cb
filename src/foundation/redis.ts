/** Redis as an accessory: a row of the table. PURE. Promises that its password is in no specification. */
import { accessoryHost, namesOf, path, port } from '../contract.ts';
import type { ContainerSpec, FileEntry } from '../engine/port.ts';
import { OpsError } from '../errors.ts';
import { megabyte } from '../units.ts';
import type { Accessory, AccessoryInput, AccessorySettings, MadeAccessory } from './model.ts';
import { mustUsePort } from './which.ts';

export const redis: Accessory = {
  name: 'redis',
  title: 'Redis',
  pointer: {
    key: 'REDIS_URL',
    host: ({ REDIS_URL }) => (REDIS_URL === undefined ? null : new URL(REDIS_URL).hostname),
  },
  passwordKey: 'REDIS_URL',
  takesAnyPassword: true,
  mustFit({ REDIS_URL }) {
    if (REDIS_URL === undefined) return;
    const url = new URL(REDIS_URL);
    mustUsePort('the port in REDIS_URL', Number(url.port || port.redis), port.redis);
    mustBePlainRedis(url);
  },
  make: makeRedis,
};

function makeRedis({ project, image, settings: { REDIS_URL } }: AccessoryInput): MadeAccessory | null {
  if (!REDIS_URL) return null;
  return {
    spec: redisSpec({ project, image }),
    secretVolume: namesOf(project).volume.redisSecret,
    secrets: redisSecrets({ REDIS_URL }),
    password: redisPassword({ REDIS_URL }),
  };
}

function mustBePlainRedis(url: URL): void {
  if (url.protocol === 'rediss:') {
    throw new OpsError('CONFIG_INVALID', {
      message:
        'REDIS_URL asks for TLS (rediss:). The Redis that gameops runs does not speak TLS, because it is on the private network.',
      next: ['begin REDIS_URL with redis://'],
    });
  }
  if (url.username !== '' && url.username !== 'default') {
    throw new OpsError('CONFIG_INVALID', {
      message: 'REDIS_URL names a user, but the Redis that gameops runs knows only the default one.',
      next: ['leave the user out: redis://:<password>@redis:6379'],
    });
  }
}

const redisMemory = { limitBytes: 384 * megabyte, dataBytes: 192 * megabyte };
const redisHome = '/data';

// The password reaches redis-cli by its environment: neither `docker inspect` nor the process list shows it.
// An answer without it (NOAUTH) would also come from a server that is still loading its data.
const redisHealth = `REDISCLI_AUTH="$(cat ${path.accessorySecrets}/password)" redis-cli -h 127.0.0.1 ping | grep -q PONG`;

export function redisSpec(input: Pick<AccessoryInput, 'project' | 'image'>): ContainerSpec {
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
