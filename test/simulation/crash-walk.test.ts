/**
 * The crash walk: a gameops process dies before every change it would make; the next one recovers; then that one dies
 * before every change of its recovery. Exhaustive, not random: plans are short. After each death and at each change the
 * promises below are looked at; at the end the world must plan to nothing.
 */
import { afterAll, describe, expect, it } from 'vitest';
import { isOpsError } from '../../src/errors.ts';
import { loadTemplates, templatesName } from '../../src/proxy/templates.ts';
import type { Intent, Release, SchemaWish } from '../../src/release/model.ts';
import { planAct, planBackOut, planHandBack, planResume } from '../../src/release/plan.ts';
import { canHandBack } from '../../src/runner/gate.ts';
import { fixedAddress, type MemoryEngine, type MemoryState } from '../support/memory/memory-engine.ts';
import {
  answers,
  type Behaviour,
  gameContainers,
  reachedAt,
  runVerb,
  schemaIn,
  servedTargets,
  simulation,
  type Verb,
} from '../support/memory/simulation.ts';
import { intent, release } from '../support/memory/worlds.ts';

const behaviours: Record<string, Behaviour> = {
  'game:good': 'good',
  'game:next': 'good',
  'game:exits': 'exits',
  'game:never-ready': 'never-ready',
  'game:no-join': 'no-join',
  'game:crashes-later': 'crashes-later',
};

const templates = templatesName(loadTemplates());

class Died extends Error {}

const resume: Verb = { plan: (_session, world) => planResume(world) };
const abort: Verb = {
  plan: async (act, world) =>
    (await canHandBack(act, world))
      ? planHandBack(world, 'abort by ada')
      : planBackOut(world, { verdict: 'abandoned', reason: 'abort by ada' }),
};

function deploy(image: string, change: Partial<Intent> = {}, replicas = 2): Verb {
  return {
    plan(act, world) {
      const id = Math.max(0, ...act.record.releases.map((one) => one.id)) + 1;
      const candidate: Release = {
        ...release(id, 'candidate', replicas),
        image,
        imageRef: image,
        page: null,
        proxy: { domain: null, templates },
        fingerprint: `print-${image}`,
      };
      const asked = intent(id, { watchMs: 3_000, drainMs: 30_000, readyMs: 5_000, ...change });
      return planAct(world, asked, { candidate, cause: 'asked', again: false });
    },
  };
}

/** The image game:next needs both of them. */
const migrations = ['7_rank', '8_clan'];
const withMigrations = (verb: Verb): Verb => ({ ...verb, migrations });

/** Traffic to release 1, then the schema. */
const rollbackWith = (schema: SchemaWish): Verb => ({
  plan(act, world) {
    const target = act.record.releases.find((one) => one.id === 1);
    if (!target) throw new Error('release 1 is gone');
    const back = intent(1, { verb: 'rollback', watchMs: 0, drainMs: 30_000, schema });
    return planAct(world, back, {
      candidate: { ...target, verdict: 'candidate' },
      cause: 'asked',
      again: true,
    });
  },
});
const rollbackWithSchema = rollbackWith({
  kind: 'take-back',
  migrations: [...migrations].reverse(),
  acceptLoss: true,
});

/** As the command does: what is still to be taken back is pending for who comes after it. */
const deployOver: Verb = {
  migrations,
  plan(act, world) {
    const goes = world.schema.wish?.kind === 'take-back' ? world.schema.wish.migrations : [];
    const pending = migrations.filter((name) => world.schema.pending.includes(name) || goes.includes(name));
    return deploy('game:next').plan(act, { ...world, schema: { ...world.schema, pending } });
  },
};

const rollback: Verb = {
  plan(act, world) {
    const target = act.record.releases.find((one) => one.id === 1);
    if (!target) throw new Error('release 1 is gone');
    const back = intent(1, { verb: 'rollback', watchMs: 0, drainMs: 30_000 });
    return planAct(world, back, {
      candidate: { ...target, verdict: 'candidate' },
      cause: 'asked',
      again: true,
    });
  },
};

