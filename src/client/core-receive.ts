/**
 * The half of the client's core that answers what the server says. Pure, as core.ts is.
 */
import {
  type Downward,
  type Hello,
  isRoomMessage,
  type RoomMessage,
  type RoomState,
  stableMs,
  type Welcome,
} from '../protocol.ts';
import { type Draft, emit, leaveOld, pump, type Room, type State, send } from './core-state.ts';

type Of<Type extends Downward['t']> = Extract<Downward, { t: Type }>;

/** A missing part that was asked for and has not come is asked for once more after this time. */
const askAgainMs = 5_000;

export function helloOf(state: State): Hello {
  const { token, region, session, epoch, rooms } = state;
  const offsets = Object.entries(rooms).flatMap(([room, { offset }]) => (offset < 0 ? [] : [[room, offset]]));
  const hasSession = session !== null && epoch !== null;
  return {
    t: 'hello',
    v: 1,
    token,
    ...(region === null ? {} : { region }),
    ...(hasSession
      ? { resume: { session, epoch, offsets: Object.fromEntries(offsets), seq: ackedOf(state) } }
      : {}),
  };
}

/** What comes on a socket that is neither live nor opening is dropped: it comes again on the next socket. */
export function receive(draft: Draft, link: number, message: Downward, at: number): void {
  const { state } = draft;
  if (state.opening === link) {
    if (message.t === 'welcome') welcomed(draft, message, at);
    return;
  }
  if (state.live?.id !== link) return;
  state.live = { ...state.live, heardAt: at };
  if (isRoomMessage(message)) hear(draft, message, at);
  else if (message.t === 'ack') acknowledged(draft, message.seq);
  else if (message.t === 'refused') refused(draft, message);
  else if (message.t === 'pong') emit(draft, { type: 'rtt', ms: at - message.at });
  else if (message.t === 'snapshot') snapshotCame(draft, message);
  else if (message.t === 'entered') entered(draft, message);
  else if (message.t === 'reconnect') hinted(draft, message, at);
}

function welcomed(draft: Draft, welcome: Welcome, at: number): void {
  const { state, effects } = draft;
  const from = { live: state.live, servedBy: state.servedBy, lostAt: state.lostAt };
  const isSame = state.session === welcome.session && state.epoch === welcome.epoch;
  if (from.live) leaveOld(draft, from.live.id);
  const id = state.opening ?? state.links;
  Object.assign(state, {
    live: { id, heardAt: at, silenceMs: 2 * welcome.heartbeatMs },
    opening: null,
    hint: null,
    moveTries: 0,
    isHolding: false,
    session: welcome.session,
    epoch: welcome.epoch,
    rooms: roomsOf(welcome.rooms, state.rooms, state.epoch === welcome.epoch),
    servedBy: `${welcome.release}/${welcome.replica}`,
    lostAt: null,
    lastCode: null,
  });
  takeUpQueue(draft, welcome.seq, isSame);
  for (const timer of ['welcome', 'move', 'repeat'] as const) effects.push({ do: 'cancel', timer });
  effects.push(
    { do: 'wait', timer: 'stable', ms: stableMs },
    // The first round trip is measured soon. After a move there is no hurry, and servers are busy then.
    {
      do: 'wait',
      timer: 'beat',
      ms: from.servedBy === null ? Math.min(state.pingEveryMs, 1_000) : state.pingEveryMs,
    },
  );
  emit(draft, { type: 'welcome', welcome });
  if (from.servedBy !== null) {
    const how = from.live && isSame ? 'moved' : isSame ? 'resumed' : 'anew';
    const gapMs = from.lostAt === null ? 0 : at - from.lostAt;
    emit(draft, { type: 'handover', from: from.servedBy, to: state.servedBy ?? '', gapMs, how });
  }
  const [first] = welcome.rooms;
  state.region ??= first?.room ?? null;
  if (state.region !== null && !(state.region in state.rooms))
    send(draft, id, { t: 'enter', region: state.region });
  pump(draft);
}

function roomsOf(
  told: readonly RoomState[],
  known: Readonly<Record<string, Room>>,
  isSameEpoch: boolean,
): Record<string, Room> {
  const rooms = told.map(({ room, offset, resumed }): [string, Room] => {
    const before = isSameEpoch ? (known[room]?.offset ?? -1) : -1;
    if (!resumed) return [room, { offset: before, isWaiting: true, askedAt: null }];
    return [room, { offset: before < 0 ? offset : before, isWaiting: false, askedAt: null }];
  });
  return Object.fromEntries(rooms);
}

