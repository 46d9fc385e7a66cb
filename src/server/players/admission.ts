/**
 * From a hello with a good token to a welcome: which session it is, where the player is, and what they have missed.
 * Promises that any server can do it for any session, that a resume leaves no hole (or says that it does), and that
 * between the replay and what comes live nothing can happen.
 */
import { randomUUID } from 'node:crypto';
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
import type { Bus } from '../redis/bus.ts';
import type { Game } from './game.ts';
import { hereOf, newPlayer, type Player, readSession, type Session, sessionText } from './player.ts';
import { messageText, type Rooms } from './rooms.ts';
import type { Bucket } from './token-bucket.ts';
import { close, frameOf, isOpen, type Link, send, tell, textOf } from './wire.ts';

export interface Arrival {
  hello: Hello;
  person: Person;
  link: Link;
  owner: string;
  frames: Bucket;
}

/** Where a player goes on in a room: `offset` is what they have once `backlog` or the snapshot is sent. */
interface Start {
  offset: number;
  backlog: Buffer[];
  /** For a player who has no offset to continue from; otherwise null. */
  snapshot: { people: Person[]; latest: RoomMessage[] } | null;
  how: 'warm' | 'cold' | 'none';
}

/** Redis may be away for a moment: its restart is no reason to send a player through their back-off. */
const patienceMs = 5_000;
const latestCount = 20;
/** How many messages are read to find `latestCount`: joins and leaves are among them. */
const latestRead = 80;
const peopleCount = 200;

/** @returns the player, who is welcomed and hears their room; or the reason why not */
export async function admit(game: Game, arrival: Arrival): Promise<Player | CloseReason> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    if (!(await game.bus.whenUp(Math.max(0, deadline - performance.now())))) return 'restart';
    try {
      return await tryToAdmit(game, arrival);
    } catch (error) {
      game.log.debug({ reason: error instanceof Error ? error.message : 'unknown' }, 'hello interrupted');
      if (performance.now() >= deadline) return 'restart';
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

async function tryToAdmit(game: Game, { hello, person, link, owner, frames }: Arrival) {
  const { bus, rooms, metrics } = game;
  const epoch = bus.epoch();
  const resume = hello.resume?.epoch === epoch ? hello.resume : undefined;
  const found = resume ? await sessionOf(game, resume.session, person) : null;
  const wished = hello.region !== undefined && isRegion(hello.region) ? hello.region : null;
  const region = wished ?? found?.region ?? firstRegion;
  const before = found === null || found.region === region ? (found?.before ?? null) : found.region;
  const session = found && resume ? resume.session : randomUUID();
  // Sequences expire in a long silence. The client's own memory then goes further back than ours.
  const seq = found ? Math.max(found.seq, resume?.seq ?? 0) : 0;
  const player = newPlayer({ link, person, session, owner, region, before, seq, frames }, performance.now());
  const newest = await settle(game, player, 'join');
  const start = await startIn(game, player.room, newest, found ? resume?.offsets[region] : undefined);
  // From here to the end nothing waits, so nothing can come between the replay and what is told live.
  if (epoch !== bus.epoch()) throw new Error('the epoch has changed in the meantime');
  const replay = rooms.enter(player, region, start.offset);
  if (replay === null) throw new Error('the room has moved on too far in the meantime');
  // In one piece: how fast a fleet of players can arrive depends on the number of writes.
  link.stream.cork();
  welcome(game, player, start);
  sendStart(player, start);
  if (replay.length > 0) send(link, replay);
  link.stream.uncork();
  metrics.resumes.inc({ how: resume || hello.resume ? start.how : 'fresh' });
  return player;
}

async function sessionOf(
  { bus, identity }: Game,
  session: string,
  person: Person,
): Promise<(Session & { seq: number }) | null> {
  const keys = redisKeys(identity.project);
  const [kept, seq] = await bus.commands.mget(keys.session(session), keys.sequence(session));
  const found = readSession(kept ?? null);
  // The id alone opens nothing: a session belongs to its player.
  return found !== null && found.player === person.id ? { ...found, seq: Number(seq ?? 0) } : null;
}

/**
 * Makes the player present where they are.
 * @returns the newest offset there
 * @throws when they move and another connection owns them
 */
async function settle(
  { bus, presence, identity }: Game,
  player: Player,
  how: 'join' | 'move',
): Promise<number> {
  const keys = redisKeys(identity.project);
  const { person, room: region, before } = player;
  if (isProbe(person.id)) return Number((await bus.commands.hget(keys.offsets, region)) ?? 0);
  const newest = await presence[how](hereOf(player), sessionText({ player: person.id, region, before }));
  if (newest === null) throw new Error('another connection owns this player');
  return newest;
}

/** @param has newest offset that the player has of this room */
async function startIn(
  { bus, rooms, presence }: Game,
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
  // People and messages are at least as new as this offset: what follows may be told again, but is never left out.
  const offset = Math.min(newest, rooms.newest(region) ?? newest);
  const snapshot = { people, latest: latest.filter((message) => message.offset <= offset) };
  return { offset, backlog: [], snapshot, how: 'none' };
}

/** The last messages and discoveries: from memory, or from Redis where this server has not heard enough. */
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

function welcome({ bus, identity }: Game, player: Player, start: Start): void {
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

/** To another region. Rejects, and the player stays where they are, when Redis is away or another connection owns them. */
export async function move(game: Game, player: Player, region: string): Promise<void> {
  const { room: left, link } = player;
  const isElsewhere = left !== region;
  const before = isElsewhere ? left : player.before;
  const newest = await settle(game, { ...player, room: region, before }, 'move');
  const start = await startIn(game, region, newest, undefined);
  player.before = before;
  tell(link, { t: 'entered', room: region, left: isElsewhere ? left : null });
  goOn(game, player, region, start);
}

/** The client saw a hole: sends what came after `offset` again, or a snapshot of the room. */
export async function resync(game: Game, player: Player, offset: number): Promise<void> {
  const { rooms } = game;
  const { room } = player;
  const newest = Math.max(offset, rooms.newest(room) ?? 0);
  const start = await startIn(game, room, newest, offset);
  if (player.room === room) goOn(game, player, room, start);
}

function goOn(game: Game, player: Player, room: string, start: Start): void {
  if (!isOpen(player.link)) return;
  game.rooms.leave(player);
  const replay = game.rooms.enter(player, room, start.offset);
  if (replay === null) {
    // The room went on by a whole ring within a few milliseconds: a resume brings what is missing.
    close(player.link, 'restart');
    return;
  }
  sendStart(player, start);
  if (replay.length > 0) send(player.link, replay);
}
