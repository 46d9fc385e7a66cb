/**
 * The client of the game, for browsers and for Node: sockets and timers around the core (core.ts), which decides.
 * Promises one stream of events in the order in which things happened, and that it holds no socket and no timer once it
 * has stopped or given up. Knows neither Node nor the DOM: its caller says how a socket is opened.
 */
import { backoffMs, parseDownward } from '../protocol.ts';
import { step } from './core.ts';
import {
  type ClientEvent,
  type ClientStatus,
  type Effect,
  type Input,
  initialState,
  maySay,
  statusOf,
  type Timer,
} from './core-state.ts';

/** What the WebSocket of browsers and the WebSocket of `ws` have in common, as far as the client needs it. */
export interface Socket {
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
  /** Only `ws` has it. */
  terminate?(): void;
}

export interface ClientRequest {
  /** Such as wss://play.example.com/ws */
  url: string;
  token: string;
  /** Where the player wants to be. Default: where the server puts them. */
  region?: string;
  /** Subprotocol `protocolVersion`. */
  openSocket(url: string): Socket;
  /** A fresh token for an expired one; null when there will be none. Rejects when that can't be told now. */
  refresh?(): Promise<string | null>;
  onEvent(event: ClientEvent): void;
  /** How often the round trip is measured. Default: as often as the server's heartbeat. */
  pingEveryMs?: number;
}

export interface Client {
  /** Begins; after the client gave up, begins anew. */
  start(): void;
  /** In the room where the player is, or which they asked for. False: it was not kept, because too much waits or it is too long. */
  say(text: string): boolean;
  enter(region: string): void;
  stop(): void;
  status(): ClientStatus;
  /** `<release>/<replica>` of the last welcome, null before the first. */
  servedBy(): string | null;
  /** Said and not yet acknowledged. */
  waiting(): number;
}

export function createClient(request: ClientRequest): Client {
  const sockets = new Map<number, Socket>();
  const timers = new Map<Timer, ReturnType<typeof setTimeout>>();
  const events: ClientEvent[] = [];
  let isTelling = false;
  let state = initialState(request);

  const put = (input: Input): void => {
    const next = step(state, input);
    state = next.state;
    for (const effect of next.effects) carryOut(effect);
    tell();
  };

  /** A listener may call the client: the call takes effect at once, its events come after those that are on their way. */
  const tell = (): void => {
    if (isTelling) return;
    isTelling = true;
    try {
      for (let event = events.shift(); event; event = events.shift()) request.onEvent(event);
    } finally {
      isTelling = false;
    }
  };

  const carryOut = (effect: Effect): void => {
    if (effect.do === 'emit') events.push(effect.event);
    else if (effect.do === 'send') sockets.get(effect.link)?.send(JSON.stringify(effect.message));
    else if (effect.do === 'open') open(effect.link, effect.to);
    else if (effect.do === 'close') forget(effect.link)?.close(effect.code, effect.reason);
    else if (effect.do === 'drop') drop(forget(effect.link));
    else if (effect.do === 'wait') wait(effect.timer, effect.ms);
    else if (effect.do === 'back-off') wait(effect.timer, backoffMs(effect.n));
    else if (effect.do === 'cancel') cancel(effect.timer);
    else void refresh();
  };

  const open = (link: number, to: number | null): void => {
    let socket: Socket;
    try {
      socket = request.openSocket(to === null ? request.url : withRelease(request.url, to));
    } catch {
      // Treated as a socket that closed, and never from inside the step that asked for it.
      setTimeout(() => put({ t: 'closed', link, code: 1006, at: performance.now() }), 0);
      return;
    }
    sockets.set(link, socket);
    socket.onopen = () => put({ t: 'opened', link, at: performance.now() });
    socket.onmessage = ({ data }: { data: unknown }) => {
      const message = typeof data === 'string' ? parseDownward(data) : null;
      if (message === null || message.t === 'unknown' || !sockets.has(link)) return;
      put({ t: 'received', link, message, at: performance.now() });
    };
    // The close that always follows says everything.
    socket.onerror = () => undefined;
    socket.onclose = ({ code }: { code: number }) => {
      if (forget(link)) put({ t: 'closed', link, code, at: performance.now() });
    };
  };

  const forget = (link: number): Socket | undefined => {
    const socket = sockets.get(link);
    sockets.delete(link);
    return socket;
  };

  const wait = (timer: Timer, ms: number): void => {
    clearTimeout(timers.get(timer));
    timers.set(
      timer,
      setTimeout(() => {
        timers.delete(timer);
        put({ t: 'timer', timer, at: performance.now() });
      }, ms),
    );
  };

  const cancel = (timer: Timer): void => {
    clearTimeout(timers.get(timer));
    timers.delete(timer);
  };

  const refresh = async (): Promise<void> => {
    const answer = await (request.refresh?.() ?? Promise.resolve(null)).then(
      (token): Input => ({ t: 'token', token, at: performance.now() }),
      (): Input => ({ t: 'token-failed', at: performance.now() }),
    );
    put(answer);
  };

  return {
    start: () => put({ t: 'start', at: performance.now() }),
    say(text) {
      const room = state.region ?? Object.keys(state.rooms)[0] ?? null;
      if (room === null || !maySay(state, text)) return false;
      put({ t: 'say', room, text, at: performance.now() });
      return true;
    },
    enter: (region) => put({ t: 'enter', region, at: performance.now() }),
    stop: () => put({ t: 'stop', at: performance.now() }),
    status: () => statusOf(state),
    servedBy: () => state.servedBy,
    waiting: () => state.unacked.length,
  };
}

function drop(socket: Socket | undefined): void {
  if (socket?.terminate) socket.terminate();
  else socket?.close();
}

function withRelease(url: string, release: number): string {
  const target = new URL(url);
  target.searchParams.set('to', String(release));
  return target.href;
}
