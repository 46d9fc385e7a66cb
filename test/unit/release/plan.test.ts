/** The planners, as literal plan text: the same text that a person sees before a deploy. */
import { describe, expect, it } from 'vitest';
import {
  fleetBefore,
  planAct,
  planBackOut,
  planHandBack,
  planRepair,
  planResume,
  planStay,
  withNewestWish,
} from '../../../src/release/plan.ts';
import { apply, startPosition } from '../../../src/release/position.ts';
import { planText } from '../../../src/report/plan-text.ts';
import { fleet, intent, liveWorld, release, world } from '../../support/memory/worlds.ts';

const opening = { candidate: release(41, 'candidate'), cause: 'image changed', again: false };
const failed = { verdict: 'failed', reason: 'WATCH_FAILED', metPlayers: true, isUndrained: true } as const;
const text = (plan: Parameters<typeof planText>[0]) => `\n${planText(plan).replace(/ +$/gm, '')}\n`;
const kinds = (plan: { steps: readonly { kind: string }[] }) => plan.steps.map((step) => step.kind);

/** The world after the first `count` steps of a plan. */
function worldAfter(
  start: Parameters<typeof startPosition>[0],
  plan: ReturnType<typeof planAct>,
  count: number,
) {
  return plan.steps.slice(0, count).reduce(apply, startPosition(start)).world;
}