/** Looks at the world before every change. Broken promises are collected, so that one run shows them all. */
function promises(
  memory: MemoryEngine,
  limits: { running: number; hadTraffic: boolean; mayBreak: boolean; needy: string[] },
) {
  const broken: string[] = [];
  const leftAt = new Map<string, number>();
  let served = addressesServed(memory.state);
  let lookedAtMs = memory.state.nowMs;
  return {
    broken,
    look(effect: string) {
      const { state } = memory;
      const now = addressesServed(state);
      // What is gone now went with the change before this one.
      for (const address of served) if (!now.has(address)) leftAt.set(address, lookedAtMs);
      served = now;
      lookedAtMs = state.nowMs;
      const running = gameContainers(state).filter((one) => one.state === 'running').length;
      if (running > limits.running) broken.push(`${running} replicas run before: ${effect}`);
      if (limits.hadTraffic && served.size === 0) broken.push(`nobody is served before: ${effect}`);
      const { applied, backups, restores } = schemaIn(state);
      if (restores.length > 1) broken.push(`restored ${restores.length} times before: ${effect}`);
      const needy = gameContainers(state).filter(
        (one) => one.state === 'running' && limits.needy.includes(one.spec.image),
      );
      if (needy.length > 0 && applied.length < migrations.length)
        broken.push(`runs on ${applied.join() || 'no migrations'} before: ${effect}`);
      if (applied.length > 0 && backups === 0) broken.push(`migrated without a backup, before: ${effect}`);
      const dead = servedTargets(state).filter((target) => !answers(reachedAt(state, target)));
      if (dead.length > 0 && !limits.mayBreak)
        broken.push(`traffic goes to ${JSON.stringify(dead)} which does not answer, before: ${effect}`);
      const stopped = /^(?:signal|stop) (\S+)/.exec(effect)?.[1];
      const container = stopped === undefined ? undefined : state.containers.get(stopped);
      const address = container && fixedAddress(container);
      if (!container || !address || container.state !== 'running') return;
      if (served.has(address) && container.memory.ready) broken.push(`stops what is served: ${effect}`);
      const left = leftAt.get(address);
      if (left !== undefined && state.nowMs - left < 5_000)
        broken.push(`stops a replica ${state.nowMs - left} ms after its last route: ${effect}`);
    },
  };
}

const addressesServed = (state: MemoryState) => new Set(servedTargets(state).map((target) => target.address));

interface Scenario {
  name: string;
  /** What is done before, undisturbed. */
  before: Verb[];
  verb: Verb;
  recovery: Verb;
  /** Most replicas that may ever run at once. */
  running: number;
  /** Releases that may be live at the end. */
  live: (number | null)[];
  /** Migrations that are applied at the end, by the release that is live then. */
  schema?: Record<number, string[]>;
  /** The candidate itself is broken: traffic may meet it before the watch finds out. */
  mayBreak?: boolean;
}

