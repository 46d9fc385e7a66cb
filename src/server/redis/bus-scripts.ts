/**
 * The Lua scripts that write to the bus. Promises that a script runs on the memory of Redis that it was meant for, or
 * not at all; and that each sequence of a session is accepted once.
 */
import type { Redis } from 'ioredis';
import { limits } from '../../protocol.ts';

/** Runs with these keys and arguments, and nothing before them. */
export type BareScript = (keys: readonly string[], args: readonly (string | number)[]) => Promise<unknown>;

/** Somebody who enters a room sees what was said there last, even when that is a while ago. */
const roomMs = 3_600_000;
const busLength = 20_000;
/**
 * Messages of one room that Redis keeps, for players whom no server's ring serves any more. A slow reader who was
 * disconnected has missed a whole queue of messages, and what was said until they came back.
 */
const keptMessages = 4 * limits.replayMessages;
const sharedArgs = 3;

/**
 * Stands before every script of the bus.
 * KEYS epoch, bus, offsets; ARGV epoch, prefix of the rooms' streams, resume window. Then the script's own.
 */
export const preamble = `
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {'epoch'} end
local function append(room, body)
  local offset = redis.call('HINCRBY', KEYS[3], room, 1)
  local stream = ARGV[2] .. room
  redis.call('XADD', stream, 'MAXLEN', '~', ${keptMessages}, offset .. '-0', 'v', 1, 'b', body)
  redis.call('PEXPIRE', stream, ${roomMs})
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ${busLength}, '*', 'v', 1, 'e', ARGV[1], 'r', room, 'o', offset, 'b', body)
  return offset
end
`;

/** KEYS sequence; ARGV room, seq (0: of no session), newest known, body ('': sequence only). */
export const publishLua = `
local seq = tonumber(ARGV[5])
if seq > 0 then
  -- A Redis that lost its last moments may know a lower sequence than was acknowledged. Nobody could fill that gap.
  local last = math.max(tonumber(redis.call('GET', KEYS[4]) or 0), tonumber(ARGV[6]))
  if seq <= last then return {'duplicate', last} end
  if seq > last + 1 then return {'gap', last + 1} end
  redis.call('SET', KEYS[4], seq, 'PX', ARGV[3])
end
if ARGV[7] == '' then return {'taken', 0} end
return {'taken', append(ARGV[4], ARGV[7])}
`;

/** KEYS epoch; ARGV a new epoch. @returns the epoch that Redis has, which is the new one when it had none */
export const claimLua = `redis.call('SET', KEYS[1], ARGV[1], 'NX') return redis.call('GET', KEYS[1])`;

/** KEYS epoch; ARGV the epoch to replace, a new one. @returns the epoch that Redis has then */
export const renewLua = `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) end
return redis.call('GET', KEYS[1])
`;

/** How a script of the bus names the n-th of its own arguments. */
export const ownArg = (n: number) => `ARGV[${sharedArgs + n}]`;

export function defineScript(redis: Redis, name: string, text: string): BareScript {
  redis.defineCommand(name, { lua: text });
  const run = (redis as unknown as Record<string, (...args: (string | number)[]) => Promise<unknown>>)[name];
  return (keys, args) => {
    if (run === undefined) throw new Error(`redis has no ${name}`);
    return run.call(redis, keys.length, ...keys, ...args);
  };
}
