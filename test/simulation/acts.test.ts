/** Whole acts in memory that are no crash: what others did to the engine in the meantime. */
import { describe, expect, it } from 'vitest';
import { namesOf } from '../../src/contract.ts';
import type { Context } from '../../src/operations/context.ts';
import { withProjectLock } from '../../src/operations/project.ts';
import type { SchemaWish } from '../../src/release/model.ts';
import { planAct, planResume, planStay, withNewestWish } from '../../src/release/plan.ts';
import { setWish } from '../../src/runner/act.ts';
import type { MemoryEngine } from '../support/memory/memory-engine.ts';
import {
  answers,
  gameContainers,
  project,
  reachedAt,
  runVerb,
  schemaIn,
  servedTargets,
  simulation,
  startNginx,
  type Verb,
} from '../support/memory/simulation.ts';
import { intent, release } from '../support/memory/worlds.ts';

const deploy: Verb = {
  plan: (_session, world) =>
    planAct(world, intent(1, { watchMs: 1_000 }), {
      candidate: { ...release(1, 'candidate'), image: 'game:good', page: null },
      cause: 'asked',
      again: false,
    }),
};
const resume: Verb = { plan: (_session, world) => planResume(world) };

it('resume starts removed replicas again and gives Nginx their new addresses', async () => {
  const memory = await simulation({ 'game:good': 'good' });
  await runVerb(memory, memory.engine, {}, deploy);
  for (const container of gameContainers(memory.state))
    await memory.engine.removeContainer(project, container.spec.name);
  await runVerb(memory, memory.engine, {}, resume);
  expect(servedTargets(memory.state)).toHaveLength(2);
  for (const target of servedTargets(memory.state))
    expect(answers(reachedAt(memory.state, target))).toBe(true);
});

it('a release that crashes at any moment of its watch fails the watch with its exit code', async () => {
  const behaviours = { 'game:crashes': 'crashes-later' } as const;
  const ends: string[] = [];
  for (let watchMs = 1_000; watchMs <= 2_600; watchMs += 20) {
    const memory = await simulation(behaviours);
    const verb: Verb = {
      plan: (_session, world) =>
        planAct(world, intent(1, { watchMs }), {
          candidate: { ...release(1, 'candidate'), image: 'game:crashes', page: null },
          cause: 'asked',
          again: false,
        }),
    };
    const end = await runVerb(memory, memory.engine, behaviours, verb).then(
      () => 'passed',
      (error: { code?: string }) => error.code ?? String(error),
    );
    if (end === 'passed')
      expect(gameContainers(memory.state).map(({ state }) => state)).toEqual(['running', 'running']);
    ends.push(end);
  }
  expect(new Set(ends)).toEqual(new Set(['passed', 'REPLICA_EXITED']));
});

describe('Unix sockets', () => {
  const deployOf = (id: number): Verb => ({
    plan: (_session, world) =>
      planAct(world, intent(id, { watchMs: 1_000 }), {
        candidate: { ...release(id, 'candidate'), image: 'game:good', page: null },
        cause: 'asked',
        again: false,
      }),
  });
  const remadeNginx = async (memory: MemoryEngine, unixSockets: boolean) => {
    await memory.engine.removeContainer(project, namesOf(project).proxy);
    await startNginx(memory, { unixSockets });
  };
  const served = ({ state }: MemoryEngine) => {
    const targets = servedTargets(state);
    expect(targets.map((target) => answers(reachedAt(state, target)))).toEqual([true, true]);
    return targets.map(({ unixSocket }) => unixSocket !== null);
  };

  it('are used where Nginx has them', async () => {
    const memory = await simulation({ 'game:good': 'good' });
    await runVerb(memory, memory.engine, {}, deployOf(1));
    expect(served(memory)).toEqual([true, true]);
  });

  it('are not used by an Nginx that was made without them, whatever the image says', async () => {
    const memory = await simulation({ 'game:good': 'good' });
    await remadeNginx(memory, false);
    await runVerb(memory, memory.engine, {}, deployOf(1));
    expect(served(memory)).toEqual([false, false]);
  });

  it('are replaced by addresses when Nginx was made again without them', async () => {
    const memory = await simulation({ 'game:good': 'good' });
    await runVerb(memory, memory.engine, {}, deployOf(1));
    await remadeNginx(memory, false);
    await runVerb(memory, memory.engine, {}, resume);
    expect(served(memory)).toEqual([false, false]);
  });

  it('are used from the next release on when Nginx was made again with them, not for servers that do not listen on them', async () => {
    const memory = await simulation({ 'game:good': 'good' });
    await remadeNginx(memory, false);
    await runVerb(memory, memory.engine, {}, deployOf(1));
    await remadeNginx(memory, true);
    await runVerb(memory, memory.engine, {}, resume);
    expect(served(memory)).toEqual([false, false]);
    await runVerb(memory, memory.engine, {}, deployOf(2));
    expect(served(memory)).toEqual([true, true]);
  });
});

it('resume starts a dead replica of the live release again while the other one keeps serving', async () => {
  const memory = await simulation({ 'game:good': 'good' });
  await runVerb(memory, memory.engine, {}, deploy);
  await memory.engine.retireFleet({ project, release: 1, replicas: [2] }, 'stopped', 1_000);
  await runVerb(memory, memory.engine, {}, resume);
  expect(gameContainers(memory.state).map(answers)).toEqual([true, true]);
});

