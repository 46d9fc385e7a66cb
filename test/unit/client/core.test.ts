/** The client's core: what holds in whatever order sockets, servers and timers do their part. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { step } from '../../../src/client/core.ts';
import {
  type Effect,
  type Input,
  initialState,
  maySay,
  type State,
  statusOf,
} from '../../../src/client/core-state.ts';
import { closeCode, limits, movedReason, type RoomMessage } from '../../../src/protocol.ts';
import { away, type ClientWorld, clientWorld, home } from '../../support/memory/client-world.ts';

const at = 0;
type Bare = Input extends infer One ? (One extends Input ? Omit<One, 'at'> : never) : never;

function walk(inputs: Bare[], from: State = initialState({ token: 't' })) {
  const effects: Effect[] = [];
  let state = from;
  for (const input of inputs) {
    const next = step(state, { ...input, at } as Input);
    state = next.state;
    effects.push(...next.effects);
  }
  return { state, effects, told: effects.flatMap((one) => (one.do === 'emit' ? [one.event] : [])) };
}

const welcome = (release: number, more: object = {}) => ({
  t: 'welcome' as const,
  session: 'session-1',
  epoch: '1',
  seq: 0,
  player: { id: 'me', name: 'me' },
  release,
  replica: 1,
  heartbeatMs: 30_000,
  resumeMs: 150_000,
  rooms: [{ room: home, offset: 0, resumed: true }],
  ...more,
});
const online: Bare[] = [
  { t: 'start' },
  { t: 'opened', link: 1 },
  { t: 'received', link: 1, message: welcome(1) },
];
const said = (offset: number): RoomMessage => ({
  t: 'said',
  from: { id: 'x', name: 'x' },
  text: `${offset}`,
  at: '',
  room: home,
  offset,
});
const hint = { t: 'reconnect' as const, reason: 'deploy' as const, to: 2, afterMs: 50, deadlineMs: 10_000 };
const moving: Bare[] = [
  ...online,
  { t: 'received', link: 1, message: hint },
  { t: 'timer', timer: 'move' },
  { t: 'opened', link: 2 },
];

/** Each number is one thing that happens; the rest of it says to whom. */
function happen(world: ClientWorld, dice: number): void {
  const rest = Math.floor(dice / 16);
  const pick = <T>(list: readonly T[]): T | undefined => list[rest % Math.max(list.length, 1)];
  const link = pick(world.links()) ?? 0;
  const timer = pick(world.timers());
  const acts: (() => void)[] = [
    () => world.publish(home, `other ${world.memory.bus.length}`),
    () => world.readBus(rest % 3),
    () => world.readBus(rest % 3),
    () => world.openOrArrive(link),
    () => world.openOrArrive(link),
    () => world.openOrArrive(link),
    () => world.deliver(link),
    () => world.deliver(link),
    () => world.deliver(link),
    () => (rest % 3 === 0 ? world.lose(link) : rest % 3 === 1 ? world.double(link) : world.swap(link)),
    () => rest % 4 === 0 && world.break(link, [1006, 1012, 4008, 4401][rest % 5] ?? 1006),
    () => (rest % 8 === 0 ? world.forgetSequences() : world.hint(link, rest % 3)),
    () => timer && world.fire(timer),
    () => say(world),
    () => {
      world.memory.isUp = rest % 3 !== 0;
    },
    () => world.answerRefresh(rest % 2 === 0 ? 'fresh' : 'failed'),
  ];
  acts[dice % 16]?.();
}

let count = 0;
const wanted = new WeakMap<ClientWorld, string[]>();
function say(world: ClientWorld): void {
  const room = world.state().region;
  if (room === null || !maySay(world.state(), 'mine')) return;
  count += 1;
  const text = `mine ${count}`;
  wanted.set(world, [...(wanted.get(world) ?? []), text]);
  world.put({ t: 'say', room, text });
}

