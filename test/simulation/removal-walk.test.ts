/** The crash walk of the verbs that remove: die before any change, run it again, and nothing is left half. */
import { describe, expect, it } from 'vitest';
import { run as down } from '../../src/commands/down.ts';
import { run as prune } from '../../src/commands/prune.ts';
import { defaultConfig } from '../../src/config.ts';
import type { Engine } from '../../src/engine/port.ts';
import { OpsError } from '../../src/errors.ts';
import type { Context } from '../../src/operations/context.ts';
import { planAct } from '../../src/release/plan.ts';
import type { MemoryEngine } from '../support/memory/memory-engine.ts';
import {
  answers,
  gameContainers,
  project,
  runVerb,
  servedTargets,
  simulation,
} from '../support/memory/simulation.ts';
import { intent, release } from '../support/memory/worlds.ts';

/** What the removing verbs ask of their context; they read no .env. */
function contextOf(engine: Engine): Context {
  const context = {
    verb: 'down',
    project,
    config: defaultConfig(),
    yes: true,
    emit: () => undefined,
    operator: 'ada@lab',
    host: 'lab',
    readEnv: () => {
      throw new OpsError('ENV_MISSING', { message: 'no .env here', next: ['gameops init'] });
    },
    engine: async () => engine,
  };
  return context as unknown as Context;
}

async function fourReleases(): Promise<MemoryEngine> {
  const memory = await simulation({ game: 'good' });
  for (const id of [1, 2, 3, 4]) {
    await runVerb(
      memory,
      memory.engine,
      {},
      {
        plan: (_session, world) =>
          planAct(world, intent(id, { watchMs: 0, keep: 9 }), {
            candidate: { ...release(id, 'candidate'), image: 'game', page: null },
            cause: 'asked',
            again: true,
          }),
      },
    );
  }
  return memory;
}

/** Dies before the `at`-th change. @returns whether it did */
async function dieAt(
  memory: MemoryEngine,
  at: number,
  act: (context: Context) => Promise<unknown>,
): Promise<boolean> {
  let count = 0;
  const process = memory.process(() => {
    count += 1;
    if (count >= at) throw new Error('died');
  });
  return act(contextOf(process.engine)).then(
    () => false,
    () => count >= at,
  );
}

async function walk(
  act: (context: Context) => Promise<unknown>,
  judge: (memory: MemoryEngine) => void,
): Promise<number> {
  const memory = await fourReleases();
  const start = memory.snapshot();
  for (let at = 1; ; at++) {
    memory.restore(start);
    const died = await dieAt(memory, at, act);
    await act(contextOf(memory.engine));
    judge(memory);
    if (!died) return at;
  }
}

describe('killed before any of its changes', () => {
  it('down is completed by the next down, which leaves only the volumes of the project', async () => {
    const cases = await walk(
      (context) => down(context, {}),
      ({ state }) => {
        expect([...state.containers.keys()]).toEqual([]);
        expect(state.networks.size).toBe(0);
        expect(state.volumes.size).toBeGreaterThan(0);
      },
    );
    expect(cases).toBeGreaterThan(8);
  });

  it('down --volumes is completed by the next one, which leaves nothing', async () => {
    await walk(
      (context) => down(context, { volumes: true }),
      ({ state }) =>
        expect([...state.containers.keys(), ...state.volumes.keys(), ...state.networks.keys()]).toEqual([]),
    );
  });

  it('prune leaves the live release serving and the newest kept releases in place', async () => {
    await walk(
      (context) => prune(context, { keep: 1 }),
      (memory) => {
        const kept = new Set(gameContainers(memory.state).map((one) => one.labels['gameops.release']));
        expect([...kept].sort()).toEqual(['3', '4']);
        expect(servedTargets(memory.state).map((target) => target.release)).toEqual([4, 4]);
        expect(gameContainers(memory.state).filter(answers)).toHaveLength(2);
      },
    );
  });
});

describe('a project that another operator is changing', () => {
  it('is not removed by down --volumes, also when it has only volumes so far', async () => {
    const memory = await fourReleases();
    const config = { ...defaultConfig(), images: { ...defaultConfig().images, nginx: 'nginx' } };
    const context = { ...contextOf(memory.engine), config };
    await down(context, {});
    const volumes = [...memory.state.volumes.keys()];
    const lock = await memory.engine.lock(project, 'nginx', {
      holder: 'bob@desk',
      host: 'desk',
      verb: 'deploy',
      since: '',
    });
    await expect(down(context, { volumes: true })).rejects.toMatchObject({ code: 'LOCKED' });
    expect([...memory.state.volumes.keys()]).toEqual(volumes);
    await lock.release();
  });
});
