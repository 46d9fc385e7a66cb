/**
 * A world for the client's core, small enough to be tried in any order: servers that tail one bus at their own pace,
 * a memory that can fail or be flushed, and sockets as two queues each. Nothing here happens by itself: the test says
 * which queue moves next, which message is lost or doubled, which socket breaks.
 */
import { step } from '../../../src/client/core.ts';
import {
  type ClientEvent,
  type Input,
  initialState,
  type State,
  statusOf,
  type Timer,
} from '../../../src/client/core-state.ts';
import type { Downward, RoomMessage, Upward } from '../../../src/protocol.ts';

type InputWithoutTime = Input extends infer One ? (One extends Input ? Omit<One, 'at'> : never) : never;

interface Link {
  server: number;
  up: Upward[];
  down: Downward[];
  isOpened: boolean;
  session: string | null;
  room: string;
  /** The newest sequence that this server knows of the session. */
  known: number;
}

export const home = 'r0-0';
export const away = 'r1-0';

export function clientWorld({ ring = Number.POSITIVE_INFINITY }: { ring?: number } = {}) {
  const servers = 3;
  const memory = {
    epoch: 1,
    isUp: true,
    bus: [] as RoomMessage[],
    rooms: new Map<string, RoomMessage[]>(),
    sequences: new Map<string, number>(),
    /** Where each session is. */
    places: new Map<string, string>(),
  };
  /** How much of the bus each server has read. */
  const read = Array.from({ length: servers }, () => 0);
  const links = new Map<number, Link>();
  const timers = new Map<Timer, true>();
  const events: ClientEvent[] = [];
  const accepted: string[] = [];
  let sessions = 0;
  let at = 0;
  let wantsToken = false;
  let state: State = initialState({ token: 't' });

  const put = (input: InputWithoutTime): void => {
    at += 7;
    const next = step(state, { ...input, at } as Input);
    state = next.state;
    for (const effect of next.effects) {
      if (effect.do === 'emit') events.push(effect.event);
      else if (effect.do === 'open') {
        const server = effect.to === null ? effect.link % servers : effect.to % servers;
        const link = { server, up: [], down: [], isOpened: false, session: null, room: home, known: 0 };
        links.set(effect.link, link);
      } else if (effect.do === 'send') links.get(effect.link)?.up.push(effect.message);
      // A farewell flushes nothing: what is on its way up still arrives, what comes down is not heard any more.
      else if (effect.do === 'close') leave(effect.link);
      else if (effect.do === 'drop') links.delete(effect.link);
      else if (effect.do === 'wait' || effect.do === 'back-off') timers.set(effect.timer, true);
      else if (effect.do === 'cancel') timers.delete(effect.timer);
      else wantsToken = true;
    }
  };

  const leave = (id: number): void => {
    const link = links.get(id);
    if (!link) return;
    while (link.up.length > 0) arrive(link);
    links.delete(id);
  };

  /** What a server knows of a room: as much of the bus as it has read. */
  const known = (server: number, room: string) =>
    memory.bus.slice(0, read[server]).filter((one) => one.room === room);

  const publish = (room: string, text: string): void => {
    const log = memory.rooms.get(room) ?? [];
    const offset = log.length + 1;
    const from = { id: 'x', name: 'x' };
    const message: RoomMessage = { t: 'said', from, text, at: '', room, offset };
    memory.rooms.set(room, [...log, message]);
    memory.bus.push(message);
  };

  const enterRoom = (link: Link, room: string, have: number | undefined): void => {
    link.room = room;
    memory.places.set(link.session ?? '', room);
    const all = known(link.server, room);
    const newest = all.length;
    const isCovered = have !== undefined && newest - have <= ring;
    const rooms = [{ room, offset: newest, resumed: isCovered }];
    link.down.push({
      t: 'welcome',
      session: link.session ?? '',
      epoch: String(memory.epoch),
      seq: link.known,
      player: { id: 'me', name: 'me' },
      release: link.server,
      replica: 1,
      heartbeatMs: 30_000,
      resumeMs: 150_000,
      rooms,
    });
    if (isCovered) link.down.push(...all.slice(have));
    else link.down.push(snapshotOf(link.server, room));
  };

  const snapshotOf = (server: number, room: string): Downward => {
    const all = known(server, room);
    const latest = all.slice(-Math.min(ring, 3));
    return { t: 'snapshot', room, offset: all.length, people: [], latest };
  };

  const greet = (link: Link, { resume, region }: Extract<Upward, { t: 'hello' }>): void => {
    const isKnown = resume !== undefined && resume.epoch === String(memory.epoch);
    const hasSession = isKnown && memory.places.has(resume.session);
    sessions += 1;
    link.session = hasSession ? resume.session : `session-${sessions}`;
    link.known = Math.max(memory.sequences.get(link.session) ?? 0, hasSession ? (resume.seq ?? 0) : 0);
    const room = region ?? memory.places.get(link.session) ?? home;
    enterRoom(link, room, isKnown ? resume.offsets[room] : undefined);
  };

  const hearSay = (link: Link, { seq, room, text }: Extract<Upward, { t: 'say' }>): void => {
    const last = memory.sequences.get(link.session ?? '') ?? link.known;
    if (!memory.isUp) link.down.push({ t: 'refused', what: 'say', why: 'unavailable', seq });
    else if (seq > last + 1) link.down.push({ t: 'refused', what: 'say', why: 'unavailable', seq: last + 1 });
    else {
      if (seq === last + 1) {
        memory.sequences.set(link.session ?? '', seq);
        accepted.push(text);
        publish(room, text);
      }
      link.known = Math.max(seq, last);
      link.down.push({ t: 'ack', seq: link.known });
    }
  };

  /** The server takes the next message of a socket. */
  const arrive = (link: Link): void => {
    const message = link.up.shift();
    if (message === undefined) return;
    if (message.t === 'hello') greet(link, message);
    else if (message.t === 'say') hearSay(link, message);
    else if (message.t === 'ping') link.down.push({ t: 'pong', at: message.at });
    else if (message.t === 'enter') {
      const left = link.room;
      link.room = message.region;
      memory.places.set(link.session ?? '', message.region);
      link.down.push({ t: 'entered', room: message.region, left });
      link.down.push(snapshotOf(link.server, message.region));
    } else if (message.t === 'resync') {
      const all = known(link.server, message.room);
      if (all.length - message.offset <= ring) link.down.push(...all.slice(message.offset));
      else link.down.push(snapshotOf(link.server, message.room));
    }
  };

  const world = {
    memory,
    events,
    accepted,
    state: () => state,
    put,
    links: () => [...links.keys()],
    timers: () => [...timers.keys()],
    publish,
    /** A server reads the next entry of the bus and tells it to who is in that room. */
    readBus(server: number) {
      const message = memory.bus[read[server] ?? 0];
      if (message === undefined) return;
      read[server] = (read[server] ?? 0) + 1;
      for (const link of links.values())
        if (link.server === server && link.session !== null && link.room === message.room)
          link.down.push(message);
    },
    openOrArrive(id: number) {
      const link = links.get(id);
      if (!link) return;
      if (link.isOpened) arrive(link);
      else {
        link.isOpened = true;
        put({ t: 'opened', link: id });
      }
    },
    deliver(id: number) {
      const message = links.get(id)?.down.shift();
      if (message !== undefined) put({ t: 'received', link: id, message });
    },
    /** Only what rooms say may get lost on a socket that stays open: a server that skips for a slow reader. */
    lose(id: number) {
      const link = links.get(id);
      if (link?.down[0] && 'offset' in link.down[0] && link.down[0].t !== 'snapshot') link.down.shift();
    },
    double(id: number) {
      const link = links.get(id);
      if (link?.down[0] && 'offset' in link.down[0] && link.down[0].t !== 'snapshot')
        link.down.splice(1, 0, link.down[0]);
    },
    swap(id: number) {
      const link = links.get(id);
      const [first, second, ...rest] = link?.down ?? [];
      const isRoom = (one?: Downward) => one !== undefined && 'offset' in one && one.t !== 'snapshot';
      if (link && first && second && isRoom(first) && isRoom(second)) link.down = [second, first, ...rest];
    },
    hint(id: number, to: number) {
      const link = links.get(id);
      if (!link?.session) return;
      link.down.push({ t: 'reconnect', reason: 'deploy', to, afterMs: 100, deadlineMs: 10_000 });
    },
    break(id: number, code: number) {
      if (links.delete(id)) put({ t: 'closed', link: id, code });
    },
    fire(timer: Timer) {
      if (timers.delete(timer)) put({ t: 'timer', timer });
    },
    answerRefresh(token: string | 'failed') {
      if (!wantsToken) return;
      wantsToken = false;
      put(token === 'failed' ? { t: 'token-failed' } : { t: 'token', token });
    },
    /** Sequences expire when nothing was said for long: longer than a hello or a message is on its way. */
    forgetSequences() {
      const isBusy = [...links.values()].some((link) => link.up.length + link.down.length > 0);
      if (state.unacked.length === 0 && state.opening === null && !isBusy) memory.sequences.clear();
    },
    flush() {
      memory.epoch += 1;
      memory.bus.length = 0;
      memory.rooms.clear();
      memory.sequences.clear();
      memory.places.clear();
      read.fill(0);
      for (const id of [...links.keys()]) world.break(id, 4410);
    },
    /** Everything that is on its way arrives, and whatever the client waits for happens. */
    settle() {
      memory.isUp = true;
      for (let quiet = 0; quiet < 3; quiet += 1) {
        const before = at;
        if (statusOf(state) === 'gave-up') put({ t: 'start' });
        world.answerRefresh('fresh');
        for (let server = 0; server < servers; server += 1)
          for (let n = 0; n < 20; n += 1) world.readBus(server);
        for (const id of [...links.keys()])
          for (let n = 0; n < 20; n += 1) {
            world.openOrArrive(id);
            world.deliver(id);
          }
        for (const timer of ['retry', 'move', 'repeat'] as const) world.fire(timer);
        if (at > before) quiet = -1;
        // What was asked for again and got lost once more is asked for after a while.
        at += 2_000;
      }
    },
    heard: () => events.flatMap((event) => (event.type === 'message' ? [event.message] : [])),
  };
  put({ t: 'start' });
  return world;
}

export type ClientWorld = ReturnType<typeof clientWorld>;
