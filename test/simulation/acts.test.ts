/** Whole acts in memory that are no crash: what others did to the engine in the meantime. */
import { expect, it } from 'vitest';
import { planAct, planResume } from '../../src/release/plan.ts';
import {
  answers,
  containerAt,
  gameContainers,
  project,
  runVerb,
  servedTargets,
  simulation,
  type Verb,
} from '../support/simulation.ts';
import { intent, release } from '../support/worlds.ts';

const deploy: Verb = {
  plan: (_session, world) =>
    planAct(world, intent(1, { watchMs: 1_000 }), {
      candidate: { ...release(1, 'candidate'), image: 'game:good', page: null },
      cause: 'asked',
      again: false,
    }),
};
const resume: Verb = { plan: (_session, world) => planResume(world) };

it('replicas that somebody removed come back, and Nginx is told their new addresses', async () => {
  const memory = await simulation({ 'game:good': 'good' });
  await runVerb(memory, memory.engine, {}, deploy);
  for (const container of gameContainers(memory.state))
    await memory.engine.removeContainer(project, container.spec.name);
  await runVerb(memory, memory.engine, {}, resume);
  expect(servedTargets(memory.state)).toHaveLength(2);
  for (const { address } of servedTargets(memory.state))
    expect(answers(containerAt(memory.state, address))).toBe(true);
});

it('one dead replica of the live release is brought back by resume, and the other keeps serving', async () => {
  const memory = await simulation({ 'game:good': 'good' });
  await runVerb(memory, memory.engine, {}, deploy);
  await memory.engine.retireFleet(project, 1, [2], 'stopped', 1_000);
  await runVerb(memory, memory.engine, {}, resume);
  expect(gameContainers(memory.state).map(answers)).toEqual([true, true]);
});
