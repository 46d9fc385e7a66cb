/**
 * Which player is where, in Redis. A player is present until a certain time, which their server postpones every 30 s. A
 * server that dies postpones nothing, and the sweep of any other server announces that its players left.
 *
 * The newest connection owns a player. Only it may end their presence, so the late close of an old connection never logs
 * out somebody who is on a new server already. The previous connection is kept as `former` until it closes or the new one
 * has lasted `provenMs`: a connection that breaks before its player has heard of it gives them back to the former one.
 *
 * Promises: no player who is present is announced twice, none is announced as gone in a handover, and there is no ghost
 * after `goneMs` and one sweep. Times are Redis' own, so clocks of servers don't matter.
 */
import { redisKeys } from '../../contract.ts';
import { type Person, world } from '../../protocol.ts';
import type { Bus } from './bus.ts';
import { headcountLua, joinLua, leaveLua, peopleLua, refreshLua, sweepLua } from './presence-scripts.ts';

export interface PresenceTimes {
  /** How long a player stays present without a refresh. With the sweep it must stay below 75 s, when ghosts must be gone. */
  goneMs: number;
  /** After a connection that broke: a resume within this time shows nothing to others. */
  graceMs: number;
  sweepMs: number;
  /** A connection that was not refreshed within this time is dead: one heartbeat, and the delay that one may have. */
  provenMs: number;
}

export const presenceTimes: PresenceTimes = {
  goneMs: 69_000,
  graceMs: 10_000,
  sweepMs: 5_000,
  provenMs: 34_000,
};

export interface Here {
  person: Person;
  region: string;
  /** `<release>/<replica>/<connection>` */
  owner: string;
  session: string;
}

export interface Presence {
  /**
   * Owns the player from now on, wherever they were before, and keeps their session for a resume. A player whom a drain
   * had closed counts as back.
   * @returns the region's newest offset
   */
  join(here: Here, session: string): Promise<number>;
  /** The same for a player who is here already. @returns null, and nothing happens, when another connection owns them */
  move(here: Here, session: string): Promise<number | null>;
  /** Nothing happens when another connection owns the player. `isClean`: they meant to leave. */
  leave(here: Here, isClean: boolean): Promise<void>;
  /** @returns the given owners whose players another connection owns by now */
  refresh(all: readonly Here[]): Promise<string[]>;
  /** @returns how many players were announced as gone */
  sweep(): Promise<number>;
  /** At most `count` of the players in a region. */
  people(region: string, count: number): Promise<Person[]>;
  /** Regions with somebody in them, the fullest first. */
  headcount(): Promise<{ region: string; players: number }[]>;
}

const sweepCount = 200;
const regions = Array.from(
  { length: world.columns * world.rows },
  (_, n) => `r${n % world.columns}-${Math.floor(n / world.columns)}`,
);

export function openPresence(
  bus: Bus,
  project: string,
  { goneMs, graceMs, provenMs }: PresenceTimes = presenceTimes,
): Presence {
  const keys = redisKeys(project);
  const hereOf = keys.here('');
  const join = bus.script('gameopsJoin', joinLua);
  const leave = bus.script('gameopsLeave', leaveLua);
  const sweep = bus.script('gameopsSweep', sweepLua);
  const people = bus.script('gameopsPeople', peopleLua);
  const refresh = bus.script('gameopsRefresh', refreshLua);
  const headcount = bus.script('gameopsHeadcount', headcountLua);
  const shared = [keys.owners, keys.present];

  async function settle(here: Here, session: string, mover: string): Promise<number | null> {
    const { person, region } = here;
    const joined = announcement('joined', person);
    const left = announcement('left', person);
    const [is, offset] = await join(
      [...shared, keys.session(here.session), keys.closed],
      [person.id, entryOf(here), region, session, joined, left, goneMs, hereOf, mover],
    );
    return is === 'here' ? Number(offset) : null;
  }

  return {
    join: async (here, session) => Number(await settle(here, session, '')),
    move: (here, session) => settle(here, session, here.owner),
    async leave({ person, owner }, isClean) {
      await leave(shared, [person.id, owner, isClean ? 0 : graceMs, announcement('left', person), hereOf]);
    },
    async refresh(all) {
      if (all.length === 0) return [];
      const kept = all.flatMap(({ session }) => [keys.session(session), keys.sequence(session)]);
      const args = all.flatMap((here) => {
        const { person, owner, region } = here;
        return [person.id, owner, entryOf(here), region, announcement('joined', person)];
      });
      const [, ...others] = await refresh([...shared, ...kept], [goneMs, hereOf, provenMs, ...args]);
      return others.map(String);
    },
    async sweep() {
      let all = 0;
      for (;;) {
        const [, count] = await sweep(shared, [hereOf, sweepCount]);
        all += Number(count);
        if (Number(count) < sweepCount) return all;
      }
    },
    async headcount() {
      const [, ...counts] = await headcount(
        regions.map((region) => keys.here(region)),
        [],
      );
      return regions
        .map((region, n) => ({ region, players: Number(counts[n]) }))
        .filter(({ players }) => players > 0)
        .sort((a, b) => b.players - a.players);
    },
    async people(region, count) {
      const [, ...found] = await people([keys.owners, keys.here(region)], [count]);
      return Array.from({ length: found.length / 2 }, (_, n) =>
        personOf(String(found[2 * n]), String(found[2 * n + 1])),
      );
    },
  };
}

function entryOf({ owner, region, person }: Here): string {
  return JSON.stringify({ owner, region, name: person.name });
}

const announcement = (t: 'joined' | 'left', player: Person) =>
  JSON.stringify({ t, player: { id: player.id, name: player.name } });

function personOf(id: string, entry: string): Person {
  const name: unknown = entry === '' ? null : (JSON.parse(entry) as { name?: unknown }).name;
  return { id, name: typeof name === 'string' ? name : id };
}
