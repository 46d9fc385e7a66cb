/** How many replicas of a new fleet come at a time, and how much room both fleets take meanwhile. PURE. */
import type { Strategy } from './model.ts';

/** Blue-green is one batch; rolling goes by quarters, so that it needs a quarter more memory instead of twice. */
export const batchSize = (strategy: Strategy, replicas: number): number =>
  strategy === 'rolling' ? Math.ceil(replicas / 4) : replicas;

/** How many fleets' worth of replicas run at the same time, at most: 2 for blue-green, 1.25 for rolling with 4 replicas. */
export const fleetsAtOnce = (strategy: Strategy, replicas: number): number =>
  1 + batchSize(strategy, replicas) / replicas;