const firstDeploy = deploy('game:good');
const scenarios: Scenario[] = [
  { name: 'a first deploy', before: [], verb: firstDeploy, recovery: firstDeploy, running: 2, live: [1, 2] },
  {
    name: 'a blue-green deploy, resumed',
    before: [firstDeploy],
    verb: deploy('game:next'),
    recovery: resume,
    running: 4,
    live: [1, 2],
  },
  {
    name: 'a blue-green deploy, deployed again',
    before: [firstDeploy],
    verb: deploy('game:next'),
    recovery: deploy('game:next'),
    running: 4,
    live: [2, 3],
  },
  {
    name: 'a blue-green deploy without a watch',
    before: [firstDeploy],
    verb: deploy('game:next', { watchMs: 0 }),
    recovery: resume,
    running: 4,
    live: [1, 2],
  },
  {
    name: 'a rolling deploy',
    before: [deploy('game:good', {}, 4)],
    verb: deploy('game:next', { strategy: 'rolling' }, 4),
    recovery: resume,
    running: 5,
    live: [1, 2],
  },
  {
    name: 'a rolling deploy that is given up',
    before: [deploy('game:good', {}, 4)],
    verb: deploy('game:next', { strategy: 'rolling' }, 4),
    recovery: abort,
    running: 5,
    live: [1, 2],
  },
  {
    name: 'a rollback',
    before: [firstDeploy, deploy('game:next')],
    verb: rollback,
    recovery: resume,
    running: 4,
    live: [1, 2],
  },
  {
    name: 'a deploy with migrations',
    before: [firstDeploy],
    verb: withMigrations(deploy('game:next')),
    recovery: withMigrations(resume),
    running: 4,
    live: [1, 2],
    schema: { 2: migrations },
  },
  {
    name: 'a deploy with migrations, deployed again',
    before: [firstDeploy],
    verb: withMigrations(deploy('game:next')),
    recovery: withMigrations(deploy('game:next')),
    running: 4,
    live: [2, 3],
    schema: { 2: migrations, 3: migrations },
  },
  {
    name: 'a rollback with its schema',
    before: [firstDeploy, withMigrations(deploy('game:next'))],
    verb: rollbackWithSchema,
    recovery: resume,
    running: 4,
    live: [1, 2],
    schema: { 1: [], 2: migrations },
  },
  {
    name: 'a rollback that restores a backup',
    before: [firstDeploy, withMigrations(deploy('game:next'))],
    verb: rollbackWith({ kind: 'restore', backup: 'backup-2' }),
    recovery: resume,
    running: 4,
    live: [1, 2],
    schema: { 1: [], 2: migrations },
  },
  {
    name: 'a rollback with its schema, deployed over',
    before: [firstDeploy, withMigrations(deploy('game:next'))],
    verb: rollbackWithSchema,
    recovery: deployOver,
    running: 4,
    live: [1, 2, 3],
    schema: { 1: [], 2: migrations, 3: migrations },
  },
  {
    name: 'a deploy that is given up',
    before: [firstDeploy],
    verb: deploy('game:next'),
    recovery: abort,
    running: 4,
    live: [1, 2],
  },
  {
    name: 'a rollback that is given up',
    before: [firstDeploy, deploy('game:next')],
    verb: rollback,
    recovery: abort,
    running: 4,
    live: [1, 2],
  },
  {
    name: 'a release that exits at boot',
    before: [firstDeploy],
    verb: deploy('game:exits'),
    recovery: resume,
    running: 4,
    live: [1],
  },
  {
    name: 'a release that is never ready',
    before: [firstDeploy],
    verb: deploy('game:never-ready'),
    recovery: resume,
    running: 4,
    live: [1],
  },
  {
    name: 'a release that refuses joins',
    before: [firstDeploy],
    verb: deploy('game:no-join'),
    recovery: resume,
    running: 4,
    live: [1],
  },
  {
    name: 'a release that crashes in its watch',
    before: [firstDeploy],
    verb: deploy('game:crashes-later'),
    recovery: resume,
    running: 4,
    live: [1],
    mayBreak: true,
  },
  {
    name: 'a rolling release that crashes in its watch',
    before: [deploy('game:good', {}, 4)],
    verb: deploy('game:crashes-later', { strategy: 'rolling' }, 4),
    recovery: resume,
    running: 5,
    live: [1],
    mayBreak: true,
  },
  {
    name: 'a first deploy that exits at boot',
    before: [],
    verb: deploy('game:exits'),
    recovery: resume,
    running: 2,
    live: [null],
  },
];

let cases = 0;
afterAll(() => console.log(`crash walk: ${cases} cases`));

/** Runs a verb that dies before its `at`-th change. @returns whether it died, and how many changes it began */
async function runUntil(memory: MemoryEngine, verb: Verb, at: number, look: (effect: string) => void) {
  let count = 0;
  let died = false;
  const process = memory.process((effect) => {
    look(effect);
    count += 1;
    if (count < at) return;
    died = true;
    throw new Died(effect);
  });
  try {
    await runVerb(memory, process.engine, behaviours, verb);
  } catch (error) {
    if (!died && !isOpsError(error)) throw error;
  }
  return { died, count };
}

