/** Where Nginx sends players now, read back from it. Chooses and changes nothing. */
import { z } from 'zod';
import { namesOf } from '../contract.ts';
import type { Engine } from '../engine/port.ts';
import type { Route } from '../release/model.ts';
import type { Door } from './door.ts';
import { pointedGeneration, type Target } from './generation.ts';

export interface ObservedTraffic {
  answering: boolean;
  /** What is served; when Nginx does not answer, what it would load. null before the first one. */
  generation: number | null;
  routes: Route[];
  /** The pointer on the volume is what is served. */
  settled: boolean;
  /** What the pointer names: the addresses behind `routes` when settled. */
  targets: Target[];
}

const served = z.object({
  generation: z.int(),
  /** Version of the running Nginx. */
  nginx: z.string().optional(),
  routes: z.array(z.object({ release: z.int(), replicas: z.array(z.int()) })),
});

/** Whole acts are judged by this one answer: a machine that stands still for a moment is no Nginx that does not answer. */
const askTimeoutMs = 6_000;

export async function readTraffic(
  outside: { engine: Engine; door: Door },
  project: string,
): Promise<ObservedTraffic> {
  const [answer, files] = await Promise.all([
    askGeneration(outside.door, askTimeoutMs),
    outside.engine.readFiles(project, namesOf(project).volume.nginx, ''),
  ]);
  const pointed = pointedGeneration(files);
  if (answer === null) {
    const routes = pointed?.routes ?? [];
    return {
      answering: false,
      generation: pointed?.generation ?? null,
      routes,
      settled: false,
      targets: pointed?.targets ?? [],
    };
  }
  return {
    answering: true,
    generation: answer.generation,
    routes: answer.routes,
    settled: answer.generation === pointed?.generation,
    targets: pointed?.targets ?? [],
  };
}

/** null when it does not answer as our Nginx does. */
export async function askGeneration(door: Door, timeoutMs: number): Promise<z.infer<typeof served> | null> {
  const asked = await door.ask('/generation', timeoutMs);
  if (!asked.ok || asked.answer.status !== 200) return null;
  try {
    return served.parse(JSON.parse(asked.answer.body));
  } catch {
    return null;
  }
}
