/**
 * Clients that saturate a site, in a process of their own so that no test's event loop slows them: closed loops over
 * kept-alive connections, GET and POST, and WebSocket players. They count everything once and retry nothing.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { packageRoot } from '../../../src/package-root.ts';
import type { ClientsReport, ClientsRequest } from './clients-process.ts';

export type { ClientsReport, ClientsRequest };

export interface Clients {
  /** What was seen since the last call, or since the start; begins a new window. */
  window(): Promise<ClientsReport>;
  /** The last window; the process is gone afterwards. */
  stop(): Promise<ClientsReport>;
}

/** Resolves when every connection has had its first answer and every player has joined. */
export async function startClients(request: ClientsRequest): Promise<Clients> {
  const child = spawn(
    process.execPath,
    ['scripts/run.js', 'test/support/players/clients-process.ts', JSON.stringify(request)],
    { cwd: packageRoot(), stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
  );
  const gone = once(child, 'exit').then(([code]) => {
    throw new Error(`the clients ended by themselves with ${code}`);
  });
  gone.catch(() => undefined);
  const answer = async <T>(): Promise<T> => {
    const [message] = await Promise.race([once(child, 'message'), gone]);
    return message as T;
  };
  const ask = (word: 'window' | 'stop') => {
    const answered = answer<ClientsReport>();
    child.send(word);
    return answered;
  };
  await answer<'ready'>();
  return {
    window: () => ask('window'),
    async stop() {
      const report = await ask('stop');
      await gone.catch(() => undefined);
      return report;
    },
  };
}

/** A report in one line, for tables. */
export function inWords(report: ClientsReport): string {
  const failures = Object.entries(report.failures).map(([kind, count]) => `${count} ${kind}`);
  const parts = [
    `${report.sent} sent`,
    `${report.failed} failed${failures.length > 0 ? ` (${failures.join(', ')})` : ''}`,
    `longest silence ${report.longestSilenceMs} ms`,
    `p50 ${report.p50Ms} ms`,
    `p99 ${report.p99Ms} ms`,
    `max ${report.maxMs} ms`,
  ];
  return parts.join(' · ');
}

/** The same line with everything that went wrong, for failed expectations. */
export function inDetail(report: ClientsReport): string {
  const { on, of, closed, broken } = report.players;
  const players = of > 0 ? ` · players: ${on} of ${of} on, ${closed} closed, ${broken} broken` : '';
  return `${inWords(report)}${players}: ${report.examples.join('; ')}`;
}