it('a db verb that changes the schema gets a signal when the lock is lost', async () => {
  const { engine } = await simulation();
  const context = { project, engine: async () => engine, signal: new AbortController().signal };
  await withProjectLock(context as unknown as Context, async (_engine, signal) => {
    expect(signal.aborted).toBe(false);
    await engine.removeContainer(project, namesOf(project).lock);
    expect(signal.reason).toMatchObject({ code: 'LOCK_LOST' });
  });
});

it('the migrations of a deploy get a signal when the lock is lost', async () => {
  const memory = await simulation({ 'game:good': 'good' });
  const losing: Verb = {
    migrations: ['1_a'],
    plan: (act, world) => {
      const { database } = act.outside;
      act.outside.database = {
        ...database,
        migrate: async (_names, _release, signal) => {
          await memory.engine.removeContainer(project, namesOf(project).lock);
          signal.throwIfAborted();
        },
      };
      return deploy.plan(act, world);
    },
  };
  await expect(runVerb(memory, memory.engine, {}, losing)).rejects.toMatchObject({ code: 'LOCK_LOST' });
  expect(gameContainers(memory.state)).toEqual([]);
});

/** As the command does: to release 1, with what is asked now; ends after `count` steps as one that was interrupted. */
const rollback = (schema: SchemaWish | null, count = Number.POSITIVE_INFINITY): Verb => ({
  migrations: ['7_rank'],
  async plan(act, world) {
    const asked = withNewestWish(world, 1, schema);
    if (asked.intent && asked.intent !== world.intent) await setWish(act, asked.intent.schema);
    const target = act.record.releases.find(({ id }) => id === 1);
    if (!target) throw new Error('release 1 is gone');
    const startedAt = new Date(act.outside.clock.now()).toISOString();
    const back = intent(1, { verb: 'rollback', watchMs: 0, schema, startedAt });
    const opening = { candidate: { ...target, verdict: 'candidate' as const }, cause: 'asked', again: true };
    const plan = target.verdict === 'live' ? planStay(asked, schema, 2) : planAct(asked, back, opening);
    return { ...plan, steps: plan.steps.slice(0, count) };
  },
});
const restore: SchemaWish = { kind: 'restore', backup: 'backup-2' };
const takeBack: SchemaWish = { kind: 'take-back', migrations: ['7_rank'], acceptLoss: true };

async function onTwoReleases(): Promise<MemoryEngine> {
  const memory = await simulation({ 'game:good': 'good', 'game:next': 'good' });
  await runVerb(memory, memory.engine, {}, deploy);
  const candidate = { ...release(2, 'candidate'), image: 'game:next', page: null };
  const next: Verb = {
    migrations: ['7_rank'],
    plan: (_session, world) =>
      planAct(world, intent(2, { watchMs: 0 }), { candidate, cause: 'asked', again: false }),
  };
  await runVerb(memory, memory.engine, {}, next);
  return memory;
}

// A step or a few before the switch; past the commit, before the schema.
describe.each([1, 3, 5, 7])('a rollback that was interrupted after %i steps', (count) => {
  const cases: { first: SchemaWish | null; later: SchemaWish | null; restores: number; applied: string[] }[] =
    [
      { first: restore, later: null, restores: 0, applied: ['7_rank'] },
      { first: takeBack, later: null, restores: 0, applied: ['7_rank'] },
      { first: null, later: takeBack, restores: 0, applied: [] },
      { first: null, later: restore, restores: 1, applied: [] },
      { first: takeBack, later: restore, restores: 1, applied: [] },
      { first: restore, later: takeBack, restores: 0, applied: [] },
      { first: restore, later: restore, restores: 1, applied: [] },
    ];
  it.each(cases)('does to the schema what was requested last: $first.kind, then $later.kind', async (one) => {
    const memory = await onTwoReleases();
    const cut = runVerb(memory, memory.engine, {}, rollback(one.first, count));
    await expect(cut).rejects.toMatchObject({ code: 'NOT_CONVERGED' });
    const { record } = await runVerb(memory, memory.engine, {}, rollback(one.later));
    expect(record.releases.find(({ verdict }) => verdict === 'live')?.id).toBe(1);
    expect(record.intent).toBeNull();
    const { applied, restores } = schemaIn(memory.state);
    expect({ applied, restores: restores.length }).toEqual({ applied: one.applied, restores: one.restores });
  });
});

it('resume carries out the schema wish that replaced an earlier one', async () => {
  const memory = await onTwoReleases();
  for (const [wish, count] of [
    [restore, 3],
    [null, 0],
  ] as const)
    await expect(runVerb(memory, memory.engine, {}, rollback(wish, count))).rejects.toThrow();
  await runVerb(memory, memory.engine, {}, resume);
  expect(schemaIn(memory.state)).toMatchObject({ restores: [], applied: ['7_rank'] });
});

it('a finished restore is not repeated for the same request, and does not count for another request', async () => {
  for (const [backup, times] of [
    ['backup-2', 1],
    ['backup-1', 2],
  ] as const) {
    const memory = await onTwoReleases();
    const cut = runVerb(memory, memory.engine, {}, rollback(restore, 9));
    await expect(cut).rejects.toMatchObject({ code: 'NOT_CONVERGED' });
    expect(schemaIn(memory.state).restores).toHaveLength(1);
    await runVerb(memory, memory.engine, {}, rollback({ kind: 'restore', backup }));
    expect(schemaIn(memory.state).restores).toHaveLength(times);
  }
});
