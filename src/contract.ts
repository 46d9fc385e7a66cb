/**
 * What the CLI and the game server agree on: labels, names, paths, ports, Redis keys, admin endpoints.
 * Names are derived from the project and the release, so no step waits for an id that another step made.
 */

/** Format of the labels and of the record. A newer one is refused with "upgrade gameops". */
export const formatVersion = 1;

/** Settings that hold keys of players' tokens. The first one signs; all of them verify. */
export const tokenKeyNames = ['JWT_SECRET', 'JWT_SECRET_NEXT', 'JWT_SECRET_PREVIOUS'] as const;

/** Labels on every container, volume, network and image that gameops makes. Immutable, so identity only. */
export const label = {
  project: 'gameops.project',
  role: 'gameops.role',
  format: 'gameops.format',
  /** Release number, on game containers and their settings volume. */
  release: 'gameops.release',
  /** Replica number, from 1. */
  replica: 'gameops.replica',
  /** The fixed address leased to this container for its life. */
  address: 'gameops.address',
  /** Fingerprint of the release a game container was made from: image, shape and settings. */
  fingerprint: 'gameops.fingerprint',
  /** Hash of the specification a container was made from, to report drift. */
  spec: 'gameops.spec',
  holder: 'gameops.holder',
  /** Host name of the lock's holder. */
  host: 'gameops.host',
  since: 'gameops.since',
  verb: 'gameops.verb',
  /** On images: the wire protocol that the server inside speaks. Absent on images that are not ours. */
  protocol: 'gameops.protocol',
  /** On images: the newest expand migration that the server inside needs, and the newest migration that it knows. */
  needs: 'gameops.needs',
  knows: 'gameops.knows',
  /** On images: the server inside also accepts tokens of JWT_SECRET_NEXT and JWT_SECRET_PREVIOUS. */
  keyRing: 'gameops.key-ring',
  /** On images: the server inside also listens on the Unix socket that GAMEOPS_UNIX_SOCKET names. */
  unixSocket: 'gameops.unix-socket',
  /**
   * On containers of Nginx and of servers: made with the volume of Unix sockets. Not the image's label, which they
   * inherit.
   */
  onUnixSocket: 'gameops.on-unix-socket',
  /** On images: content hash, so that nothing is rebuilt when nothing changed. */
  content: 'gameops.content',
} as const;

export type Role =
  | 'game'
  | 'proxy'
  | 'postgres'
  | 'redis'
  | 'carrier'
  | 'lock'
  | 'one-off'
  | 'tools'
  | 'network'
  | 'record'
  | 'settings'
  | 'data'
  | 'image';

/** Container, volume and network names of one project. */
export function namesOf(project: string) {
  return {
    network: `${project}-network`,
    lock: `${project}-lock`,
    carrier: `${project}-carrier`,
    proxy: `${project}-nginx`,
    postgres: `${project}-postgres`,
    redis: `${project}-redis`,
    game: (release: number, replica: number) => `${project}-game-${release}-${replica}`,
    volume: {
      record: `${project}-record`,
      nginx: `${project}-nginx-config`,
      web: `${project}-web`,
      certificates: `${project}-certificates`,
      logs: `${project}-nginx-logs`,
      unixSockets: `${project}-unix-sockets`,
      postgres: `${project}-postgres-data`,
      redis: `${project}-redis-data`,
      /** One each, because a volume is mounted whole: neither accessory sees the other's secrets. */
      postgresSecret: `${project}-postgres-secret`,
      redisSecret: `${project}-redis-secret`,
      settings: (release: number) => `${project}-settings-${release}`,
    },
  };
}

/** Host names of the accessories on the project's network; in .env they mean the accessories that gameops runs. */
export const accessoryHost = { postgres: 'postgres', redis: 'redis' } as const;

/** Postgres keeps 63 bytes of a name. */
const alternate = '_alternate';

/**
 * Roles beside the login of .env after the first rotation: the owner of everything, and the other login that takes
 * turns.
 */
export const roleNames = (login: string) => ({
  owner: `${login.slice(0, 57)}_owner`,
  alternate: `${login.slice(0, 63 - alternate.length)}${alternate}`,
});

/** The login that a container may have been made with, when .env names the other login now. */
export const otherLogin = (login: string): string =>
  login.endsWith(alternate) ? login.slice(0, -alternate.length) : roleNames(login).alternate;

/** Paths inside containers. */
export const path = {
  /** Mount of a release's settings volume in a game container (read-only). */
  settings: '/run/gameops',
  /** JSON object of parsed settings, secrets included; mode 0400, owned by the game user. */
  settingsFile: '/run/gameops/settings.json',
  nginxConfig: '/etc/gameops/nginx',
  web: '/srv/gameops/web',
  certificates: '/etc/gameops/certificates',
  nginxLogs: '/var/log/gameops',
  accessorySecrets: '/run/gameops',
  /** Mount of the volume where Nginx meets the servers. */
  unixSockets: '/run/gameops-unix-sockets',
} as const;

/** A folder in the volume of Unix sockets that every server's user may write to; the mount itself belongs to root. */
export const unixSocketsFolder = 'replicas';

export const unixSocketFile = (release: number | string, replica: number | string): string =>
  `${path.unixSockets}/${unixSocketsFolder}/${release}-${replica}.sock`;

/** Beside the server's bundle in its image: JSON { needs, knows }, as in the labels. */
export const migrationsFile = 'migrations.json';

