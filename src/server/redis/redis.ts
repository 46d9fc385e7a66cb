/**
 * The two connections to Redis: one for commands, one that does nothing but wait for the bus. Promises that a lost
 * Redis never ends the process nor queues without bound: a command then fails at once.
 */
import { type Command, Redis } from 'ioredis';
import type { Logger } from 'pino';

export interface Connections {
  commands: Redis;
  tail: Redis;
  close(): void;
}

export interface ConnectionsRequest {
  url: string;
  log: Logger;
  /** Both connections are up, after at least one of them was not. */
  onUp: () => void;
  onDown: () => void;
}

/** An answer that was lost with its connection is given up only then: a caller may hear of it long after later answers. */
export const commandTimeoutMs = 2_000;
/** A blocking read that has not come back by then never will: its connection is dead and nobody said so. */
const tailTimeoutMs = 5_000;

/**
 * Commands of one turn of the event loop leave in one write. The auto-pipelining of ioredis does that as well, but it
 * builds an object of all Redis commands for every batch, which for a single command costs as much as the command.
 */
class BatchingRedis extends Redis {
  private isCorked = false;

  override sendCommand(command: Command, into?: Parameters<Redis['sendCommand']>[1]): unknown {
    const { stream } = this;
    if (!this.isCorked && stream?.writable) {
      this.isCorked = true;
      stream.cork();
      setImmediate(() => {
        this.isCorked = false;
        stream.uncork();
      });
    }
    return super.sendCommand(command, into);
  }
}

export function connect({ url, log, onUp, onDown }: ConnectionsRequest): Connections {
  const isUp = { commands: false, tail: false };
  const note = (name: keyof typeof isUp, up: boolean) => {
    if (isUp[name] === up) return;
    const before = isUp.commands && isUp.tail;
    isUp[name] = up;
    log[up ? 'info' : 'warn']({ connection: name }, up ? 'redis connected' : 'redis lost');
    const after = isUp.commands && isUp.tail;
    if (after && !before) onUp();
    if (before && !after) onDown();
  };
  const open = (name: keyof typeof isUp, timeoutMs: number) => {
    const redis = new (name === 'commands' ? BatchingRedis : Redis)(url, {
      connectionName: `gameops-${name}`,
      // Bounded in time and space: a command that can't be sent now fails, instead of piling up until Redis is back.
      enableOfflineQueue: false,
      maxRetriesPerRequest: 1,
      autoResubscribe: false,
      // A command that was on its way when the connection broke is not sent twice: its caller decides.
      autoResendUnfulfilledCommands: false,
      connectTimeout: 2_000,
      commandTimeout: timeoutMs,
      retryStrategy: (attempt: number) => Math.min(50 * 2 ** Math.min(attempt, 6), 1_000),
    });
    redis.on('ready', () => note(name, true));
    redis.on('close', () => note(name, false));
    // Without a listener every failed attempt would be an uncaught 'error'. The close that follows says enough.
    redis.on('error', (error) => log.debug({ connection: name, reason: error.message }, 'redis error'));
    return redis;
  };
  const commands = open('commands', commandTimeoutMs);
  const tail = open('tail', tailTimeoutMs);
  return {
    commands,
    tail,
    close() {
      commands.disconnect();
      tail.disconnect();
    },
  };
}

/** For a command that may fail without anybody being worse off. */
export async function quietly(act: Promise<unknown>, log: Logger): Promise<void> {
  await act.catch((error: Error) => log.debug({ reason: error.message }, 'redis command failed'));
}
