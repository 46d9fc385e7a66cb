/**
 * The Lua scripts of presence. Each decides and writes in one step, so that servers which act on the same player at the
 * same moment can't disagree. They run through the bus, whose arguments come first.
 */
import { ownArg } from './bus-scripts.ts';

const nowLua = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`;

/**
 * KEYS owners, present, session, closed; ARGV player, owner entry, region, session, joined, left, goneMs, prefix of here,
 * and the owner for a move, '' for a hello.
 */
export const joinLua = `${nowLua}
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
export const leaveLua = `${nowLua}
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
 * KEYS owners, present, then sessions and sequences to keep; ARGV goneMs, prefix of here, provenMs, and for each player:
 * id, owner, owner entry, region, joined. A player who was swept although they are here is present again, and so is a
 * player whose newer connection did not last.
 */
export const refreshLua = `${nowLua}
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
export const sweepLua = `${nowLua}
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
export const peopleLua = `${nowLua}
local found = redis.call('ZRANGEBYSCORE', KEYS[5], '(' .. now, '+inf', 'LIMIT', 0, ${ownArg(1)})
local answer = {'people'}
for _, player in ipairs(found) do
  answer[#answer + 1] = player
  answer[#answer + 1] = redis.call('HGET', KEYS[4], player) or ''
end
return answer
`;

/** KEYS of all regions' here. In one command, because two hundred commands a second would slow down joins. */
export const headcountLua = `${nowLua}
local answer = {'regions'}
for at = 4, #KEYS do answer[#answer + 1] = redis.call('ZCOUNT', KEYS[at], '(' .. now, '+inf') end
return answer
`;