describe('a blue-green deploy', () => {
  it('starts, proves, switches, watches and commits before it drains the old fleet', () => {
    expect(text(planAct(liveWorld(), intent(41), opening))).toMatchInlineSnapshot(`
      "
       prepare  open            41          image changed
       prepare  start-fleet     41 ×2       no fleet for 41
       prepare  await-ready     41 ×2       HTTP ready, a WebSocket player can join
       switch   switch-traffic  40 → 41     41 is ready
       switch   watch           41, 30.0 s  probes through the public address before commitment
       settle   commit          41          point of no return; release 40 may be stopped
       settle   drain           40 ×2       214 players handed over, about 1 s, at most 300 s
       settle   retire          40 ×2       kept stopped for rollback
       settle   close           41          on record
      "
    `);
  });

  it('runs additive migrations before it starts the new fleet', () => {
    const schema = { pending: ['7_add_rank', '8_add_clan'], contracts: [], isFilled: false, wish: null };
    const plan = planAct(liveWorld({ schema }), intent(41), opening);
    expect(text(plan)).toMatchInlineSnapshot(`
      "
       prepare  open            41            image changed
       prepare  migrate         2 migrations  2 pending, additive
       prepare  start-fleet     41 ×2         no fleet for 41
       prepare  await-ready     41 ×2         HTTP ready, a WebSocket player can join
       switch   switch-traffic  40 → 41       41 is ready
       switch   watch           41, 30.0 s    probes through the public address before commitment
       settle   commit          41            point of no return; release 40 may be stopped
       settle   drain           40 ×2         214 players handed over, about 1 s, at most 300 s
       settle   retire          40 ×2         kept stopped for rollback
       settle   close           41            on record
      "
    `);
  });

  it('takes a backup before migrations, and no second one when it was interrupted in between', () => {
    const schema = { pending: ['7_add_rank'], contracts: [], isFilled: true, wish: null };
    const start = liveWorld({ schema });
    const plan = planAct(start, intent(41), opening);
    expect(kinds(plan).slice(0, 4)).toEqual(['open', 'backup', 'migrate', 'start-fleet']);
    expect(kinds(planResume(worldAfter(start, plan, 2))).slice(0, 2)).toEqual(['migrate', 'start-fleet']);
  });

  it('gives a backup and migrations a day: an index that is built beside the traffic may take hours', () => {
    const schema = { pending: ['7_add_rank'], contracts: [], isFilled: true, wish: null };
    const steps = planAct(liveWorld({ schema }), intent(41), opening).steps;
    for (const step of steps.filter(({ kind }) => kind === 'backup' || kind === 'migrate'))
      expect(step.deadlineMs, step.kind).toBeGreaterThanOrEqual(24 * 3_600_000);
  });

  it('skips pending migrations when it was told to, also when it is resumed', () => {
    const start = liveWorld({
      schema: { pending: ['7_add_rank'], contracts: [], isFilled: true, wish: null },
    });
    const plan = planAct(start, intent(41, { skipMigrations: true }), opening);
    expect(kinds(plan)).not.toContain('migrate');
    expect(kinds(planResume(worldAfter(start, plan, 1)))).not.toContain('migrate');
  });

  it('says that players are disconnected when the drain is shorter than the one that the servers were started with', () => {
    // Players can't be handed over to an own image, so the old servers only get their SIGTERM.
    const foreign = { ...opening, candidate: { ...opening.candidate, protocol: null } };
    const cause = (drainMs: number) =>
      planAct(liveWorld(), intent(41, { drainMs }), foreign).steps.find(({ kind }) => kind === 'drain')
        ?.cause;
    expect(cause(5_000)).toBe(
      '214 players disconnected, at most 5 s; its servers were started with a 300 s drain, so players still connected after 5 s are disconnected',
    );
    expect(cause(600_000)).toBe('214 players disconnected, at most 600 s');
  });

  it('has an empty plan when its release is live already', () => {
    const same = release(41, 'candidate', 2, { fingerprint: 'print-40' });
    expect(planAct(liveWorld(), intent(41), { ...opening, candidate: same }).steps).toEqual([]);
  });

  it('of the live release runs pending migrations, unless it is told to skip them', () => {
    const same = { ...opening, candidate: release(41, 'candidate', 2, { fingerprint: 'print-40' }) };
    const schema = { pending: ['7_rank', '8_clan'], contracts: ['8_clan'], isFilled: true, wish: null };
    const start = liveWorld({ schema });
    const plan = planAct(start, intent(41), same);
    expect(kinds(plan).slice(0, 4)).toEqual(['open', 'backup', 'migrate', 'start-fleet']);
    expect(planAct(start, intent(41, { skipMigrations: true }), same).steps).toEqual([]);
    const contractOnly = { ...schema, pending: ['8_clan'] };
    expect(planAct(liveWorld({ schema: contractOnly }), intent(41), same).steps).toEqual([]);
    const again = planAct(worldAfter(start, plan, 3), intent(42), {
      ...same,
      candidate: { ...same.candidate, id: 42 },
    });
    expect(kinds(again).filter((kind) => kind === 'open' || kind === 'migrate')).toEqual([]);
  });

  it('of the live release is a full deploy with --again', () => {
    const same = release(41, 'candidate', 2, { fingerprint: 'print-40' });
    const plan = planAct(liveWorld(), intent(41), { ...opening, candidate: same, again: true });
    expect(kinds(plan)).toContain('switch-traffic');
  });

  it('of the live release is a full deploy when the number of replicas differs', () => {
    const wider = release(41, 'candidate', 3, { fingerprint: 'print-40' });
    expect(kinds(planAct(liveWorld(), intent(41), { ...opening, candidate: wider }))).toContain(
      'start-fleet',
    );
  });

  it('without a watch still waits for the last requests of old Nginx workers before it drains', () => {
    const steps = kinds(planAct(liveWorld(), intent(41, { watchMs: 0 }), opening));
    expect(steps.indexOf('quiesce')).toBeGreaterThan(steps.indexOf('switch-traffic'));
    expect(steps.indexOf('quiesce')).toBeLessThan(steps.indexOf('drain'));
  });

  it('forgets releases older than those kept for rollback', () => {
    const old = [36, 37, 38, 39].map((id) => release(id, 'superseded'));
    const start = liveWorld({
      releases: [...old, release(40, 'live')],
      fleets: [...old.map(({ id }) => fleet(id, [], [1, 2])), fleet(40, [1, 2])],
    });
    const plan = planAct(start, intent(41, { keep: 3 }), opening);
    expect(plan.steps.filter((step) => step.kind === 'forget').map((step) => step.release)).toEqual([36, 37]);
  });
});