async function settle(memory: MemoryEngine, scenario: Scenario, look: (effect: string) => void) {
  await runUntil(memory, scenario.recovery, Infinity, look);
  // A candidate that was opened but not begun may have its failure still ahead of it.
  await runUntil(memory, resume, Infinity, look);
}

async function problemsAtEnd(memory: MemoryEngine, scenario: Scenario): Promise<string[]> {
  const problems: string[] = [];
  let steps: string[] = ['not planned'];
  let live: number | null = null;
  await runVerb(memory, memory.engine, behaviours, {
    plan(act, world) {
      const plan = planResume(world);
      steps = plan.steps.map((step) => step.kind);
      live = act.record.releases.find((one) => one.verdict === 'live')?.id ?? null;
      return { ...plan, steps: [] };
    },
  }).catch((error) => problems.push(`planning at the end: ${error}`));
  if (steps.length > 0) problems.push(`the end still wants ${steps.join()}`);
  if (!scenario.live.includes(live)) problems.push(`release ${live} is live at the end`);
  const { applied } = schemaIn(memory.state);
  const wanted = scenario.schema?.[live ?? 0] ?? applied;
  if (wanted.join() !== applied.join())
    problems.push(`with ${live} live, ${applied.join() || 'nothing'} is applied`);
  const served = addressesServed(memory.state);
  const running = gameContainers(memory.state).filter((one) => one.state === 'running');
  if (running.length !== served.size)
    problems.push(`${running.length} replicas run, ${served.size} are served`);
  if (servedTargets(memory.state).some((target) => !answers(reachedAt(memory.state, target))))
    problems.push('a served replica does not answer');
  if (memory.state.locks.size > 0) problems.push('the lock is still held');
  const strays = [...memory.state.containers.values()].filter((one) =>
    ['one-off', 'lock'].includes(one.spec.role),
  );
  if (strays.length > 0) problems.push(`stray ${strays.map((one) => one.spec.name).join()}`);
  return problems;
}

async function prepared(scenario: Scenario): Promise<MemoryEngine> {
  const memory = await simulation(behaviours);
  for (const verb of scenario.before) await runVerb(memory, memory.engine, behaviours, verb);
  return memory;
}

describe.each(scenarios)('dying anywhere in $name', (scenario) => {
  it('never leaves players without a ready fleet, and the next command recovers', async () => {
    const memory = await prepared(scenario);
    const start = memory.snapshot();
    const limits = {
      running: scenario.running,
      hadTraffic: scenario.before.length > 0,
      mayBreak: scenario.mayBreak === true,
      needy: scenario.verb.migrations || scenario.schema ? ['game:next'] : [],
    };
    const found: string[] = [];
    const judge = async (where: string, broken: readonly string[]) => {
      cases += 1;
      const problems = [...broken, ...(await problemsAtEnd(memory, scenario))];
      found.push(...problems.map((problem) => `${where}: ${problem}`));
    };
    for (let first = 1; found.length < 20; first++) {
      memory.restore(start);
      const seen = promises(memory, limits);
      const death = await runUntil(memory, scenario.verb, first, seen.look);
      const left = memory.snapshot();
      await settle(memory, scenario, seen.look);
      await judge(`died at ${first}`, seen.broken);
      if (!death.died) break;
      for (let second = 1; found.length < 20; second++) {
        memory.restore(left);
        const again = promises(memory, limits);
        const inRecovery = await runUntil(memory, scenario.recovery, second, again.look);
        if (!inRecovery.died) break;
        await settle(memory, scenario, again.look);
        await judge(`died at ${first}, then at ${second} of the recovery`, again.broken);
      }
    }
    expect(found).toEqual([]);
  });
});
