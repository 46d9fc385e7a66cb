import { expect, it } from 'vitest';
import { namesOf } from '../../../src/contract.ts';
import type { Engine } from '../../../src/engine/port.ts';
import { ensureAccessories } from '../../../src/foundation/ensure.ts';
import { memoryEngine, type Program } from '../../support/memory/memory-engine.ts';

const project = 'arena';
const { redis } = namesOf(project);
const endsAfterMs = 400;

/** A Redis that takes a moment to end, and answers no health check from the moment on that it was told to. */
function slowRedis({ exitsAtBoot }: { exitsAtBoot: boolean }): Program {
  return {
    onRun: () => ({ exitCode: 0, stdout: '999\n999\n', stderr: '' }),
    onStart(self) {
      if (exitsAtBoot && self.container.run > 1) self.after(10, 'end');
    },
    onSignal(self) {
      self.container.memory.ending = true;
      self.after(endsAfterMs, 'end');
    },
    onTimer(self) {
      self.container.stoppedByHand = true;
      self.exit(0);
    },
    onExec(self, [program]) {
      const isFine = program === 'cat' || self.container.memory.ending !== true;
      return { exitCode: isFine ? 0 : 1, stdout: program === 'cat' ? 'secret' : '', stderr: '' };
    },
  };
}

async function running({ exitsAtBoot = false } = {}) {
  const memory = memoryEngine({ images: { redis: {} }, programs: () => slowRedis({ exitsAtBoot }) });
  // The engine's time passes with each look at it.
  const engine: Engine = {
    ...memory.engine,
    async observe(...asked) {
      memory.advance(100);
      return memory.engine.observe(...asked);
    },
  };
  await engine.ensureNetwork(project);
  const ensure = () =>
    ensureAccessories(
      engine,
      {
        project,
        settings: { REDIS_URL: 'redis://:secret@redis:6379' },
        owned: { postgres: 'external', redis: 'managed' },
        images: { postgres: 'postgres', redis: 'redis' },
        replicas: 1,
      },
      () => undefined,
    );
  await ensure();
  return { memory, engine, ensure };
}

const stateOf = async (engine: Engine) =>
  (await engine.observe(project)).find(({ name }) => name === redis)?.state;

it('an accessory that is being stopped is waited for and started, though the engine still calls it healthy', async () => {
  const { memory, engine, ensure } = await running();
  await engine.signal(project, redis, 'SIGTERM');
  expect(await engine.observe(project)).toMatchObject([{ name: redis, state: 'running', health: 'healthy' }]);
  await ensure();
  memory.advance(10 * endsAfterMs);
  expect(await stateOf(engine)).toBe('running');
});

it('an accessory that is started after its stop and exits again is refused with its state', async () => {
  const { engine, ensure } = await running({ exitsAtBoot: true });
  await engine.signal(project, redis, 'SIGTERM');
  await expect(ensure()).rejects.toMatchObject({ code: 'ACCESSORY_NOT_READY', facts: { state: 'exited' } });
});

it('an accessory that runs is neither started nor made again', async () => {
  const { engine, ensure } = await running();
  const before = await engine.observe(project);
  await ensure();
  expect(await engine.observe(project)).toEqual(before);
});
