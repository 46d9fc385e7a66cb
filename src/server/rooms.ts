/**
 * Who is in which room, what was told there last, and who has heard it. Promises every player his room's messages in
 * order, each once, without a hole; and that no tick is long, however full a room is.
 *
 * Resume is one synchronous step: what the ring holds after a player's offset, then he is among those who hear what
 * comes. Nothing can happen between the two.
 */
import type { BusEntry } from './bus.ts';
import { frameOf, type Link, send } from './wire.ts';

/** One player's place in a room. */
export interface Listener {
  readonly link: Link;
  room: string;
  /** Newest offset of his room that he has been sent. */
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
   * From now on he hears this room. Returns, in one piece, what he has not heard since `offset`; null, and he does not
   * hear it, when that is no longer in the ring.
   */
  enter(listener: L, room: string, offset: number): Buffer | null;
  leave(listener: L): void;
  /** Frames of the newest messages, oldest first. */
  latest(room: string, count: number): Buffer[];
  count(room: string): number;
  /** Forgets what was told. Who is here stays, and hears nothing more. */
  forget(): void;
}

interface Room<L> {
  /** Frames of the messages up to `last`, without a hole. */
  ring: Buffer[];
  last: number;
  members: Set<L>;
}

interface Delivery<L> {
  offset: number;
  frame: Buffer;
  /** Of a Set: who leaves meanwhile is left out, who comes has been sent it. */
  rest: Iterator<L>;
}

export interface RoomsRequest {
  /** Messages of a room that can be replayed from here. */
  ringLength: number;
  perTick?: number;
  onDelivered: (count: number) => void;
}

const nothing = Buffer.alloc(0);

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

  function takeOne(entry: BusEntry): 'good' | 'again' | 'hole' {
    const room = roomOf(entry.room);
    const isFirst = room.last === 0;
    if (!isFirst && entry.offset <= room.last) return 'again';
    const isHole = !isFirst && entry.offset > room.last + 1;
    if (isHole) room.ring = [];
    const frame = frameOf(messageText(entry));
    room.ring.push(frame);
    room.last = entry.offset;
    if (room.ring.length > ringLength) room.ring.shift();
    if (room.members.size > 0) deliveries.push({ offset: entry.offset, frame, rest: room.members.values() });
    return isHole ? 'hole' : 'good';
  }

  function pump(): void {
    isPumping = true;
    let left = perTick;
    let done = 0;
    for (const delivery of deliveries) {
      left = deliver(delivery, left);
      if (left === 0) break;
      done += 1;
    }
    deliveries.splice(0, done);
    onDelivered(perTick - left);
    isPumping = deliveries.length > 0;
    if (isPumping) setImmediate(pump);
  }

  return {
    take(entries) {
      let worst: 'good' | 'again' | 'hole' = 'good';
      for (const entry of entries) {
        const one = takeOne(entry);
        if (one === 'again') return one;
        if (one === 'hole') worst = one;
      }
      if (!isPumping && deliveries.length > 0) pump();
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
    count: (name) => rooms.get(name)?.members.size ?? 0,
    forget() {
      deliveries.length = 0;
      for (const room of rooms.values()) {
        room.ring = [];
        room.last = 0;
        // What is told from here on has other offsets: nobody who heard the old ones may take it for the next.
        for (const member of room.members) member.sent = Number.MAX_SAFE_INTEGER;
      }
    },
  };
}

/** The event, with its place in front: nothing is parsed on the way through. */
export function messageText({ room, offset, body }: BusEntry): string {
  return `{"room":${JSON.stringify(room)},"offset":${offset},${body.slice(1)}`;
}

/** @returns how many deliveries are left of this tick */
function deliver<L extends Listener>({ offset, frame, rest }: Delivery<L>, left: number): number {
  for (let remaining = left; remaining > 0; remaining -= 1) {
    const next = rest.next();
    if (next.done) return remaining;
    const listener = next.value;
    if (listener.sent >= offset) continue;
    listener.sent = offset;
    send(listener.link, frame);
  }
  return 0;
}