const anything = fc.array(fc.nat({ max: 16 * 60 }), { minLength: 1, maxLength: 250, size: 'max' });
const runs = { numRuns: 500 };

describe('in any order of losses, duplicates, breaks and moves', () => {
  test('what a room says is heard once and in order, and what the player says is taken once and in order', () => {
    const seen = { moved: 0, resumed: 0 };
    fc.assert(
      fc.property(anything, (dice) => {
        const world = clientWorld();
        world.publish(home, 'before');
        for (const one of dice) happen(world, one);
        world.settle();
        world.publish(home, 'last');
        world.settle();
        const heard = world.heard();
        const all = world.memory.rooms.get(home) ?? [];
        expect(heard.map(({ offset }) => offset)).toEqual(
          all.slice(all.length - heard.length).map(({ offset }) => offset),
        );
        expect(heard.at(-1)?.offset).toBe(all.length);
        // From the first snapshot on nothing is missing.
        const first = world.events.find((event) => event.type === 'snapshot');
        if (first?.type === 'snapshot') expect(heard[0]?.offset).toBe(first.snapshot.offset + 1);
        for (const event of world.events) {
          if (event.type === 'snapshot') expect(event.missed).toBe(0);
          if (event.type !== 'handover') continue;
          expect(event.how).not.toBe('anew');
          if (event.how === 'moved') expect(event.gapMs).toBe(0);
          if (event.how !== 'anew') seen[event.how] += 1;
        }
        expect(world.accepted).toEqual(wanted.get(world) ?? []);
        expect(world.state().unacked).toEqual([]);
        expect(world.links()).toHaveLength(1);
      }),
      runs,
    );
    // The property would hold for a client that never moves, too.
    expect(seen.moved).toBeGreaterThan(100);
    expect(seen.resumed).toBeGreaterThan(100);
  });

  test('messages that no server can replay any more are counted as missed: heard and missed make up all of them', () => {
    let missed = 0;
    fc.assert(
      fc.property(anything, (dice) => {
        const world = clientWorld({ ring: 4 });
        for (const one of dice) happen(world, one);
        world.settle();
        world.publish(home, 'last');
        world.settle();
        const offsets = world.heard().map(({ offset }) => offset);
        expect(offsets).toEqual([...new Set(offsets)].sort((a, b) => a - b));
        const snapshots = world.events.flatMap((event) => (event.type === 'snapshot' ? [event] : []));
        const lost = snapshots.reduce((sum, event) => sum + event.missed, 0);
        const from = snapshots[0]?.snapshot.offset ?? 0;
        expect(offsets.length + lost).toBe((world.memory.rooms.get(home)?.length ?? 0) - from);
        expect(world.accepted).toEqual(wanted.get(world) ?? []);
        missed += lost;
      }),
      runs,
    );
    expect(missed).toBeGreaterThan(0);
  });

  test('after a flush of Redis everything begins anew: no message of the player is dropped, and their order is kept', () => {
    fc.assert(
      fc.property(anything, fc.nat({ max: 200 }), (dice, when) => {
        const world = clientWorld();
        for (const [n, one] of dice.entries()) {
          if (n === when) world.flush();
          happen(world, one);
        }
        world.settle();
        world.publish(home, 'last');
        world.settle();
        // A message that was taken but not acknowledged before the flush is said twice; no message is left out.
        const firsts = [...new Set(world.accepted)];
        expect(firsts).toEqual(wanted.get(world) ?? []);
        expect(world.heard().at(-1)?.offset).toBe(world.memory.rooms.get(home)?.length);
        expect(world.state().unacked).toEqual([]);
      }),
      runs,
    );
  });

  test('the player ends up where they last wanted to be, whichever socket carried the wish', () => {
    fc.assert(
      fc.property(anything, fc.array(fc.tuple(fc.nat({ max: 250 }), fc.boolean())), (dice, wishes) => {
        const world = clientWorld();
        let last = home;
        for (const [n, one] of dice.entries()) {
          happen(world, one);
          for (const [, isAway] of wishes.filter(([when]) => when === n)) {
            last = isAway ? away : home;
            world.put({ t: 'enter', region: last });
          }
        }
        world.settle();
        world.publish(last, 'last');
        world.settle();
        expect(Object.keys(world.state().rooms)).toEqual([last]);
        expect(world.heard().at(-1)).toMatchObject({ room: last, text: 'last' });
        expect(world.accepted).toEqual(wanted.get(world) ?? []);
      }),
      runs,
    );
  });
});