describe('a rolling deploy', () => {
  const four = liveWorld({
    releases: [release(40, 'live', 4)],
    fleets: [fleet(40, [1, 2, 3, 4], [], 214)],
    traffic: { routes: [{ release: 40, replicas: [1, 2, 3, 4] }], settled: true },
  });
  const wide = { ...opening, candidate: release(41, 'candidate', 4) };
  const rolling = intent(41, { strategy: 'rolling', watchMs: 6_000 });

  it('waits for the last drain of a batch before it starts the next one', () => {
    expect(text(planAct(four, rolling, wide))).toMatchInlineSnapshot(`
      "
       prepare  open            41                             image changed
       prepare  start-fleet     41 ×1                          no fleet for 41
       prepare  await-ready     41 ×1                          HTTP ready, a WebSocket player can join
       switch   switch-traffic  40 ×4 → 41 ×1 + 40 ×3          41 is ready
       switch   watch           41, 6.0 s                      probes through the public address before commitment
       settle   drain           40 ×1                          54 players handed over, about 1 s, at most 300 s
       settle   retire          40 ×1                          kept stopped for rollback
       prepare  start-fleet     41 #2                          next batch
       prepare  await-ready     41 #2                          HTTP ready, a WebSocket player can join
       switch   switch-traffic  41 ×1 + 40 ×3 → 41 ×2 + 40 ×2  41 is ready
       switch   watch           41, 6.0 s                      probes through the public address before commitment
       settle   drain           40 #2                          54 players handed over, about 1 s, at most 300 s
       settle   retire          40 #2                          kept stopped for rollback
       prepare  start-fleet     41 #3                          next batch
       prepare  await-ready     41 #3                          HTTP ready, a WebSocket player can join
       switch   switch-traffic  41 ×2 + 40 ×2 → 41 ×3 + 40 ×1  41 is ready
       switch   watch           41, 6.0 s                      probes through the public address before commitment
       settle   drain           40 #3                          54 players handed over, about 1 s, at most 300 s
       settle   retire          40 #3                          kept stopped for rollback
       prepare  start-fleet     41 #4                          next batch
       prepare  await-ready     41 #4                          HTTP ready, a WebSocket player can join
       switch   switch-traffic  41 ×3 + 40 ×1 → 41 ×4          41 is ready
       switch   watch           41, 6.0 s                      probes through the public address before commitment
       settle   commit          41                             point of no return; release 40 may be stopped
       settle   drain           40 #4                          54 players handed over, about 1 s, at most 300 s
       settle   retire          40 #4                          kept stopped for rollback
       settle   close           41                             on record
      "
    `);
  });

  it('never runs more than one batch beyond the fleet', () => {
    let position = startPosition(four);
    for (const step of planAct(four, rolling, wide).steps) {
      position = apply(position, step);
      const running = position.world.fleets.flatMap((one) =>
        one.replicas.filter((replica) => replica.running),
      );
      expect(running.length).toBeLessThanOrEqual(5);
    }
  });

  it('that fails in its second batch goes back batch by batch, without more memory', () => {
    const plan = planAct(four, rolling, wide);
    const second = plan.steps.findIndex((step, at) => step.kind === 'switch-traffic' && at > 6);
    expect(text(planBackOut(worldAfter(four, plan, second + 1), failed))).toMatchInlineSnapshot(`
      "
       prepare  condemn         41                             WATCH_FAILED
       prepare  start-fleet     40 ×1                          its stopped containers were kept
       prepare  await-ready     40 ×1                          HTTP ready, a WebSocket player can join
       switch   switch-traffic  41 ×2 + 40 ×2 → 40 ×3 + 41 ×1  back to 40
       settle   quiesce         5.5 s                          last requests of old Nginx workers end
       settle   drain           41 ×1                          0 players disconnected, at most 300 s
       settle   retire          41 ×1                          kept stopped for inspection
       switch   switch-traffic  40 ×3 + 41 ×1 → 40 ×4          back to 40
       settle   quiesce         5.5 s                          last requests of old Nginx workers end
       settle   drain           41 #2                          0 players disconnected, at most 300 s
       settle   retire          41 #2                          kept stopped for inspection
       settle   close           41                             failed; on record
      "
    `);
  });
});

