/** Load players by the real CLI, in a process of their own. */
import type { LoadReport } from '../../../src/load/load.ts';
import type { Ran, Running } from '../site/site.ts';
import type { TlsSite } from '../site/tls-site.ts';

export interface Load {
  running: Running;
  /** Resolves when nobody joins any more, with how many players are in the game: perhaps fewer than were sent. */
  playing: Promise<number>;
  report(): Promise<LoadReport>;
}

export function startLoad(
  { site, socketUrl, certificateFile }: TlsSite,
  count: number,
  forMs: number,
  rate = 1,
): Load {
  let joined = 0;
  let isIn = () => {};
  const playing = new Promise<number>((resolve) => {
    isIn = () => resolve(joined);
  });
  const args = [
    '--players',
    String(count),
    '--for',
    `${forMs}ms`,
    '--rate',
    String(rate),
    '--url',
    socketUrl,
  ];
  const running = site.start(['load', ...args], {
    env: { NODE_EXTRA_CA_CERTS: certificateFile },
    onEvent: (event) => {
      if (event.type !== 'progress') return;
      if (event.label === 'in the game') joined = event.done;
      if (event.label === 'playing') isIn();
    },
  });
  // Nobody must wait for a load that ends before anybody plays.
  void running.ended.then(isIn, isIn);
  return { running, playing, report: async () => reportOf(await running.ended) };
}

function reportOf(ran: Ran): LoadReport {
  if (ran.exitCode !== 0) throw new Error(`load ended with ${ran.exitCode}: ${ran.stdout.slice(0, 600)}`);
  return ran.json?.result as LoadReport;
}
