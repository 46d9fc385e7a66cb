/**
 * Who is where, in Redis. Whoever is here is so until a time, which his server moves on every 30 s; a server that dies
 * moves nothing, and the sweep of any other announces who left. The newest connection owns a player: only it may end
 * his presence, so the late close of an old one never logs out somebody who is on a new server already.
 *
 * Promises: nobody present is announced twice, nobody is announced as gone in a handover, no ghost after `goneMs` and
 * one sweep. Times are Redis' own, so clocks of servers don't matter.
 */
import { redisKeys } from '../contract.ts';
import { type Person, world } from '../protocol.ts';
import type { Bus } from './bus.ts';
import { ownArg } from './bus.ts';

export interface PresenceTimes {
  /** Without a refresh. With the sweep it must stay below the 75 s in which ghosts are gone. */
  goneMs: number;
  /** After a connection that broke: a resume within this time shows nothing to others. */
  graceMs: number;
  sweepMs: number;
}

export const presenceTimes: PresenceTimes = { goneMs: 69_000, graceMs: 10_000, sweepMs: 5_000 };

export interface Here {
  person: Person;
  region: string;
  /** `<release>/<replica>/<connection>` */
  owner: string;
  session: string;
}

export interface Presence {
  /**
   * Owns the player from now on, wherever he was before, and keeps his session for a resume. Whoever let him go, he
   * counts as back.
   * @returns the region's newest offset
   */
  join(here: Here, session: string): Promise<number>;
  /** Nothing happens when another connection owns him. `isClean`: he meant to go. */
  leave(here: Here, isClean: boolean): Promise<void>;
  /** @returns ids of those whom another connection owns by now */
  refresh(all: readonly Here[]): Promise<string[]>;
  /** @returns how many are announced as gone */
  sweep(): Promise<number>;
  /** At most `count` of those in a region. */
  people(region: string, count: number): Promise<Person[]>;
  /** Regions with somebody in them, most first. */
  headcount(): Promise<{ region: string; players: number }[]>;
}

const sweepCount = 200;
const regions = Array.from(
  { length: world.columns * world.rows },
  (_, n) => `r${n % world.columns}-${Math.floor(n / world.columns)}`,
);

const nowLua = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`;

/** KEYS owners, present, session, closed; ARGV player, owner entry, region, session, joined, left, goneMs, prefix of here. */
const joinLua = `${nowLua}
local player, region, here = ${ownArg(1)}, ${ownArg(3)}, ${ownArg(8)}
local found = redis.call('HGET', KEYS[4], player)
local was = found and cjson.decode(found).region
redis.call('HSET', KEYS[4], player, ${ownArg(2)})
redis.call('ZADD', KEYS[5], now + ${ownArg(7)}, player)
redis.call('SET', KEYS[6], ${ownArg(4)}, 'PX', ARGV[3])
redis.call('ZREM', KEYS[7], player)
if was and was ~= region then
  redis.call('ZREM', here .. was, player)
  append(was, ${ownArg(6)})
end
redis.call('ZADD', here .. region, now + ${ownArg(7)}, player)
if was ~= region then append(region, ${ownArg(5)}) end
return {'here', tonumber(redis.call('HGET', KEYS[3], region) or 0)}
`;

/** KEYS owners, present; ARGV player, owner, graceMs (0: gone at once), left, prefix of here. */
const leaveLua = `${nowLua}
local player, grace, here = ${ownArg(1)}, tonumber(${ownArg(3)}), ${ownArg(5)}
local found = redis.call('HGET', KEYS[4], player)
if not found then return {'gone'} end
local entry = cjson.decode(found)
if entry.owner ~= ${ownArg(2)} then return {'other'} end
if grace > 0 then
  redis.call('ZADD', KEYS[5], 'XX', now + grace, player)
  redis.call('ZADD', here .. entry.region, 'XX', now + grace, player)
  return {'soon'}
