/**
 * Players whom a drain closed and who are not back: the CLI tells its operator how many. Never rejects and never waits
 * for long: a drain goes on without its count.
 */
import type { Logger } from 'pino';
import { redisKeys } from '../../contract.ts';
import type { Player } from '../players/player.ts';
import type { Identity } from '../settings.ts';
import type { Bus } from './bus.ts';
import { ownArg } from './bus-scripts.ts';
import { quietly } from './redis.ts';

export interface Counts {
  /** Players whom a drain is about to close. A player who is on another connection already is not recorded. */
  closed(players: readonly Pick<Player, 'person' | 'owner'>[]): Promise<void>;
  /** Takes back how many players are connected here. The keys expire soon anyway. */
  gone(): Promise<void>;
}

const closedForSeconds = 3_600;

/** KEYS owners, closed, count; ARGV release, how long it is kept, and for each player: id, owner. */
const closedLua = `
for at = 6, #ARGV, 2 do
  local found = redis.call('HGET', KEYS[4], ARGV[at])
  if not found or cjson.decode(found).owner == ARGV[at + 1] then
    redis.call('ZADD', KEYS[5], ${ownArg(1)}, ARGV[at])
  end
end
redis.call('EXPIRE', KEYS[5], ${ownArg(2)})
redis.call('INCRBY', KEYS[6], (#ARGV - 5) / 2)
redis.call('EXPIRE', KEYS[6], ${ownArg(2)})
return {'recorded'}
`;

export function openCounts(bus: Bus, { project, release, replica }: Identity, log: Logger): Counts {
  const keys = redisKeys(project);
  const closed = bus.script('gameopsClosed', closedLua);
  return {
    closed: (players) =>
      quietly(
        closed(
          [keys.owners, keys.closed, keys.closedCount(release)],
          [release, closedForSeconds, ...players.flatMap(({ person, owner }) => [person.id, owner])],
        ),
        log,
      ),
    gone: () => quietly(bus.commands.del(keys.players(release, replica), keys.vitals(release, replica)), log),
  };
}
