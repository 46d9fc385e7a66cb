/** A steady trickle of requests over kept-alive connections, timed; nothing is sent again. */
import { readFileSync } from 'node:fs';
import { Agent, get } from 'node:https';
import { type Histogram, newHistogram, note, percentile } from '../../../src/client/histogram.ts';

export interface HttpSeen {
  sent: number;
  failed: number;
  examples: string[];
  p95Ms: number;
  p99Ms: number;
  maxMs: number;
}

const connections = 10;
const timeoutMs = 600_000;

/** @param paths asked in turn */
export function startHttpProbe(base: string, certificateFile: string, perSecond: number, paths: string[]) {
  const agent = new Agent({ keepAlive: true, maxSockets: connections, ca: readFileSync(certificateFile) });
  const times: Histogram = newHistogram();
  const examples: string[] = [];
  const open = new Set<Promise<void>>();
  let sent = 0;
  let failed = 0;

  const ask = (path: string): Promise<void> =>
    new Promise((resolve) => {
      const began = performance.now();
      const end = (why: string | null) => {
        note(times, performance.now() - began);
        if (why !== null) {
          failed += 1;
          if (examples.length < 5) examples.push(`${path}: ${why}`);
        }
        resolve();
      };
      const request = get(new URL(path, base), { agent, timeout: timeoutMs }, (answer) => {
        answer.resume();
        answer.on('end', () => end(answer.statusCode === 200 ? null : String(answer.statusCode)));
        answer.on('error', ({ message }) => end(message));
      });
      request.on('timeout', () => request.destroy(new Error('no answer in time')));
      request.on('error', ({ message }) => end(message));
    });

  const timer = setInterval(() => {
    const asked = ask(paths[sent % paths.length] ?? '/');
    sent += 1;
    open.add(asked);
    void asked.then(() => open.delete(asked));
  }, 1_000 / perSecond);

  return {
    async stop(): Promise<HttpSeen> {
      clearInterval(timer);
      await Promise.all(open);
      agent.destroy();
      const [p95Ms, p99Ms] = [percentile(times, 0.95), percentile(times, 0.99)];
      return { sent, failed, examples, p95Ms, p99Ms, maxMs: Math.round(times.max) };
    },
  };
}
