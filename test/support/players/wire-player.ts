/** A player who does exactly what a test says, one message at a time: it never retries or resumes by itself. */
import { WebSocket } from 'ws';
import {
  type Downward,
  isRoomMessage,
  parseDownward,
  protocolVersion,
  type RoomMessage,
  type Welcome,
} from '../../../src/protocol.ts';
import { until } from './game-server.ts';

export interface Closed {
  code: number;
  reason: string;
}

export interface WirePlayer {
  readonly socket: WebSocket;
  readonly welcome: Welcome;
  readonly heard: Downward[];
  /** null while it is open. */
  closed(): Closed | null;
  send(message: object): void;
  say(seq: number, text: string, room?: string): void;
  /** The first message of that type for which `isIt` holds, whenever it comes. */
  next<T extends Downward['t']>(
    type: T,
    isIt?: (message: Extract<Downward, { t: T }>) => boolean,
  ): Promise<Extract<Downward, { t: T }>>;
  /** What rooms told, in the order in which it came. */
  told(): RoomMessage[];
  said(): string[];
  /** The resume of this session, with the offsets that were heard so far. */
  resume(): { session: string; epoch: string; offsets: Record<string, number> };
  leave(reason?: string): void;
}

export interface Hello {
  token: string;
  region?: string;
  resume?: ReturnType<WirePlayer['resume']>;
}

/** Resolves with the welcome; rejects when the socket is closed before. */
export async function joinAs(url: string, hello: Hello, headers = {}): Promise<WirePlayer> {
  const socket = new WebSocket(url, protocolVersion, { perMessageDeflate: false, headers });
  const heard: Downward[] = [];
  let closed: Closed | null = null;
  socket.on('error', () => undefined);
  socket.on('open', () => socket.send(JSON.stringify({ t: 'hello', v: 1, ...hello })));
  socket.on('message', (raw) => {
    const message = parseDownward(String(raw));
    if (message.t !== 'unknown') heard.push(message);
  });
  socket.on('close', (code, reason) => {
    closed = { code, reason: String(reason) };
  });
  await until(() => heard.length > 0 || closed !== null);
  const [welcome] = heard;
  if (welcome?.t !== 'welcome') throw Object.assign(new Error('closed before a welcome'), { closed });
  const told = () => heard.filter(isRoomMessage);
  const send = (message: object) => socket.send(JSON.stringify(message));
  return {
    socket,
    welcome,
    heard,
    closed: () => closed,
    send,
    say: (seq, text, room = welcome.rooms[0]?.room ?? '') => send({ t: 'say', seq, room, text }),
    async next(type, isIt = () => true) {
      type Wanted = Parameters<typeof isIt>[0];
      const find = () => heard.find((one) => one.t === type && isIt(one as Wanted)) as Wanted | undefined;
      await until(() => find() !== undefined || closed !== null);
      const found = find();
      if (found === undefined) throw Object.assign(new Error(`closed without ${type}`), { closed });
      return found;
    },
    told,
    said: () => told().flatMap((message) => (message.t === 'said' ? [message.text] : [])),
    resume: () => ({
      session: welcome.session,
      epoch: welcome.epoch,
      offsets: Object.fromEntries(
        welcome.rooms.map(({ room }) => [room, newestOf(room, welcome, heard)] as const),
      ),
    }),
    leave: (reason) => socket.close(1000, reason),
  };
}

function newestOf(room: string, welcome: Welcome, heard: readonly Downward[]): number {
  const told = heard.filter(isRoomMessage).filter((message) => message.room === room);
  const snapshot = heard.findLast((message) => message.t === 'snapshot' && message.room === room);
  const start = snapshot?.t === 'snapshot' ? snapshot.offset : -1;
  const last = told.at(-1)?.offset ?? start;
  return last >= 0 ? last : (welcome.rooms.find((state) => state.room === room)?.offset ?? 0);
}