describe('a refused wish to go to another region', () => {
  const tooFast = { t: 'refused' as const, what: 'enter', why: 'too-fast' as const };
  const wishes: Bare[] = [...online, ...[away, 'r9-9'].map((region): Bare => ({ t: 'enter', region }))];
  const entered: Bare = { t: 'received', link: 1, message: { t: 'entered', room: away, left: home } };

  test('leaves the player where the earlier wish takes them, and they are still there after a move', () => {
    const { state } = walk([...wishes, { t: 'received', link: 1, message: tooFast }, entered]);
    expect(state.region).toBe(away);
    expect(Object.keys(state.rooms)).toEqual([away]);
  });

  test('without an earlier wish names no region in the next hello, because the server knows where the player is', () => {
    const { state } = walk([...wishes, entered, { t: 'received', link: 1, message: tooFast }]);
    expect(state.region).toBe(null);
    const { effects } = walk(
      [
        { t: 'received', link: 1, message: hint },
        { t: 'timer', timer: 'move' },
        { t: 'opened', link: 2 },
      ],
      state,
    );
    const hello = effects.flatMap((one) =>
      one.do === 'send' && one.message.t === 'hello' ? [one.message] : [],
    );
    expect(hello).toHaveLength(1);
    expect(hello[0]).not.toHaveProperty('region');
  });
});

describe('a hint', () => {
  test('opens a second socket at the named release, and closes the first only when the second is welcomed', () => {
    const { state, effects } = walk(moving);
    expect(statusOf(state)).toBe('moving');
    expect(effects).toContainEqual({ do: 'open', link: 2, to: 2 });
    expect(effects.filter((one) => one.do === 'close')).toEqual([]);
    const then = walk([{ t: 'received', link: 2, message: welcome(2) }], state);
    expect(then.effects).toContainEqual({ do: 'close', link: 1, code: closeCode.done, reason: movedReason });
    expect(then.told).toContainEqual({ type: 'handover', from: '1/1', to: '2/1', gapMs: 0, how: 'moved' });
    expect(statusOf(then.state)).toBe('online');
  });

  test('never costs a try, however often the second socket fails', () => {
    const failing = [1, 2, 3, 4, 5, 6, 7].flatMap((n): Bare[] => [
      { t: 'timer', timer: 'move' },
      { t: 'closed', link: n + 1, code: 1006 },
    ]);
    const { state } = walk([...online, { t: 'received', link: 1, message: hint }, ...failing]);
    expect(statusOf(state)).toBe('online');
    expect(state.tries).toBe(0);
    expect(state.links).toBeLessThanOrEqual(7);
  });

  test('ends in an ordinary resume when the socket closes before the time of the move', () => {
    const { state, effects } = walk([
      ...online,
      { t: 'received', link: 1, message: hint },
      { t: 'closed', link: 1, code: closeCode.restart },
      { t: 'timer', timer: 'retry' },
    ]);
    expect(effects).toContainEqual({ do: 'cancel', timer: 'move' });
    expect(effects.at(-2)).toEqual({ do: 'open', link: 2, to: null });
    expect(statusOf(state)).toBe('reconnecting');
  });

  test('is completed by the second socket when the first one closes, even as "replaced"', () => {
    const { state } = walk([...moving, { t: 'closed', link: 1, code: closeCode.replaced }]);
    expect(statusOf(state)).toBe('reconnecting');
    const { told } = walk([{ t: 'received', link: 2, message: welcome(2) }], state);
    expect(told).toContainEqual({ type: 'handover', from: '1/1', to: '2/1', gapMs: 0, how: 'resumed' });
  });
});

