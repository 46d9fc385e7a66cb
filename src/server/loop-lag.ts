/**
 * The lag of this process' event loop, and percentiles of what it measures.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';

export interface LoopLag {
  /** The worst 99th percentile of the last second, ms. */
  worstMs(): number;
  stop(): void;
}

const resolutionMs = 10;
const sampleMs = 250;
const samplesKept = 4;

/** @param onSample told of the worst, ms, whenever it was measured */
export function watchLoopLag(onSample: (worstMs: number) => void): LoopLag {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs });
  const samples: number[] = [];
  const worstMs = () => Math.max(0, ...samples);
  histogram.enable();
  const timer = setInterval(() => {
    // What is measured is the time between two ticks of a timer: its own period is no delay.
    const p99Ms = histogram.count === 0 ? 0 : histogram.percentile(99) / 1e6 - resolutionMs;
    histogram.reset();
    samples.push(Math.max(0, Math.round(p99Ms * 10) / 10));
    if (samples.length > samplesKept) samples.shift();
    onSample(worstMs());
  }, sampleMs);
  return {
    worstMs,
    stop() {
      clearInterval(timer);
      histogram.disable();
    },
  };
}

/** null when there are no samples. */
export function percentile99(samples: readonly number[]): number | null {
  if (samples.length === 0) return null;
  const sorted = [...samples].sort((a, b) => a - b);
  return Math.round(sorted[Math.ceil(sorted.length * 0.99) - 1] ?? 0);
}
