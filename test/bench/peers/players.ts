/** One player of each kind of server, each by its own client: joins a room, says texts, tells what the room said. */
import { createRequire } from 'node:module';
import { WebSocket } from 'ws';
import { startPlayer } from '../../../src/client/player.ts';
import { mintToken } from '../../../src/tokens.ts';

export type Kind = 'gameops' | 'bare ws' | 'Socket.IO' | 'Colyseus';

export interface Seat {
  url: string;
  name: string;
  room: string;
  hear(text: string): void;
}

/** Says a text in the room. */
export type Say = (text: string) => void;
export type Join = (seat: Seat) => Promise<Say>;

const tokenLifeMs = 600_000;
const joinTickMs = 5;

/** @param peers where the packages of the peers are installed */
export function joinerOf(kind: Kind, peers: string, secret: string): Join {
  const load = createRequire(`${peers}/`);
  if (kind === 'gameops') return (seat) => joinGameops(seat, secret);
  if (kind === 'bare ws') return joinBare;
  if (kind === 'Socket.IO') return (seat) => joinSocketIo(load('socket.io-client'), seat);
  return (seat) => joinColyseus(load('@colyseus/sdk'), seat);
}

async function joinGameops({ url, name, room, hear }: Seat, secret: string): Promise<Say> {
  const player = startPlayer({
    url,
    name,
    region: room,
    token: mintToken(secret, { id: name, name }, tokenLifeMs),
    onEvent(event) {
      if (event.type === 'message' && event.message.t === 'said') hear(event.message.text);
    },
  });
  while (!player.isOn()) {
    if (player.hasGivenUp()) throw new Error(`${name} could not join: ${player.counts.lastCode}`);
    await new Promise((resolve) => setTimeout(resolve, joinTickMs));
  }
  return (text) => {
    if (!player.say(text)) throw new Error(`${name} could not say it`);
  };
}

function joinBare({ url, name, room, hear }: Seat): Promise<Say> {
  const socket = new WebSocket(url, { perMessageDeflate: false });
  socket.on('open', () => socket.send(JSON.stringify({ t: 'hello', name, room })));
  return new Promise((resolve, reject) => {
    socket.on('error', reject);
    socket.on('message', (raw) => {
      const message = JSON.parse(String(raw)) as { t: string; text: string };
      if (message.t === 'said') hear(message.text);
      else resolve((text) => socket.send(JSON.stringify({ t: 'say', text })));
    });
  });
}

/** What is used of a client that is no dependency of this package. */
interface SocketIoClient {
  io(url: string, options: object): SocketIoSocket;
}

interface SocketIoSocket {
  on(event: string, listener: (value: never) => void): void;
  emit(event: string, value: string): void;
}

function joinSocketIo({ io }: SocketIoClient, { url, name, room, hear }: Seat): Promise<Say> {
  const socket = io(url, { transports: ['websocket'], forceNew: true, auth: { name, room } });
  return new Promise((resolve, reject) => {
    socket.on('connect_error', reject);
    socket.on('said', ({ text }: { text: string }) => hear(text));
    socket.on('welcome', () => resolve((text) => socket.emit('say', text)));
  });
}

interface ColyseusClient {
  Client: new (url: string) => { joinOrCreate(room: string, options: object): Promise<ColyseusRoom> };
}

interface ColyseusRoom {
  onMessage(type: string, listener: (message: { text: string }) => void): void;
  send(type: string, text: string): void;
}

async function joinColyseus({ Client }: ColyseusClient, { url, name, room, hear }: Seat): Promise<Say> {
  const joined = await new Client(url).joinOrCreate('region', { name, room });
  joined.onMessage('said', ({ text }) => hear(text));
  return (text) => joined.send('say', text);
}
