/** How this process feels: the delay of its event loop and how long joining takes, second by second. */
import { monitorEventLoopDelay } from 'node:perf_hooks';

export interface Gauges {
  /** 99th percentile of the delay since the last call, ms. */
  takeLagMs(): number;
  stop(): void;
}

const resolutionMs = 10;

export function watchLoop(): Gauges {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs });
  histogram.enable();
  return {
    takeLagMs() {
      // What is measured is the time between two ticks of a timer: its own period is no delay.
      const p99Ms = histogram.count === 0 ? 0 : histogram.percentile(99) / 1e6 - resolutionMs;
      histogram.reset();
      return Math.max(0, Math.round(p99Ms * 10) / 10);
    },
    stop: () => histogram.disable(),
  };
}

/** null of none. */
export function percentile99(samples: readonly number[]): number | null {
  if (samples.length === 0) return null;
  const sorted = [...samples].sort((a, b) => a - b);
  return Math.round(sorted[Math.ceil(sorted.length * 0.99) - 1] ?? 0);
}