const ackedOf = ({ seq, unacked }: State): number => seq - unacked.length;

/**
 * In the same session the sequences stay what they are: the first socket may have had an acknowledgement since the second
 * server looked, and a sequence that is given twice would be taken for a duplicate. In a new session they begin anew.
 */
function takeUpQueue(draft: Draft, seq: number, isSame: boolean): void {
  const { state } = draft;
  if (isSame) settle(draft, seq);
  const acked = isSame ? Math.max(seq, ackedOf(state)) : seq;
  state.unacked = state.unacked.map((one, index) => ({ ...one, seq: acked + 1 + index }));
  state.seq = acked + state.unacked.length;
  state.sentTo = acked;
}

function acknowledged(draft: Draft, seq: number): void {
  const { state } = draft;
  settle(draft, seq);
  state.sentTo = Math.max(state.sentTo, Math.min(seq, state.seq));
  pump(draft);
}

function settle({ state, effects }: Draft, seq: number): void {
  const rest = state.unacked.filter((one) => one.seq > seq);
  const messages = state.unacked.length - rest.length;
  if (messages === 0) return;
  state.unacked = rest;
  state.repeats = 0;
  effects.push({ do: 'emit', event: { type: 'acked', messages } });
}

/** Everything from the refused message on is said again, in order, after one pause for however many refusals. */
function refused(draft: Draft, { what, why, seq }: Of<'refused'>): void {
  const { state, effects } = draft;
  // An earlier wish may still be on its way, so the server decides where the player is then.
  if (seq === undefined && what === 'enter') state.region = null;
  emit(draft, { type: 'refused', what, why, isKept: seq !== undefined });
  const [first] = state.unacked;
  if (seq === undefined || !first) return;
  // A refusal of a message that is acknowledged by now is late: another server took it in the meantime.
  state.sentTo = Math.min(state.sentTo, Math.max(seq, first.seq) - 1);
  if (state.isHolding) return;
  state.isHolding = true;
  effects.push({ do: 'back-off', timer: 'repeat', n: state.repeats });
  state.repeats += 1;
}

function hear(draft: Draft, message: RoomMessage, at: number): void {
  const { state } = draft;
  const room = state.rooms[message.room];
  if (!room || room.isWaiting || message.offset <= room.offset) return;
  if (message.offset === room.offset + 1) {
    setRoom(state, message.room, { offset: message.offset, isWaiting: false, askedAt: null });
    emit(draft, { type: 'message', message });
  } else if (room.askedAt === null || at - room.askedAt > askAgainMs) {
    setRoom(state, message.room, { ...room, askedAt: at });
    if (state.live) send(draft, state.live.id, { t: 'resync', room: message.room, offset: room.offset });
  }
}

/** Messages of the missed part that the snapshot still has are heard first, in their place. */
function snapshotCame(draft: Draft, snapshot: Of<'snapshot'>): void {
  const { state } = draft;
  const room = state.rooms[snapshot.room];
  if (!room) return;
  const isNew = (offset: number) => offset > room.offset && offset <= snapshot.offset;
  const late = room.offset < 0 ? [] : snapshot.latest.filter((one) => isNew(one.offset));
  for (const message of late) emit(draft, { type: 'message', message });
  const missed = room.offset < 0 ? 0 : Math.max(0, snapshot.offset - room.offset - late.length);
  const offset = Math.max(room.offset, snapshot.offset);
  setRoom(state, snapshot.room, { offset, isWaiting: false, askedAt: null });
  emit(draft, { type: 'snapshot', snapshot, missed });
}

function entered(draft: Draft, { room, left }: Of<'entered'>): void {
  const { state } = draft;
  const rooms = { ...state.rooms };
  if (left !== null && left !== room) delete rooms[left];
  rooms[room] ??= { offset: -1, isWaiting: true, askedAt: null };
  state.rooms = rooms;
  state.region ??= room;
  emit(draft, { type: 'entered', room, left });
}

/** Another hint comes when the deploy is backed out of. A move that is under way is not disturbed. */
function hinted(draft: Draft, { to, afterMs, deadlineMs }: Of<'reconnect'>, at: number): void {
  const { state, effects } = draft;
  if (state.opening) return;
  state.hint = { to, deadlineAt: at + deadlineMs };
  state.moveTries = 0;
  effects.push({ do: 'wait', timer: 'move', ms: afterMs });
}

function setRoom(state: State, name: string, room: Room): void {
  state.rooms = { ...state.rooms, [name]: room };
}