/** Numeric user of the game process: no name to resolve, none of the host's usual ones. */
export const gameUid = 10001;
/** Numeric user of Nginx: the one of the official image, harmless in any other. */
export const nginxUid = 101;

export const port = {
  /** Game server's admin port: metrics. Reached only on the project's network. */
  admin: 9100,
  /** Nginx's own ports inside its container: unprivileged, so that no capability is needed. */
  nginxHttp: 8080,
  nginxTls: 8443,
  /** Nginx's private side (generation, stub_status, the door to replicas): published on loopback only. */
  nginxPrivate: 8081,
  postgres: 5432,
  redis: 6379,
} as const;

/** Header that opens Nginx's private side. Its value is in the record. */
export const doorHeader = 'x-gameops-door';
/** Response header of the game server: `<release>/<replica>`. */
export const servedByHeader = 'x-gameops-served-by';

/** Container environment of a game server: identity, never secrets. */
export const identityEnv = {
  project: 'GAMEOPS_PROJECT',
  release: 'GAMEOPS_RELEASE',
  replica: 'GAMEOPS_REPLICA',
  /** How long a drain may take before the process ends anyway, ms. */
  drainMs: 'GAMEOPS_DRAIN_MS',
  /** Unix socket to listen on, beside the port. */
  unixSocket: 'GAMEOPS_UNIX_SOCKET',
} as const;

export const endpoint = {
  alive: '/healthz',
  ready: '/readyz',
  metrics: '/metrics',
  /** Admin port, POST { level, forMs? }: what is logged from now on, for a while or until the next one. */
  logLevel: '/loglevel',
  /** Answers without a database: the cheapest sign of life through the public address. */
  version: '/api/version',
  socket: '/ws',
} as const;

/** Redis keys. Every key starts with the project, so projects may share one Redis. */
export function redisKeys(project: string) {
  const base = `gameops:${project}`;
  return {
    /**
     * String: the id of this Redis memory. A flush removes it: offsets and sequences then start again, and players are
     * told.
     */
    epoch: `${base}:epoch`,
    /** Stream of all messages of all rooms, in one order; every server reads it. Bounded by length. */
    bus: `${base}:bus`,
    /** Hash, room → its newest offset. */
    offsets: `${base}:offsets`,
    /** Stream of one room; ids are `<offset>-0`. Bounded by length, expires when nothing is told for an hour. */
    room: (room: string) => `${base}:room:${room}`,
    /** String, expires with the resume window: the newest accepted sequence of a session. */
    sequence: (session: string) => `${base}:seq:${session}`,
    /** String, expires with the resume window: JSON { player, region } of a session. */
    session: (session: string) => `${base}:session:${session}`,
    /** Sorted set of the players in a region; score = when they count as gone, ms since the epoch. */
    here: (region: string) => `${base}:here:${region}`,
    /**
     * Hash, player id → JSON { owner, region, name }; owner is `<release>/<replica>/<connection>`: only it may leave.
     */
    owners: `${base}:owners`,
    /** Sorted set, player id → expiry, over all regions: what the sweep reads. */
    present: `${base}:present`,
    /** Prefix of counters that expire: how often somebody tried to register or log in. */
    attempts: `${base}:attempts:`,
    /** String, expires after 10 s: players connected to that replica. */
    players: (release: number, replica: number) => `${base}:players:${release}:${replica}`,
    /** String, JSON `Vitals`, expires after 10 s: how busy that replica is. */
    vitals: (release: number, replica: number) => `${base}:vitals:${release}:${replica}`,
    /** String, JSON `HandoverOrder`, expires after the drain: what the CLI asks of a release's replicas. */
    handover: (release: number) => `${base}:handover:${release}`,
    /** Hash, replica → JSON `HandoverProgress`, expires after an hour. */
    handoverProgress: (release: number) => `${base}:handover-progress:${release}`,
    /**
     * Sorted set of player ids that a drain closed and that have not come back; score = release that closed them.
     * One for all releases, so that a joining server strikes a player off without knowing which release closed them.
     */
    closed: `${base}:closed`,
    /** String counter: sockets that a draining release closed with 1012. */
    closedCount: (release: number) => `${base}:closed-count:${release}`,
  };
}

/** The player that the CLI's probes log in as. Other players are not told of it: it joins every second of a watch. */
export const probePlayer = 'gameops-probe';

export const isProbe = (player: string): boolean => player === probePlayer;

/**
 * What a replica reports about itself twice a second. `lagMs`: 99th percentile of the last second's event-loop delay.
 */
export interface Vitals {
  v: 1;
  players: number;
  lagMs: number;
  /** 99th percentile from hello to welcome in the last second, ms; null when nobody joined. */
  joinMs: number | null;
}

/**
 * An order to hand over players to release `to`, at a pace. It holds until it is deleted; players who have not moved
 * then stay.
 */
export interface HandoverOrder {
  v: 1;
  order: 'hand-over';
  replicas: number[];
  to: number | null;
  /** How long hinted players may take before they are closed with 1012, ms. */
  patienceMs: number;
}

/** Counted since the replica saw the order. `left`: players still on it. */
export interface HandoverProgress {
  v: 1;
  hinted: number;
  moved: number;
  closed: number;
  /** Connections that ended in any other way during the handover. */
  gone: number;
  left: number;
}
