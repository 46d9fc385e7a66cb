/** `--when-quiet`: waits for a moment with few players. Holds no lock meanwhile, and changes nothing. */
import { setTimeout as sleep } from 'node:timers/promises';
import { OpsError } from '../errors.ts';
import type { Context } from './context.ts';
import { readProject } from './project.ts';

const lookEveryMs = 2_000;

/** @throws REDIS_UNREACHABLE when nobody can say how many are online */
export async function untilQuiet(context: Context, playersMax: number): Promise<void> {
  for (let hasTold = false; ; hasTold = true) {
    const online = await playersOnline(context);
    if (online <= playersMax) return;
    if (!hasTold) {
      const message = `${online} players are online; waiting for ${playersMax} or fewer`;
      context.emit({ type: 'note', level: 'info', message });
    }
    await sleep(lookEveryMs, undefined, { signal: context.signal });
  }
}

async function playersOnline(context: Context): Promise<number> {
  const { observed } = await readProject(context);
  const running = observed?.world.fleets.filter(({ replicas }) => replicas.some((one) => one.running)) ?? [];
  const counts = running.map(({ players }) => players);
  if (counts.includes(null)) {
    throw new OpsError('REDIS_UNREACHABLE', {
      message:
        'How many players are online is not known, so no quiet moment can be waited for. Nothing was changed.',
      next: ['gameops doctor', 'gameops deploy without --when-quiet'],
    });
  }
  return counts.reduce<number>((sum, one) => sum + (one ?? 0), 0);
}
