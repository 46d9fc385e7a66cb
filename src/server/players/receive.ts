/**
 * What a welcomed player sends. Promises that an acknowledgement means "Redis has it", and that a sequence is told to
 * others once, however often it comes.
 */
import { isRegion, parseUpward, type Upward } from '../../protocol.ts';
import { acknowledge } from './acknowledge.ts';
import { move, resync } from './admission.ts';
import type { Game } from './game.ts';
import { hereOf, type Player } from './player.ts';
import { rates, takeFrom } from './token-bucket.ts';
import { close, isOpen, tell } from './wire.ts';

type Say = Extract<Upward, { t: 'say' }>;

export function receive(game: Game, player: Player, text: string | null): void {
  player.misses = 0;
  const message = text === null ? null : parseUpward(text);
  if (message === null || message.t === 'hello') close(player.link, 'badMessage');
  else if (message.t === 'ping') tell(player.link, { t: 'pong', at: message.at });
  else if (message.t === 'say') say(game, player, message);
  else if (message.t === 'enter') enter(game, player, message.region);
  else if (message.room !== player.room) refuse(player, 'resync', 'unknown-room');
  else if (takeFrom(player.asking, rates.resync, performance.now()))
    resync(game, player, message.offset).catch(() => refuse(player, 'resync', 'unavailable'));
  else refuse(player, 'resync', 'too-fast');
}

function say(game: Game, player: Player, { seq, room, text }: Say): void {
  if (seq <= player.seq) {
    tell(player.link, { t: 'ack', seq: player.seq });
    return;
  }
  // The client was told where to go on, and will say this again after that.
  if (player.refusedFrom !== null && seq > player.refusedFrom) return;
  if (!maySay(player)) {
    player.refusedFrom = seq;
    refuse(player, 'say', 'too-fast', seq);
    return;
  }
  player.refusedFrom = null;
  // For a room where the player is not, the sequence is taken and nobody is told: without it, everything after this
  // message would be a gap.
  const isTheirs = [player.room, player.before, player.entering, player.heading].includes(room);
  const { person, session, seq: known } = player;
  const event = isTheirs ? { t: 'said' as const, from: person, text, at: new Date().toISOString() } : null;
  game.bus.publish({ session, seq, known, room, event }).then(
    ({ is, at }) => {
      if (is === 'gap') return refuseFrom(player, at, 'gap');
      accepted(player, is === 'duplicate' ? at : seq);
      const newest = game.rooms.newest(room);
      const isYetToCome = is === 'taken' && isTheirs && newest !== null && at > newest;
      if (isYetToCome) game.unacknowledged.add(player);
      else acknowledge(player);
      if (is === 'taken' && !isTheirs) refuse(player, 'say', 'unknown-room');
    },
    () => refuseFrom(player, seq, 'unavailable'),
  );
}

function accepted(player: Player, seq: number): void {
  player.seq = Math.max(player.seq, seq);
  if (player.refusedFrom !== null && player.refusedFrom <= player.seq) player.refusedFrom = null;
}

/** Refuses once for all messages that were on their way: the first of them says where to go on. */
function refuseFrom(player: Player, seq: number, why: 'gap' | 'unavailable'): void {
  // The answer was lost, and is given up after a later attempt was accepted. The client would not say it again, and
  // everything after it would be dropped as said too early.
  if (seq <= player.seq) return;
  if (player.refusedFrom !== null && player.refusedFrom <= seq) return;
  player.refusedFrom = seq;
  refuse(player, 'say', why, seq);
}

function enter(game: Game, player: Player, region: string): void {
  if (!isRegion(region)) refuse(player, 'enter', 'unknown-room');
  else if (!maySay(player)) refuse(player, 'enter', 'too-fast');
  else {
    player.heading = region;
    if (player.entering === null) void follow(game, player);
  }
}

async function follow(game: Game, player: Player): Promise<void> {
  while (player.heading !== null && isOpen(player.link)) {
    player.entering = player.heading;
    player.heading = null;
    await move(game, player, player.entering).catch(() => refuse(player, 'enter', 'unavailable'));
  }
  player.entering = null;
  // The player left on the way. Without this they would stay present, where they were going, until they expire.
  if (!isOpen(player.link)) await game.presence.leave(hereOf(player), false).catch(() => undefined);
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
