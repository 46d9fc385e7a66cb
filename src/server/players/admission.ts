/**
 * From a hello with a good token to a welcome: which session it is, where the player is, and what he has missed.
 * Promises that any server can do it for any session, that a resume leaves no hole (or says that it does), and that
 * between the replay and what comes live nothing can happen.
 */
import { randomUUID } from 'node:crypto';
import type { Logger } from 'pino';
import { isProbe, redisKeys } from '../../contract.ts';
import {
  type CloseReason,
  firstRegion,
  type Hello,
  isRegion,
  isRoomMessage,
  limits,
  type Person,
  parseDownward,
  type RoomMessage,
} from '../../protocol.ts';
import type { Metrics } from '../metrics.ts';
import type { Bus } from '../redis/bus.ts';
import type { Presence } from '../redis/presence.ts';
import type { Identity } from '../settings.ts';
import { hereOf, newPlayer, type Player, readSession, type Session, sessionText } from './player.ts';
import { messageText, type Rooms } from './rooms.ts';
import type { Bucket } from './token-bucket.ts';
import { close, frameOf, isOpen, type Link, send, tell, textOf } from './wire.ts';

export interface Ground {
  identity: Identity;
  bus: Bus;
  presence: Presence;
  rooms: Rooms<Player>;
  /** Players who said something that was accepted and is yet to come from the bus. */
  unacknowledged: Set<Player>;
  metrics: Metrics;
  log: Logger;
}

export interface Arrival {
  hello: Hello;
  person: Person;
  link: Link;
  owner: string;
  frames: Bucket;
}

/** Where a player goes on in a room: `offset` is what he has when `backlog` is sent, or with the snapshot. */
interface Start {
  offset: number;
  backlog: Buffer[];
  /** When he has nothing that could be gone on from. */
  snapshot: { people: Person[]; latest: RoomMessage[] } | null;
  how: 'warm' | 'cold' | 'none';
}

/** Redis may be away for a moment: a restart of it is no reason to send a player through his back-off. */
const patienceMs = 5_000;
const latestCount = 20;
/** Joins and leaves are among them. */
const latestRead = 80;
const peopleCount = 200;