describe('backing out', () => {
  const plan = planAct(liveWorld(), intent(41), opening);
  const upTo = (kind: string) => worldAfter(liveWorld(), plan, kinds(plan).indexOf(kind) + 1);

  it('before the switch touches no player and keeps the candidate stopped', () => {
    expect(text(planBackOut(upTo('await-ready'), { ...failed, metPlayers: false }))).toMatchInlineSnapshot(`
      "
       prepare  condemn  41     WATCH_FAILED
       settle   retire   41 ×2  never had a player; kept stopped for inspection
       settle   close    41     failed; on record
      "
    `);
  });

  it('after the switch goes back at once, without a gate for the old fleet', () => {
    expect(text(planBackOut(upTo('switch-traffic'), failed))).toMatchInlineSnapshot(`
      "
       prepare  condemn         41       WATCH_FAILED
       switch   switch-traffic  41 → 40  back to 40
       settle   quiesce         5.5 s    last requests of old Nginx workers end
       settle   drain           41 ×2    0 players disconnected, at most 300 s
       settle   retire          41 ×2    kept stopped for inspection
       settle   close           41       failed; on record
      "
    `);
  });

  it('names the release that stays, and the one that was live before it, also when nothing is unfinished', () => {
    const about = ({ release, previous }: ReturnType<typeof planBackOut>) => ({ release, previous });
    expect(about(planBackOut(upTo('switch-traffic'), failed))).toEqual({ release: 40, previous: 40 });
    expect(about(planBackOut(upTo('commit'), failed))).toEqual({ release: 40, previous: 41 });
    expect(about(planBackOut(liveWorld(), failed))).toEqual({ release: 40, previous: 40 });
  });

  it('of a first deploy ends with the maintenance answer', () => {
    const first = planAct(world(), intent(41), opening);
    const switched = worldAfter(world(), first, kinds(first).indexOf('switch-traffic') + 1);
    expect(text(planBackOut(switched, failed))).toMatchInlineSnapshot(`
      "
       prepare  condemn         41            WATCH_FAILED
       switch   switch-traffic  41 → nothing  no release to serve; Nginx gives the maintenance answer
       settle   quiesce         5.5 s         last requests of old Nginx workers end
       settle   drain           41 ×2         0 players disconnected, at most 300 s
       settle   retire          41 ×2         kept stopped for inspection
       settle   close           41            failed; on record
      "
    `);
  });

  it('never happens past the point of no return: the plan goes forward', () => {
    expect(kinds(planBackOut(upTo('commit'), failed))).toEqual(['drain', 'retire', 'close']);
  });
});

describe('a rollback', () => {
  const start = liveWorld({
    releases: [release(39, 'superseded'), release(40, 'live')],
    fleets: [fleet(39, [], [1, 2]), fleet(40, [1, 2], [], 3)],
  });

  it('starts the kept fleet and drains the bad one', () => {
    const back = intent(39, { verb: 'rollback', watchMs: 0 });
    const candidate = { ...release(39, 'superseded'), verdict: 'candidate' as const };
    const plan = planAct(start, back, { candidate, cause: 'asked; 40 is live', again: true });
    expect(text(plan)).toMatchInlineSnapshot(`
      "
       prepare  open            39       asked; 40 is live
       prepare  start-fleet     39 ×2    its stopped containers were kept
       prepare  await-ready     39 ×2    HTTP ready, a WebSocket player can join
       switch   switch-traffic  40 → 39  39 is ready
       switch   quiesce         5.5 s    last requests of old Nginx workers end
       settle   commit          39       point of no return; release 40 may be stopped
       settle   drain           40 ×2    3 players handed over, about 1 s, at most 300 s
       settle   retire          40 ×2    kept stopped for rollback
       settle   close           39       on record
      "
    `);
  });
});

