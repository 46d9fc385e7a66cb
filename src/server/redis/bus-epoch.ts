/**
 * The epoch: the name of Redis' memory. Promises that a Redis which has forgotten is noticed before anything is said
 * on top of what it lost, and that every server then takes over the same new epoch.
 */
import { randomBytes } from 'node:crypto';
import { judgeContinuity } from './bus-continuity.ts';
import { idOf } from './bus-entry.ts';
import type { BusState } from './bus-state.ts';

const newEpoch = () => randomBytes(6).toString('hex');

/** After every reconnect: whether this is still the Redis that was read before. */
export async function verify(bus: BusState): Promise<void> {
  const { keys, commands } = bus;
  await claim(bus);
  const read = bus.lastId;
  if (read === null) return;
  const [same, oldest, newest] = await Promise.all([
    commands.xrange(keys.bus, read, read),
    commands.xrange(keys.bus, '-', '+', 'COUNT', 1),
    commands.xrevrange(keys.bus, '+', '-', 'COUNT', 1),
  ]);
  const seen = { read, has: same.length > 0, oldest: idOf(oldest[0]), newest: idOf(newest[0]) };
  const judged = judgeContinuity(seen);
  if (judged === 'lost') await renew(bus);
  if (judged === 'missed') bus.onBreak('missed');
}

/** Takes over the epoch that Redis has, or gives it one. */
async function claim(bus: BusState): Promise<void> {
  adopt(bus, String(await bus.claim([bus.keys.epoch], [newEpoch()])));
}

/** Another server speaks in another epoch: asks Redis once more. A Redis that is away is asked at its reconnect. */
export async function askAgain(bus: BusState): Promise<void> {
  await claim(bus).catch(() => undefined);
}

/** Ends this epoch for everybody, unless another server has done so already. */
export async function renew(bus: BusState): Promise<void> {
  adopt(bus, String(await bus.replace([bus.keys.epoch], [bus.epoch, newEpoch()])));
}

function adopt(bus: BusState, found: string): void {
  const before = bus.epoch;
  if (found === before) return;
  bus.epoch = found;
  if (before === '') return;
  bus.log.warn({ before, epoch: found }, 'redis has lost its data: all players begin anew');
  bus.lastId = null;
  bus.beginning = '0-0';
  bus.onBreak('epoch');
}
