/** One connected player, as this server knows them, and the session that outlives the connection. */
import type { Person } from '../../protocol.ts';
import type { Here } from '../redis/presence.ts';
import type { Listener } from './rooms.ts';
import { type Bucket, fullBucket, rates } from './token-bucket.ts';
import type { Link } from './wire.ts';

export interface Player extends Listener {
  readonly link: Link;
  readonly person: Person;
  readonly session: string;
  /** `<release>/<replica>/<connection>` */
  readonly owner: string;
  /** The room the player came from: what they said there and could not be sure of may still come. */
  before: string | null;
  /** Newest sequence of the session that is known to be accepted. */
  seq: number;
  /** The client was told to say everything again from here on. What comes after it before that is dropped. */
  refusedFrom: number | null;
  /** Where the player wants to go; the last wish wins. */
  heading: string | null;
  /** Where the player is being taken; null while they stay. */
  entering: string | null;
  misses: number;
  readonly frames: Bucket;
  readonly saying: Bucket;
  readonly asking: Bucket;
  /** When the player was told to go elsewhere. */
  hintedAt: number | null;
  /** When the time for that hint is up. */
  overdueAt: number;
}

/** What Redis keeps of a session. */
export interface Session {
  player: string;
  region: string;
  before: string | null;
}

export interface NewPlayer {
  link: Link;
  person: Person;
  session: string;
  owner: string;
  region: string;
  before: string | null;
  seq: number;
  frames: Bucket;
}

/**
 * Written out field by field: an object that is made by a spread has a hidden class of its own, and that slows down
 * whatever touches all players.
 */
export function newPlayer(given: NewPlayer, now: number): Player {
  return {
    link: given.link,
    person: given.person,
    session: given.session,
    owner: given.owner,
    room: given.region,
    before: given.before,
    seq: given.seq,
    frames: given.frames,
    sent: 0,
    refusedFrom: null,
    heading: null,
    entering: null,
    misses: 0,
    saying: fullBucket(rates.saying, now),
    asking: fullBucket(rates.resync, now),
    hintedAt: null,
    overdueAt: Number.POSITIVE_INFINITY,
  };
}

export function hereOf({ person, room, owner, session }: Player): Here {
  return { person, region: room, owner, session };
}

export function sessionText({ player, region, before }: Session): string {
  return JSON.stringify({ player, region, before });
}

/** null for a text that is no session. */
export function readSession(text: string | null): Session | null {
  if (text === null) return null;
  try {
    const { player, region, before } = JSON.parse(text) as Partial<Session>;
    if (typeof player !== 'string' || typeof region !== 'string') return null;
    return { player, region, before: typeof before === 'string' ? before : null };
  } catch {
    return null;
  }
}
