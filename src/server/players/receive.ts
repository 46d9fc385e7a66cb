/**
 * What a welcome player sends. Promises that an acknowledgement means "Redis has it", that a sequence is told to others
 * once however often it comes, and that one player's flood is bounded before anything is parsed.
 */
import { isRegion, parseUpward, type Upward } from '../../protocol.ts';
import { type Ground, move, resync } from './admission.ts';
import { hereOf, type Player } from './player.ts';
import { rates, takeFrom } from './token-bucket.ts';
import { close, isOpen, tell } from './wire.ts';

type Say = Extract<Upward, { t: 'say' }>;

const acknowledgedPerTick = 500;

export function receive(ground: Ground, player: Player, text: string | null): void {
  player.misses = 0;
  const message = text === null ? null : parseUpward(text);
  if (message === null || message.t === 'hello') close(player.link, 'badMessage');
  else if (message.t === 'ping') tell(player.link, { t: 'pong', at: message.at });
  else if (message.t === 'say') say(ground, player, message);
  else if (message.t === 'enter') enter(ground, player, message.region);
  else if (message.room !== player.room) refuse(player, 'resync', 'unknown-room');
  else if (takeFrom(player.asking, rates.resync, performance.now()))
    resync(ground, player, message.offset).catch(() => refuse(player, 'resync', 'unavailable'));
  else refuse(player, 'resync', 'too-fast');
}

function say(ground: Ground, player: Player, { seq, room, text }: Say): void {
  if (seq <= player.seq) {
    tell(player.link, { t: 'ack', seq: player.seq });
    return;
  }
  // He was told where to go on, and will say this again after that.
  if (player.refusedFrom !== null && seq > player.refusedFrom) return;
  if (!maySay(player)) {
    player.refusedFrom = seq;
    refuse(player, 'say', 'too-fast', seq);
    return;
  }
  player.refusedFrom = null;
  // A room that is not his takes the sequence and tells nobody: without it, everything after would be a gap.
  const isHis = [player.room, player.before, player.entering, player.heading].includes(room);
  const { person, session, seq: known } = player;
  const event = isHis ? { t: 'said' as const, from: person, text, at: new Date().toISOString() } : null;
  ground.bus.publish({ session, seq, known, room, event }).then(
    ({ is, at }) => {
      if (is === 'gap') return refuseFrom(player, at, 'gap');
      accepted(player, is === 'duplicate' ? at : seq);
      const newest = ground.rooms.newest(room);
      const isYetToCome = is === 'taken' && isHis && newest !== null && at > newest;
      if (isYetToCome) ground.unacknowledged.add(player);
      else acknowledge(player);
      if (is === 'taken' && !isHis) refuse(player, 'say', 'unknown-room');
    },
    () => refuseFrom(player, seq, 'unavailable'),
  );
}

function accepted(player: Player, seq: number): void {
  player.seq = Math.max(player.seq, seq);
  if (player.refusedFrom !== null && player.refusedFrom <= player.seq) player.refusedFrom = null;
}

function acknowledge({ link, seq }: Player): void {
  tell(link, { t: 'ack', seq });
}

/**
 * What was accepted comes back from the bus within moments, to its player too: his acknowledgement and what his room is
 * told leave in one write, which is what either of them costs. Whose room is told nothing by this read has his sooner.
 */
export function tellWithAcknowledgements(unacknowledged: Set<Player>, tellRooms: () => void): void {
  const corked: Player[] = [];
  for (const player of unacknowledged) {
    if (corked.length === acknowledgedPerTick) break;
    unacknowledged.delete(player);
    player.link.stream.cork();
    acknowledge(player);
    corked.push(player);
  }
  try {
    tellRooms();
  } finally {
    for (const { link } of corked) link.stream.uncork();
  }
  // After a pause of the bus it may be everybody.
  if (unacknowledged.size > 0) setImmediate(() => tellWithAcknowledgements(unacknowledged, () => undefined));
}

/** Once for all that were on their way: the first of them says where to go on. */
function refuseFrom(player: Player, seq: number, why: 'gap' | 'unavailable'): void {
  if (player.refusedFrom !== null && player.refusedFrom <= seq) return;
  player.refusedFrom = seq;
  refuse(player, 'say', why, seq);
}

function enter(ground: Ground, player: Player, region: string): void {
  if (!isRegion(region)) refuse(player, 'enter', 'unknown-room');
  else if (!maySay(player)) refuse(player, 'enter', 'too-fast');
  else {
    player.heading = region;
    if (player.entering === null) void follow(ground, player);
  }
}

async function follow(ground: Ground, player: Player): Promise<void> {
  while (player.heading !== null && isOpen(player.link)) {
    player.entering = player.heading;
    player.heading = null;
    await move(ground, player, player.entering).catch(() => refuse(player, 'enter', 'unavailable'));
  }
  player.entering = null;
  // He left on the way: where he was going, nobody would miss him until he expires.
  if (!isOpen(player.link)) await ground.presence.leave(hereOf(player), false).catch(() => undefined);
}

function maySay(player: Player): boolean {
  return takeFrom(player.saying, rates.saying, performance.now());
}

function refuse(
  { link }: Player,
  what: string,
  why: 'too-fast' | 'gap' | 'unavailable' | 'unknown-room',
  seq?: number,
): void {
  tell(link, { t: 'refused', what, why, ...(seq === undefined ? {} : { seq }) });
}