describe('a rollback that reverts migrations', () => {
  const start = liveWorld({
    releases: [release(39, 'superseded'), release(40, 'live')],
    fleets: [fleet(39, [], [1, 2]), fleet(40, [1, 2], [], 3)],
  });
  const wish = { kind: 'take-back' as const, migrations: ['8_clan', '7_rank'], acceptLoss: true };
  const back = intent(39, { verb: 'rollback', watchMs: 0, schema: wish });
  const candidate = { ...release(39, 'superseded'), verdict: 'candidate' as const };
  const plan = planAct(start, back, { candidate, cause: 'asked; 40 is live', again: true });

  it('moves traffic and drains the old fleet before it touches the schema', () => {
    expect(text({ ...plan, steps: plan.steps.slice(-4) })).toMatchInlineSnapshot(`
      "
       settle  drain      40 ×2         3 players handed over, about 1 s, at most 300 s
       settle  retire     40 ×2         kept stopped for rollback
       settle  take-back  2 migrations  newest first; loss accepted; no player is on release 40 any more
       settle  close      39            on record
      "
    `);
  });

  it('leaves no migration pending when a deploy of the live release gives it up, and all of them when it is finished first', () => {
    const live = { ...opening, candidate: release(41, 'candidate', 2, { fingerprint: 'print-40' }) };
    const schema = { pending: ['7_rank', '8_clan'], contracts: [], isFilled: true, wish };
    const begun = worldAfter(start, plan, 1);
    expect(kinds(planAct({ ...begun, schema }, intent(41), live))).toEqual(['condemn', 'close']);
    const left = worldAfter(start, plan, kinds(plan).indexOf('take-back'));
    const same = { ...opening, candidate: release(41, 'candidate', 2, { fingerprint: 'print-39' }) };
    expect(kinds(planAct({ ...left, schema }, intent(41), same)).slice(0, 5)).toEqual([
      'take-back',
      'close',
      'open',
      'backup',
      'migrate',
    ]);
  });

  it('continues after a crash with the migrations that are still to revert, and closes when there are none', () => {
    const crashed = worldAfter(start, plan, kinds(plan).indexOf('take-back'));
    const rest = { ...wish, migrations: ['7_rank'] };
    const schema = { pending: [], contracts: [], isFilled: false, wish: rest };
    const [step] = planResume({ ...crashed, schema }).steps;
    expect(step).toMatchObject({ kind: 'take-back', migrations: ['7_rank'], release: 40 });
    expect(kinds(planResume({ ...crashed, schema: { ...schema, wish: null } }))).toEqual(['close']);
  });

  it('that is requested again takes the new schema wish; to another release it leaves the schema to the next act', () => {
    const begun = worldAfter(start, plan, 1);
    expect(withNewestWish(begun, 39, wish)).toBe(begun);
    expect(withNewestWish(begun, 39, null)).toMatchObject({
      intent: { schema: null },
      schema: { wish: null },
    });
    expect(withNewestWish(begun, 38, wish).intent?.schema).toBeNull();
    const deploying = worldAfter(liveWorld(), planAct(liveWorld(), intent(41), opening), 1);
    expect(withNewestWish(deploying, 39, wish)).toBe(deploying);
  });

  it('to the live release only reverts the migrations', () => {
    expect(kinds(planStay(liveWorld(), wish, 41))).toEqual(['take-back']);
  });

  it('to the live release gives up an unfinished deploy, and reverts no migration that it was not asked to revert', () => {
    const begun = worldAfter(liveWorld(), planAct(liveWorld(), intent(41), opening), 1);
    expect(kinds(planStay(begun, null, 41))).toEqual(['condemn', 'close']);
  });
});

