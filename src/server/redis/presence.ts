/**
 * Who is where, in Redis. Whoever is here is so until a time, which his server moves on every 30 s; a server that dies
 * moves nothing, and the sweep of any other announces who left. The newest connection owns a player: only it may end
 * his presence, so the late close of an old one never logs out somebody who is on a new server already. The one before
 * it is remembered until it is gone or the newest has proven that it lasts: a connection that breaks before its player
 * has heard of it hands him back.
 *
 * Promises: nobody present is announced twice, nobody is announced as gone in a handover, no ghost after `goneMs` and
 * one sweep. Times are Redis' own, so clocks of servers don't matter.
 */
import { redisKeys } from '../../contract.ts';
import { type Person, world } from '../../protocol.ts';
import type { Bus } from './bus.ts';
import { ownArg } from './bus.ts';

export interface PresenceTimes {
  /** Without a refresh. With the sweep it must stay below the 75 s in which ghosts are gone. */
  goneMs: number;
  /** After a connection that broke: a resume within this time shows nothing to others. */
  graceMs: number;
  sweepMs: number;
  /** A connection that was not refreshed within it is dead: a heartbeat and what one may be late. */
  provenMs: number;
}

export const presenceTimes: PresenceTimes = {
  goneMs: 69_000,
  graceMs: 10_000,
  sweepMs: 5_000,
  provenMs: 34_000,
};

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
  /** The same for one who is here already. @returns null, and nothing happens, when another connection owns him */
  move(here: Here, session: string): Promise<number | null>;
  /** Nothing happens when another connection owns him. `isClean`: he meant to go. */
  leave(here: Here, isClean: boolean): Promise<void>;
  /** @returns owners of those whom another connection owns by now */
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

/**
 * KEYS owners, present, session, closed; ARGV player, owner entry, region, session, joined, left, goneMs, prefix of here, and
 * of a move the owner, '' of a hello.
 */
const joinLua = `${nowLua}
local player, mine, region, here, mover = ${ownArg(1)}, ${ownArg(2)}, ${ownArg(3)}, ${ownArg(8)}, ${ownArg(9)}
local found = redis.call('HGET', KEYS[4], player)
local entry = found and cjson.decode(found)
local was = entry and entry.region
if mover ~= '' then
  if entry and entry.owner ~= mover then return {'other'} end
elseif entry and not entry.left then
  mine = string.sub(mine, 1, -2) .. ',"former":' .. cjson.encode(entry.owner) .. '}'
end
redis.call('HSET', KEYS[4], player, mine)
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
local player, owner, grace, here = ${ownArg(1)}, ${ownArg(2)}, tonumber(${ownArg(3)}), ${ownArg(5)}
local found = redis.call('HGET', KEYS[4], player)
if not found then return {'gone'} end
local entry = cjson.decode(found)
if entry.owner ~= owner then
  if entry.former == owner then
    entry.former = nil
    redis.call('HSET', KEYS[4], player, cjson.encode(entry))
  end
  return {'other'}
end
if grace > 0 and entry.former then
  entry.owner, entry.former = entry.former, nil
  redis.call('HSET', KEYS[4], player, cjson.encode(entry))
  return {'back'}
end
if grace > 0 then
  entry.left = true
  redis.call('HSET', KEYS[4], player, cjson.encode(entry))
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
 * KEYS owners, present, then sessions and sequences to keep; ARGV goneMs, prefix of here, provenMs, and for each player: id,
 * owner, owner entry, region, joined. Who was swept although he is here comes back, and so does one whose newer
 * connection never lasted.
 */
const refreshLua = `${nowLua}
local lasts, here, proven = tonumber(${ownArg(1)}), ${ownArg(2)}, tonumber(${ownArg(3)})
local others = {'fresh'}
for at = 7, #ARGV, 5 do
  local player, owner, mine, region = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local found = redis.call('HGET', KEYS[4], player)
  local entry = found and found ~= mine and cjson.decode(found)
  local isMine = true
  if entry and entry.owner ~= owner then
    local heard = tonumber(redis.call('ZSCORE', KEYS[5], player) or 0) - lasts
    if entry.former ~= owner then
      others[#others + 1] = owner
      isMine = false
    elseif now - heard < proven then
      isMine = false
    else
      entry.owner = owner
    end
  end
  if isMine then
    if entry then region = entry.region end
    if not found then
      redis.call('HSET', KEYS[4], player, mine)
      append(region, ARGV[at + 4])
    elseif entry and entry.former then
      entry.former = nil
      redis.call('HSET', KEYS[4], player, cjson.encode(entry))
    end
    redis.call('ZADD', KEYS[5], now + lasts, player)
    redis.call('ZADD', here .. region, now + lasts, player)
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

/** KEYS of all regions' here. One command: two hundred of them a second are felt by those who join. */
const headcountLua = `${nowLua}
local answer = {'regions'}
for at = 4, #KEYS do answer[#answer + 1] = redis.call('ZCOUNT', KEYS[at], '(' .. now, '+inf') end
return answer
`;

export function openPresence(
  bus: Bus,
  project: string,
  { goneMs, graceMs, provenMs }: PresenceTimes = presenceTimes,
): Presence {
  const keys = redisKeys(project);
  const hereOf = keys.here('');
  const join = bus.script('gameopsJoin', joinLua);
  const leave = bus.script('gameopsLeave', leaveLua);
  const sweep = bus.script('gameopsSweep', sweepLua);
  const people = bus.script('gameopsPeople', peopleLua);
  const refresh = bus.script('gameopsRefresh', refreshLua);
  const headcount = bus.script('gameopsHeadcount', headcountLua);
  const shared = [keys.owners, keys.present];

  async function settle(here: Here, session: string, mover: string): Promise<number | null> {
    const { person, region } = here;
    const [is, offset] = await join(
      [...shared, keys.session(here.session), keys.closed],
      [
        ...[person.id, entryOf(here), region, session],
        ...[announcement('joined', person), announcement('left', person), goneMs, hereOf, mover],
      ],
    );
    return is === 'here' ? Number(offset) : null;
  }

  return {
    join: async (here, session) => Number(await settle(here, session, '')),
    move: (here, session) => settle(here, session, here.owner),
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
      const [, ...others] = await refresh([...shared, ...kept], [goneMs, hereOf, provenMs, ...args]);
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
      const [, ...counts] = await headcount(
        regions.map((region) => keys.here(region)),
        [],
      );
      return regions
        .map((region, n) => ({ region, players: Number(counts[n]) }))
        .filter(({ players }) => players > 0)
        .sort((a, b) => b.players - a.players);
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
