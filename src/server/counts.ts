/**
 * Who was let go and is not back, and how many are here: what the CLI tells its operator. Never rejects and never
 * waits for long: a drain goes on without its count.
 */
import type { Logger } from 'pino';
import { redisKeys } from '../contract.ts';
import type { Bus } from './bus.ts';
import { quietly } from './redis.ts';
import type { Identity } from './settings.ts';

export interface Counts {
  /** Players that a drain is about to close. */
  closed(players: readonly string[]): Promise<void>;
  /** Takes back how many are connected here; the key dies with the process anyway. */
  gone(): Promise<void>;
}

const closedForSeconds = 3_600;

export function openCounts(bus: Bus, { project, release, replica }: Identity, log: Logger): Counts {
  const keys = redisKeys(project);
  const { commands } = bus;
  return {
    closed: (players) =>
      quietly(
        commands
          .multi()
          .zadd(keys.closed, ...players.flatMap((player) => [release, player]))
          .expire(keys.closed, closedForSeconds)
          .incrby(keys.closedCount(release), players.length)
          .expire(keys.closedCount(release), closedForSeconds)
          .exec(),
        log,
      ),
    gone: () => quietly(commands.del(keys.players(release, replica), keys.vitals(release, replica)), log),
  };
}
