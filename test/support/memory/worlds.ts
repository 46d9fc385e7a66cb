/** Worlds for planner tests, small and readable. */
import type { Fleet, Intent, Release, Verdict, World } from '../../../src/release/model.ts';

export function release(id: number, verdict: Verdict, replicas = 2, change: Partial<Release> = {}): Release {
  return {
    id,
    image: `sha256:${id}`,
    imageRef: `arena:${id}`,
    digestRef: null,
    protocol: 'gameops.v1',
    unixSocket: true,
    page: 'page',
    proxy: null,
    replicas,
    shape: {
      port: 3000,
      memoryBytes: 512 * 1024 ** 2,
      cpus: 1,
      probe: '/readyz',
      settingsAs: 'file',
      user: null,
      readOnlyRoot: true,
      capabilities: [],
    },
    plain: {},
    fingerprints: {},
    fingerprint: `print-${id}`,
    migrations: null,
    backup: null,
    drainMs: 300_000,
    createdAt: '2026-01-01T00:00:00.000Z',
    createdBy: 'ada@lab',
    verdict,
    reason: null,
    ...change,
  };
}

export function fleet(
  id: number,
  running: number[],
  stopped: number[] = [],
  players: number | null = 0,
): Fleet {
  const replicas = [
    ...running.map((n) => ({ n, running: true, current: true })),
    ...stopped.map((n) => ({ n, running: false, current: true })),
  ];
  return { release: id, replicas: replicas.sort((a, b) => a.n - b.n), players };
}

export function world(change: Partial<World> = {}): World {
  return {
    releases: [],
    fleets: [],
    traffic: { routes: [], settled: true },
    intent: null,
    schema: { pending: [], contracts: [], isFilled: false, wish: null },
    ...change,
  };
}

/** Release 40 is live with two replicas and 214 players. */
export function liveWorld(change: Partial<World> = {}): World {
  return world({
    releases: [release(40, 'live')],
    fleets: [fleet(40, [1, 2], [], 214)],
    traffic: { routes: [{ release: 40, replicas: [1, 2] }], settled: true },
    ...change,
  });
}

export function intent(id: number, change: Partial<Intent> = {}): Intent {
  return {
    verb: 'deploy',
    strategy: 'blue-green',
    release: id,
    previous: null,
    readyMs: 60_000,
    watchMs: 30_000,
    drainMs: 300_000,
    keep: 3,
    formerly: null,
    skipMigrations: false,
    schema: null,
    stage: 'open',
    verdict: 'failed',
    reason: null,
    startedAt: '2026-01-02T00:00:00.000Z',
    by: 'ada@lab',
    ...change,
  };
}