end
redis.call('HDEL', KEYS[4], player)
redis.call('ZREM', KEYS[5], player)
redis.call('ZREM', here .. entry.region, player)
append(entry.region, ${ownArg(4)})
return {'left'}
`;

/**
 * KEYS owners, present, then sessions and sequences to keep; ARGV goneMs, prefix of here, and for each player: id,
 * owner, owner entry, region, joined. Who was swept although he is here comes back.
 */
const refreshLua = `${nowLua}
local gone, here = now + ${ownArg(1)}, ${ownArg(2)}
local others = {'fresh'}
for at = 6, #ARGV, 5 do
  local player, owner, mine, region = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local found = redis.call('HGET', KEYS[4], player)
  local entry = found and found ~= mine and cjson.decode(found)
  if entry and entry.owner ~= owner then
    others[#others + 1] = player
  else
    if entry then region = entry.region end
    if not found then
      redis.call('HSET', KEYS[4], player, mine)
      append(region, ARGV[at + 4])
    end
    redis.call('ZADD', KEYS[5], gone, player)
    redis.call('ZADD', here .. region, gone, player)
  end
end
for at = 6, #KEYS do redis.call('PEXPIRE', KEYS[at], ARGV[3]) end
return others
`;

/** KEYS owners, present; ARGV prefix of here, how many at most. */
const sweepLua = `${nowLua}
local gone = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, ${ownArg(2)})
for _, player in ipairs(gone) do
  local found = redis.call('HGET', KEYS[4], player)
  redis.call('ZREM', KEYS[5], player)
  if found then
    local entry = cjson.decode(found)
    redis.call('HDEL', KEYS[4], player)
    redis.call('ZREM', ${ownArg(1)} .. entry.region, player)
    append(entry.region, cjson.encode({ t = 'left', player = { id = player, name = entry.name } }))
  end
end
return {'swept', #gone}
`;

/** KEYS owners, here; ARGV how many at most. */
const peopleLua = `${nowLua}
local found = redis.call('ZRANGEBYSCORE', KEYS[5], '(' .. now, '+inf', 'LIMIT', 0, ${ownArg(1)})
local answer = {'people'}
for _, player in ipairs(found) do
  answer[#answer + 1] = player
  answer[#answer + 1] = redis.call('HGET', KEYS[4], player) or ''
end
return answer
`;

export function openPresence(
  bus: Bus,
  project: string,
  { goneMs, graceMs }: PresenceTimes = presenceTimes,
): Presence {
  const keys = redisKeys(project);
  const hereOf = keys.here('');
  const join = bus.script('gameopsJoin', joinLua);
  const leave = bus.script('gameopsLeave', leaveLua);
  const sweep = bus.script('gameopsSweep', sweepLua);
  const people = bus.script('gameopsPeople', peopleLua);
  const refresh = bus.script('gameopsRefresh', refreshLua);
  const shared = [keys.owners, keys.present];

  return {
    async join(here, session) {
      const { person, region } = here;
      const [, offset] = await join(
        [...shared, keys.session(here.session), keys.closed],
        [
          ...[person.id, entryOf(here), region, session],
          ...[announcement('joined', person), announcement('left', person), goneMs, hereOf],
        ],
      );
      return Number(offset);
    },
    async leave({ person, owner }, isClean) {
      await leave(shared, [person.id, owner, isClean ? 0 : graceMs, announcement('left', person), hereOf]);
    },
    async refresh(all) {
      if (all.length === 0) return [];
      const kept = all.flatMap(({ session }) => [keys.session(session), keys.sequence(session)]);
      const args = all.flatMap((here) => {
        const { person, owner, region } = here;
        return [person.id, owner, entryOf(here), region, announcement('joined', person)];
      });
      const [, ...others] = await refresh([...shared, ...kept], [goneMs, hereOf, ...args]);
      return others.map(String);
    },
    async sweep() {
      let all = 0;
      for (;;) {
        const [, count] = await sweep(shared, [hereOf, sweepCount]);
        all += Number(count);
        if (Number(count) < sweepCount) return all;
      }
    },
    async headcount() {
      const now = Date.now();
      const counted = await Promise.all(
        regions.map(async (region) => ({
          region,
          players: await bus.commands.zcount(keys.here(region), now, '+inf'),
        })),
      );
      return counted.filter(({ players }) => players > 0).sort((a, b) => b.players - a.players);
    },
    async people(region, count) {
      const [, ...found] = await people([keys.owners, keys.here(region)], [count]);
      return Array.from({ length: found.length / 2 }, (_, n) =>
        personOf(String(found[2 * n]), String(found[2 * n + 1])),
      );
    },
  };
}

function entryOf({ owner, region, person }: Here): string {
  return JSON.stringify({ owner, region, name: person.name });
}

const announcement = (t: 'joined' | 'left', player: Person) =>
  JSON.stringify({ t, player: { id: player.id, name: player.name } });

function personOf(id: string, entry: string): Person {
  const name: unknown = entry === '' ? null : (JSON.parse(entry) as { name?: unknown }).name;
  return { id, name: typeof name === 'string' ? name : id };
}
