/**
 * The proof of a switch: which configuration new connections meet. Answers alone can't prove it: for a tenth of a second and
 * longer on a busy machine, Nginx keeps its former workers beside the new ones, and the kernel gives a connection to
 * whichever of them it wakes. Five fresh connections in a row met the new ones while the former took every sixth of the next.
 * So the former workers are named before the reload, and the proof waits until none of them accepts connections.
 */
import type { Clock } from '../clock.ts';
import { namesOf } from '../contract.ts';
import type { Engine } from '../engine/port.ts';
import type { Door } from './door.ts';
import { askGeneration } from './traffic.ts';

/** Process ids of workers that accept connections; null when this engine does not list processes. */
export type Workers = ReadonlySet<number> | null;

export interface Proof {
  project: string;
  /** Number of the generation that is to be served. */
  generation: number;
  /** Workers that must not accept connections any longer. */
  leaving: Workers;
  deadlineMs: number;
}

/** Fresh connections in a row that must meet the new generation: each meets a worker of its own choosing. */
const proofs = 5;
const pollEveryMs = 10;
const askTimeoutMs = 500;
/** Where processes can't be listed: four times as long as former workers were ever seen to accept on an idle machine. */
const acceptsForMs = 1_000;

/** A worker that shuts down has closed its listening sockets, and says so in its title: "worker process is shutting down". */
export async function acceptingWorkers(engine: Engine, project: string): Promise<Workers> {
  const processes = await engine.processes(project, namesOf(project).proxy);
  if (processes === null) return null;
  return new Set(processes.filter((one) => one.command === 'nginx: worker process').map(({ pid }) => pid));
}

/** @returns null when every new connection meets the generation; otherwise, at the deadline, a sentence about what was seen */
export async function whyNotServed(
  outside: { engine: Engine; door: Door; clock: Clock },
  { project, generation, leaving, deadlineMs }: Proof,
): Promise<string | null> {
  const { engine, door, clock } = outside;
  const end = clock.now() + deadlineMs;
  let inARow = 0;
  let since = clock.now();
  for (;;) {
    const answer = await askGeneration(door, askTimeoutMs);
    inARow = answer?.generation === generation ? inARow + 1 : 0;
    if (inARow === 0) since = clock.now();
    const isAnswering = inARow >= proofs;
    if (isAnswering && (await haveLeft())) return null;
    if (clock.now() >= end)
      return isAnswering
        ? `A worker of Nginx still accepted connections for the former configuration ${deadlineMs / 1000} s after generation ${generation} was loaded`
        : `Nginx did not answer with generation ${generation} within ${deadlineMs / 1000} s`;
    if (inARow === 0 || isAnswering) await clock.sleep(pollEveryMs);
  }

  async function haveLeft(): Promise<boolean> {
    const accepting = leaving && (await acceptingWorkers(engine, project));
    if (!leaving || !accepting) return clock.now() - since >= acceptsForMs;
    return ![...leaving].some((pid) => accepting.has(pid));
  }
}
