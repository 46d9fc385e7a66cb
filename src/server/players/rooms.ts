/**
 * Who is in which room, what was told there last, and who has heard it. Promises every player the messages of their room
 * in order, each once, without a hole; and that no tick is long, however full a room is.
 *
 * Resume is one synchronous step: the player gets what the ring holds after their offset, and from then on hears what
 * comes. Nothing can happen between the two.
 */
import type { BusEntry } from '../redis/bus-entry.ts';
import { frameOf, type Link, sendAll } from './wire.ts';

/** One player's place in a room. */
export interface Listener {
  readonly link: Link;
  room: string;
  /** Newest offset of the room that the player has been sent. */
  sent: number;
}

export interface Rooms<L extends Listener> {
  /** From the bus. `again`: an offset was given out twice. `hole`: one never came. */
  take(entries: readonly BusEntry[]): 'good' | 'again' | 'hole';
  /** Everything the room was told after `offset` is still in the ring, or is yet to come. */
  covers(room: string, offset: number): boolean;
  /** Newest offset that was read of that room; null when none was. */
  newest(room: string): number | null;
  /**
   * From now on the listener hears this room.
   * @returns in one piece, what they have not heard since `offset`; null, and they do not hear the room, when that is no
   * longer in the ring
   */
  enter(listener: L, room: string, offset: number): Buffer | null;
  leave(listener: L): void;
  /** Frames of the newest messages, oldest first. */
  latest(room: string, count: number): Buffer[];
  /** Forgets what was told. The listeners stay, and hear nothing more. */
  forget(): void;
}

interface Room<L> {
  /** Frames of the messages up to `last`, without a hole. */
  ring: Buffer[];
  last: number;
  members: Set<L>;
}

/** What a room was told in one go. */
interface Delivery<L> {
  /** Of the newest of `frames`, whose offsets rise by one. */
  offset: number;
  frames: Buffer[];
  /** `frames` in one piece: what costs most of a delivery is the write, not the bytes. */
  piece: Buffer;
  /** Over a Set: a listener who leaves in the meantime is left out; a listener who enters has been sent it already. */
  rest: Iterator<L>;
}

export interface RoomsRequest {
  /** Messages of a room that can be replayed from here. */
  ringLength: number;
  perTick?: number;
  onDelivered: (count: number) => void;
}

const nothing = Buffer.alloc(0);
const bytesPerWrite = 16_384;

export function openRooms<L extends Listener>({
  ringLength,
  perTick = 500,
  onDelivered,
}: RoomsRequest): Rooms<L> {
  const rooms = new Map<string, Room<L>>();
  const deliveries: Delivery<L>[] = [];
  let isPumping = false;

  const roomOf = (name: string): Room<L> => {
    const known = rooms.get(name);
    if (known) return known;
    const made: Room<L> = { ring: [], last: 0, members: new Set() };
    rooms.set(name, made);
    return made;
  };

  /** @param told frames of this turn, by room */
  function takeOne(entry: BusEntry, told: Map<Room<L>, Buffer[]>): 'good' | 'again' | 'hole' {
    const room = roomOf(entry.room);
    const isFirst = room.last === 0;
    if (!isFirst && entry.offset <= room.last) return 'again';
    const isHole = !isFirst && entry.offset > room.last + 1;
    if (isHole) {
      room.ring = [];
      told.delete(room);
    }
    const frame = frameOf(messageText(entry));
    room.ring.push(frame);
    room.last = entry.offset;
    if (room.ring.length > ringLength) room.ring.shift();
    const frames = told.get(room);
    if (frames) frames.push(frame);
    else if (room.members.size > 0) told.set(room, [frame]);
    return isHole ? 'hole' : 'good';
  }

  function tellAll(told: ReadonlyMap<Room<L>, Buffer[]>): void {
    for (const [{ last, members }, frames] of told) {
      const [only] = frames;
      const piece = frames.length === 1 && only ? only : Buffer.concat(frames);
      deliveries.push({ offset: last, frames, piece, rest: members.values() });
    }
    if (!isPumping && deliveries.length > 0) pump();
  }

  function pump(): void {
    isPumping = true;
    const tick = { left: perTick, told: 0 };
    let done = 0;
    for (const delivery of deliveries) {
      if (!deliver(delivery, tick)) break;
      done += 1;
    }
    deliveries.splice(0, done);
    onDelivered(tick.told);
    isPumping = deliveries.length > 0;
    if (isPumping) setImmediate(pump);
  }

  return {
    take(entries) {
      const told = new Map<Room<L>, Buffer[]>();
      let worst: 'good' | 'again' | 'hole' = 'good';
      for (const entry of entries) {
        const one = takeOne(entry, told);
        if (one !== 'good') worst = one;
        if (one === 'again') break;
      }
      tellAll(told);
      return worst;
    },
    covers(name, offset) {
      const room = rooms.get(name);
      if (room === undefined || room.last === 0) return false;
      return offset >= room.last - room.ring.length;
    },
    newest: (name) => rooms.get(name)?.last || null,
    enter(listener, name, offset) {
      const room = roomOf(name);
      const missing = room.last - offset;
      if (missing > room.ring.length) return null;
      listener.room = name;
      listener.sent = Math.max(offset, room.last);
      room.members.add(listener);
      return missing > 0 ? Buffer.concat(room.ring.slice(-missing)) : nothing;
    },
    leave(listener) {
      const room = rooms.get(listener.room);
      room?.members.delete(listener);
    },
    latest: (name, count) => rooms.get(name)?.ring.slice(-count) ?? [],
    forget() {
      deliveries.length = 0;
      for (const room of rooms.values()) {
        room.ring = [];
        room.last = 0;
        // From here on offsets begin anew: nobody who heard the old ones may take a new message for the next.
        for (const member of room.members) member.sent = Number.MAX_SAFE_INTEGER;
      }
    },
  };
}

/** The event with room and offset in front: nothing is parsed on the way through. */
export function messageText({ room, offset, body }: BusEntry): string {
  return `{"room":${JSON.stringify(room)},"offset":${offset},${body.slice(1)}`;
}

/** @returns whether everybody has it; false when this tick has written enough */
function deliver<L extends Listener>(
  { offset, frames, piece, rest }: Delivery<L>,
  tick: { left: number; told: number },
): boolean {
  // A large piece counts as several: what is copied to the kernel takes its time as well.
  const cost = Math.ceil(piece.length / bytesPerWrite);
  while (tick.left > 0) {
    const next = rest.next();
    if (next.done) return true;
    const listener = next.value;
    const missing = offset - listener.sent;
    if (missing <= 0) continue;
    listener.sent = offset;
    tick.left -= cost;
    if (missing < frames.length) {
      sendAll(listener.link, frames.slice(-missing));
      tick.told += missing;
    } else {
      sendAll(listener.link, frames, piece);
      tick.told += frames.length;
    }
  }
  return false;
}