describe('the queue of messages that are not acknowledged', () => {
  const speaking: Bare[] = [1, 2, 3].map((n) => ({ t: 'say', room: home, text: `${n}` }));
  const sequences = (effects: Effect[]) =>
    effects.flatMap((one) => (one.do === 'send' && one.message.t === 'say' ? [one.message.seq] : []));

  test('moves with the player: messages that the welcome acknowledges are dropped, the rest is numbered from there', () => {
    const { effects, state } = walk([
      ...moving,
      ...speaking,
      { t: 'received', link: 2, message: welcome(2, { seq: 1 }) },
    ]);
    const onNew = effects.filter((one) => one.do === 'send' && one.link === 2);
    expect(sequences(onNew)).toEqual([2, 3]);
    expect(state.unacked.map(({ text }) => text)).toEqual(['2', '3']);
    const other = walk([
      ...moving,
      ...speaking,
      { t: 'received', link: 2, message: welcome(2, { session: 'session-2', seq: 0 }) },
    ]);
    expect(other.state.unacked.map(({ seq }) => seq)).toEqual([1, 2, 3]);
  });

  test('is said again from the refused message on, in order, after one pause for however many refusals', () => {
    const refused = { t: 'refused' as const, what: 'say', why: 'unavailable' as const, seq: 2 };
    const { effects } = walk([
      ...online,
      ...speaking,
      { t: 'received', link: 1, message: { t: 'ack', seq: 1 } },
      { t: 'received', link: 1, message: refused },
      { t: 'received', link: 1, message: refused },
      { t: 'say', room: home, text: '4' },
      { t: 'timer', timer: 'repeat' },
    ]);
    expect(sequences(effects)).toEqual([1, 2, 3, 2, 3, 4]);
    expect(effects.filter((one) => one.do === 'back-off')).toHaveLength(1);
  });

  test('holds as many messages as the protocol allows, and refuses a message that a server would close for', () => {
    const many: Bare[] = Array.from({ length: 300 }, () => ({ t: 'say', room: home, text: 'x' }));
    const { state } = walk([...online, ...many]);
    expect(state.unacked).toHaveLength(limits.unackedMessages);
    const tooLong = walk([...online, { t: 'say', room: home, text: 'x'.repeat(501) }]);
    expect(tooLong.state.unacked).toEqual([]);
  });
});

