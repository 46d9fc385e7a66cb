/** A thread of `gameops load`: plays its share of the crowd; messages start and end it. */
import { parentPort, workerData } from 'node:worker_threads';
import { type Crowd, type CrowdCounts, playCrowd } from './crowd.ts';

export type ToThread = 'play' | 'stop';
export type FromThread =
  | { what: 'joined'; count: number }
  | { what: 'in' }
  | { what: 'second'; second: number }
  | { what: 'over'; counts: CrowdCounts };

const tell = (what: FromThread) => parentPort?.postMessage(what);
const stopping = new AbortController();
let play = () => {};
const mayPlay = new Promise<void>((resolve) => {
  play = resolve;
});
parentPort?.on('message', (told: ToThread) => {
  if (told === 'stop') stopping.abort();
  // A crowd that is stopped does not wait for the other threads.
  play();
});

async function run(): Promise<void> {
  const counts = await playCrowd(workerData as Crowd, {
    signal: stopping.signal,
    onJoined: (count) => tell({ what: 'joined', count }),
    onSecond: (second) => tell({ what: 'second', second }),
    othersAreIn() {
      tell({ what: 'in' });
      return mayPlay;
    },
  });
  tell({ what: 'over', counts });
  parentPort?.close();
}

// A failure reaches the main thread as the error of this worker.
void run();