/** The player is welcome and hears his room, or why not. */
export async function admit(ground: Ground, arrival: Arrival): Promise<Player | CloseReason> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    if (!(await ground.bus.whenUp(Math.max(0, deadline - performance.now())))) return 'restart';
    try {
      return await tryToAdmit(ground, arrival);
    } catch (error) {
      ground.log.debug({ reason: error instanceof Error ? error.message : 'unknown' }, 'hello interrupted');
      if (performance.now() >= deadline) return 'restart';
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

async function tryToAdmit(ground: Ground, { hello, person, link, owner, frames }: Arrival) {
  const { bus, rooms, metrics } = ground;
  const epoch = bus.epoch();
  const resume = hello.resume?.epoch === epoch ? hello.resume : undefined;
  const found = resume ? await sessionOf(ground, resume.session, person) : null;
  const wished = hello.region !== undefined && isRegion(hello.region) ? hello.region : null;
  const region = wished ?? found?.region ?? firstRegion;
  const before = found === null || found.region === region ? (found?.before ?? null) : found.region;
  const session = found && resume ? resume.session : randomUUID();
  // Numbers expire in a long silence; the client's own memory then goes further than ours.
  const seq = found ? Math.max(found.seq, resume?.seq ?? 0) : 0;
  const player = newPlayer({ link, person, session, owner, region, before, seq, frames }, performance.now());
  const newest = await settle(ground, player, 'join');
  const start = await startIn(ground, player.room, newest, found ? resume?.offsets[region] : undefined);
  // From here to the end nothing waits: what the ring holds, then what comes.
  if (epoch !== bus.epoch()) throw new Error('the epoch has changed meanwhile');
  const replay = rooms.enter(player, region, start.offset);
  if (replay === null) throw new Error('the room went on too far meanwhile');
  // In one piece: a fleet that arrives is bound by how often it writes.
  link.stream.cork();
  welcome(ground, player, start);
  sendStart(player, start);
  if (replay.length > 0) send(link, replay);
  link.stream.uncork();
  metrics.resumes.inc({ how: resume || hello.resume ? start.how : 'fresh' });
  return player;
}

async function sessionOf(
  { bus, identity }: Ground,
  session: string,
  person: Person,
): Promise<(Session & { seq: number }) | null> {
  const keys = redisKeys(identity.project);
  const [kept, seq] = await bus.commands.mget(keys.session(session), keys.sequence(session));
  const found = readSession(kept ?? null);
  // Somebody else's session is none: the id alone opens nothing.
  return found !== null && found.player === person.id ? { ...found, seq: Number(seq ?? 0) } : null;
}

/** Makes the player present where he is. @returns the newest offset there @throws when he moves and another connection owns him */
async function settle(
  { bus, presence, identity }: Ground,
  player: Player,
  how: 'join' | 'move',
): Promise<number> {
  const keys = redisKeys(identity.project);
  const { person, room: region, before } = player;
  if (isProbe(person.id)) return Number((await bus.commands.hget(keys.offsets, region)) ?? 0);
  const newest = await presence[how](hereOf(player), sessionText({ player: person.id, region, before }));
  if (newest === null) throw new Error('another connection owns him');
  return newest;
}

/** @param has newest offset that the player has of this room */
async function startIn(
  { bus, rooms, presence }: Ground,
  region: string,
  newest: number,
  has: number | undefined,
): Promise<Start> {
  if (has !== undefined && has <= newest) {
    if (has === newest || rooms.covers(region, has))
      return { offset: has, backlog: [], snapshot: null, how: 'warm' };
    const history = await bus.history(region, has);
    const last = history.at(-1)?.offset ?? 0;
    if (history[0]?.offset === has + 1 && last === has + history.length && last >= newest) {
      const backlog = history.map((entry) => frameOf(messageText(entry)));
      return { offset: last, backlog, snapshot: null, how: 'cold' };
    }
  }
  const [people, latest] = await Promise.all([
    presence.people(region, peopleCount),
    latestIn(rooms, bus, region),
  ]);
  // Both are at least as new as this: what follows is told again rather than left out.
  const offset = Math.min(newest, rooms.newest(region) ?? newest);
  const snapshot = { people, latest: latest.filter((message) => message.offset <= offset) };
  return { offset, backlog: [], snapshot, how: 'none' };
}

/** What was said and found last: from memory, or from Redis where this server has not heard enough. */
async function latestIn(rooms: Rooms<Player>, bus: Bus, region: string): Promise<RoomMessage[]> {
  const known = rooms.latest(region, latestRead);
  const texts =
    known.length === latestRead ? known.map(textOf) : (await bus.recent(region, latestRead)).map(messageText);
  return texts
    .map(parseDownward)
    .filter(isRoomMessage)
    .filter(({ t }) => t === 'said' || t === 'discovered')
    .slice(-latestCount);
}

function welcome({ bus, identity }: Ground, player: Player, start: Start): void {
  const { link, session, seq, person, room, sent } = player;
  const { release, replica } = identity;
  tell(link, {
    t: 'welcome',
    session,
    epoch: bus.epoch(),
    seq,
    player: person,
    release,
    replica,
    heartbeatMs: limits.heartbeatMs,
    resumeMs: limits.resumeMs,
    rooms: [{ room, offset: sent, resumed: start.snapshot === null }],
  });
}

function sendStart({ link, room }: Player, { offset, backlog, snapshot }: Start): void {
  if (backlog.length > 0) send(link, Buffer.concat(backlog));
  if (snapshot !== null) tell(link, { t: 'snapshot', room, offset, ...snapshot });
}

/** To another region. Rejects, and he stays where he is, when Redis is away or another connection owns him. */
export async function move(ground: Ground, player: Player, region: string): Promise<void> {
  const { room: left, link } = player;
  const isElsewhere = left !== region;
  const before = isElsewhere ? left : player.before;
  const newest = await settle(ground, { ...player, room: region, before }, 'move');
  const start = await startIn(ground, region, newest, undefined);
  player.before = before;
  tell(link, { t: 'entered', room: region, left: isElsewhere ? left : null });
  goOn(ground, player, region, start);
}

/** A hole was seen: what came after `offset` again, or where the room is now. */
export async function resync(ground: Ground, player: Player, offset: number): Promise<void> {
  const { rooms } = ground;
  const { room } = player;
  const newest = Math.max(offset, rooms.newest(room) ?? 0);
  const start = await startIn(ground, room, newest, offset);
  if (player.room === room) goOn(ground, player, room, start);
}

function goOn(ground: Ground, player: Player, room: string, start: Start): void {
  if (!isOpen(player.link)) return;
  ground.rooms.leave(player);
  const replay = ground.rooms.enter(player, room, start.offset);
  if (replay === null) {
    // Left behind by a whole ring within a few milliseconds: a resume brings it.
    close(player.link, 'restart');
    return;
  }
  sendStart(player, start);
  if (replay.length > 0) send(player.link, replay);
}