describe('coming back', () => {
  const closings = (code: number, tries: number) =>
    Array.from({ length: tries }, (_, n): Bare[] => [
      { t: 'closed', link: n + 1, code },
      { t: 'timer', timer: 'retry' },
    ]).flat();

  test('is tried five times with growing waits and then given up; a start begins anew', () => {
    const { state, effects } = walk([...online, ...closings(1006, 6)]);
    const waits = effects.flatMap((one) => (one.do === 'back-off' ? [one.n] : []));
    expect(waits).toEqual([0, 1, 2, 3, 4]);
    expect(statusOf(state)).toBe('gave-up');
    expect(walk([{ t: 'start' }], state).effects).toContainEqual({ do: 'open', link: 7, to: null });
  });

  test('resets the count of tries only after a stable time, so a server that welcomes and fails meets no storm', () => {
    const loop = (n: number): Bare[] => [
      { t: 'timer', timer: 'retry' },
      { t: 'opened', link: n },
      { t: 'received', link: n, message: welcome(1) },
      { t: 'closed', link: n, code: 1006 },
    ];
    const { state } = walk([
      ...online,
      { t: 'closed', link: 1, code: 1006 },
      ...[2, 3, 4, 5, 6].flatMap(loop),
    ]);
    expect(statusOf(state)).toBe('gave-up');
    const stable = walk([...online, { t: 'closed', link: 1, code: 1006 }, ...loop(2).slice(0, 3)]);
    expect(walk([{ t: 'timer', timer: 'stable' }], stable.state).state.tries).toBe(0);
  });

  test('asks for a fresh token first when the old one expired, and ends when there is none', () => {
    const { effects, state } = walk([...online, ...closings(closeCode.tokenExpired, 1)]);
    expect(effects.at(-1)).toEqual({ do: 'refresh' });
    const fresh = walk(
      [
        { t: 'token', token: 'new' },
        { t: 'opened', link: 2 },
      ],
      state,
    );
    expect(fresh.effects.at(-1)).toMatchObject({ message: { t: 'hello', token: 'new' } });
    expect(statusOf(walk([{ t: 'token', token: null }], state).state)).toBe('gave-up');
    const { state: later, effects: again } = walk([{ t: 'token-failed' }], state);
    expect(again).toContainEqual({ do: 'back-off', timer: 'retry', n: 1 });
    expect(later.needsToken).toBe(true);
  });

  test('is not tried after a code that forbids it', () => {
    for (const code of [closeCode.badToken, closeCode.badMessage, closeCode.replaced, closeCode.done])
      expect(statusOf(walk([...online, { t: 'closed', link: 1, code }]).state)).toBe('gave-up');
  });

  test('names session, epoch and newest offsets in the hello, and no resume after the close "resync"', () => {
    const heard: Bare[] = [1, 2].map((offset) => ({ t: 'received', link: 1, message: said(offset) }));
    const { effects } = walk([...online, ...heard, ...closings(1006, 1), { t: 'opened', link: 2 }]);
    expect(effects.at(-1)).toMatchObject({
      message: { t: 'hello', resume: { session: 'session-1', epoch: '1', offsets: { [home]: 2 } } },
    });
    const anew = walk([...online, ...heard, ...closings(closeCode.resync, 1), { t: 'opened', link: 2 }]);
    expect(anew.effects.at(-1)).toMatchObject({ message: { t: 'hello', region: home } });
    expect(anew.effects.at(-1)).not.toHaveProperty('message.resume');
  });

  test('begins when a socket has said nothing for two heartbeats, and when a hello is not answered', () => {
    const { state } = walk(online);
    const silent = step(state, { t: 'timer', timer: 'beat', at: 60_001 });
    expect(silent.effects).toContainEqual({ do: 'drop', link: 1 });
    expect(statusOf(silent.state)).toBe('reconnecting');
    const deaf = walk([{ t: 'start' }, { t: 'opened', link: 1 }, { t: 'timer', timer: 'welcome' }]);
    expect(deaf.effects).toContainEqual({ do: 'drop', link: 1 });
    expect(deaf.effects).toContainEqual({ do: 'back-off', timer: 'retry', n: 0 });
  });

  test('ends with a stop: no socket and no timer is left, and nothing wakes the client later', () => {
    const { state, effects } = walk([...moving, { t: 'stop' }]);
    expect(effects).toContainEqual({ do: 'close', link: 1, code: closeCode.done, reason: '' });
    expect(effects).toContainEqual({ do: 'drop', link: 2 });
    const { effects: later } = walk(
      [
        { t: 'timer', timer: 'retry' },
        { t: 'timer', timer: 'move' },
        { t: 'token', token: 'x' },
      ],
      state,
    );
    expect(later).toEqual([]);
  });
});

describe('a hole', () => {
  test('leads to one resync, not to one for every later message, and to another when no answer comes', () => {
    const asked = (effects: Effect[]) =>
      effects.filter((one) => one.do === 'send' && one.message.t === 'resync').length;
    const { state, effects, told } = walk([
      ...online,
      ...[1, 3, 4, 5].map((offset): Bare => ({ t: 'received', link: 1, message: said(offset) })),
    ]);
    expect(asked(effects)).toBe(1);
    expect(told.filter((event) => event.type === 'message')).toHaveLength(1);
    const late = step(state, { t: 'received', link: 1, message: said(6), at: 6_000 });
    expect(asked(late.effects)).toBe(1);
  });
});
