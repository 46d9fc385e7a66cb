/**
 * Whether this replica may take traffic. Probes read a cached answer: a probe never becomes a query, so many probes
 * cost nothing and a slow database can't make them hang. A short loss does not make a replica "not ready": all replicas
 * would do so at once, and one second without Redis would take the whole game offline.
 */

export type Need = 'listening' | 'postgres' | 'schema' | 'redis' | 'bus';

export interface Readiness {
  set(need: Need, isMet: boolean): void;
  drain(): void;
  isDraining(): boolean;
  /** The needs that are missing; [] when ready. */
  missing(): (Need | 'draining')[];
}

const allNeeds: readonly Need[] = ['listening', 'postgres', 'schema', 'redis', 'bus'];

/** @param graceMs how long a need that was met may be lost before it counts */
export function createReadiness(graceMs: number, now: () => number = () => performance.now()): Readiness {
  const lostAt = new Map<Need, number>(allNeeds.map((need) => [need, Number.NEGATIVE_INFINITY]));
  let draining = false;
  return {
    set(need, isMet) {
      if (isMet) lostAt.delete(need);
      else if (!lostAt.has(need)) lostAt.set(need, now());
    },
    drain: () => {
      draining = true;
    },
    isDraining: () => draining,
    missing() {
      const lost = allNeeds.filter((need) => {
        const since = lostAt.get(need);
        return since !== undefined && now() - since >= graceMs;
      });
      return draining ? [...lost, 'draining'] : lost;
    },
  };
}