describe('resume', () => {
  it('after any step of any plan leads to an empty plan', () => {
    for (const strategy of ['blue-green', 'rolling'] as const) {
      const plan = planAct(liveWorld(), intent(41, { strategy }), opening);
      for (let count = 0; count <= plan.steps.length; count++) {
        const left = worldAfter(liveWorld(), plan, count);
        const rest = planResume(left);
        const end = rest.steps.reduce(apply, startPosition(left)).world;
        expect(planResume(end).steps, `${strategy}, died after ${count} steps`).toEqual([]);
        if (count > 0) expect(end.releases.find((one) => one.verdict === 'live')?.id).toBe(41);
      }
    }
  });

  it('after any step of handing players back continues to the previous release', () => {
    const plan = planAct(liveWorld(), intent(41), opening);
    const leaving = worldAfter(liveWorld(), plan, kinds(plan).indexOf('commit') + 1);
    expect(fleetBefore(leaving)).toEqual({ release: 40, replicas: [1, 2] });
    const back = planHandBack(leaving, 'abort by ada');
    expect(kinds(back)).toEqual(['condemn', 'switch-traffic', 'quiesce', 'drain', 'retire', 'close']);
    for (let count = 1; count <= back.steps.length; count++) {
      const left = back.steps.slice(0, count).reduce(apply, startPosition(leaving)).world;
      const end = planResume(left).steps.reduce(apply, startPosition(left)).world;
      expect(end.traffic.routes).toEqual([{ release: 40, replicas: [1, 2] }]);
      expect(end.releases.map(({ id, verdict }) => [id, verdict])).toEqual([
        [40, 'live'],
        [41, 'abandoned'],
      ]);
    }
  });

  it('hands no player back to a fleet that has ended in part, or to a fleet that never gave players away', () => {
    const plan = planAct(liveWorld(), intent(41), opening);
    const leaving = worldAfter(liveWorld(), plan, kinds(plan).indexOf('commit') + 1);
    const ended = {
      ...leaving,
      fleets: leaving.fleets.map((one) => (one.release === 40 ? fleet(40, [1], [2]) : one)),
    };
    expect(fleetBefore(ended)).toBeNull();
    expect(fleetBefore(worldAfter(liveWorld(), plan, kinds(plan).indexOf('commit')))).toBeNull();
    expect(fleetBefore(liveWorld())).toBeNull();
  });

  it('never deploys a release with a failed verdict again', () => {
    const plan = planAct(liveWorld(), intent(41), opening);
    const switched = worldAfter(liveWorld(), plan, kinds(plan).indexOf('switch-traffic') + 1);
    const backOut = planBackOut(switched, failed);
    for (let count = 1; count <= backOut.steps.length; count++) {
      const left = backOut.steps.slice(0, count).reduce(apply, startPosition(switched)).world;
      const end = planResume(left).steps.reduce(apply, startPosition(left)).world;
      expect(end.traffic.routes).toEqual([{ release: 40, replicas: [1, 2] }]);
      expect(end.releases.find((one) => one.id === 41)?.verdict).toBe('failed');
    }
  });

  it('starts a dead replica of the live release again when no act is unfinished', () => {
    const hurt = liveWorld({ fleets: [fleet(40, [1], [2], 5)] });
    expect(kinds({ steps: planRepair(hurt) })).toEqual(['start-fleet', 'await-ready']);
  });

  it('switches traffic again when Nginx serves something else than it has on disk', () => {
    const torn = liveWorld({ traffic: { routes: [{ release: 40, replicas: [1, 2] }], settled: false } });
    expect(planRepair(torn)[0]).toMatchObject({ kind: 'switch-traffic' });
  });
});

describe('a deploy over an unfinished one', () => {
  const plan = planAct(liveWorld(), intent(41), opening);
  const next = { candidate: release(42, 'candidate'), cause: 'image changed', again: false };

  it('gives it up if no player was ever on it', () => {
    const left = worldAfter(liveWorld(), plan, kinds(plan).indexOf('start-fleet') + 1);
    expect(text(planAct(left, intent(42), next))).toMatchInlineSnapshot(`
      "
       prepare  condemn         41          interrupted before the switch, then superseded by 42
       settle   retire          41 ×2       never had a player; kept stopped for inspection
       settle   close           41          abandoned; on record
       prepare  open            42          image changed
       prepare  start-fleet     42 ×2       no fleet for 42
       prepare  await-ready     42 ×2       HTTP ready, a WebSocket player can join
       switch   switch-traffic  40 → 42     42 is ready
       switch   watch           42, 30.0 s  probes through the public address before commitment
       settle   commit          42          point of no return; release 40 may be stopped
       settle   drain           40 ×2       214 players handed over, about 1 s, at most 300 s
       settle   retire          40 ×2       kept stopped for rollback
       settle   close           42          on record
      "
    `);
  });

  it('finishes it first when players are on it, and never goes back to an older release by itself', () => {
    const left = worldAfter(liveWorld(), plan, kinds(plan).indexOf('switch-traffic') + 1);
    const steps = planAct(left, intent(42), next).steps;
    expect(steps.filter((step) => step.kind === 'switch-traffic').map((step) => step.routes)).toEqual([
      [{ release: 42, replicas: [1, 2] }],
    ]);
    expect(kinds({ steps }).slice(0, 5)).toEqual(['watch', 'commit', 'drain', 'retire', 'close']);
  });

  it('only finishes it when it is the same release', () => {
    const left = worldAfter(liveWorld(), plan, kinds(plan).indexOf('switch-traffic') + 1);
    const same = { ...next, candidate: release(42, 'candidate', 2, { fingerprint: 'print-41' }) };
    expect(kinds(planAct(left, intent(42), same))).toEqual(['watch', 'commit', 'drain', 'retire', 'close']);
  });
});
