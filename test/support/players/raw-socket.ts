/**
 * A WebSocket client that may do everything wrong: it writes the given bytes in pieces of a given size, and reads frames
 * as they are.
 */
import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { protocolVersion } from '../../../src/protocol.ts';
import { until } from './game-server.ts';

export interface Frame {
  fin: boolean;
  rsv: number;
  opcode: number;
  masked: boolean;
  payload: Buffer;
}

export interface FrameWish {
  opcode: number;
  payload?: Buffer | string;
  fin?: boolean;
  rsv?: number;
  masked?: boolean;
}

export const op = { next: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

export interface RawSocket {
  readonly socket: Socket;
  /** Status line and headers of the answer to the upgrade. */
  readonly head: string;
  readonly frames: Frame[];
  /** One write for all bytes, or one write for each `chop` bytes. */
  write(bytes: Buffer, chop?: number): Promise<void>;
  isEnded(): boolean;
  /** Of the close frame that was received; null before. A close frame without a code is 1005. */
  closeCode(): number | null;
  destroy(): void;
}

export function frame({ opcode, payload = '', fin = true, rsv = 0, masked = true }: FrameWish): Buffer {
  const body = Buffer.from(payload);
  const first = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  const mark = masked ? 0x80 : 0;
  let head: Buffer;
  if (body.length < 126) head = Buffer.from([first, mark | body.length]);
  else if (body.length < 65_536) {
    head = Buffer.from([first, mark | 126, 0, 0]);
    head.writeUInt16BE(body.length, 2);
  } else {
    head = Buffer.alloc(10, 0);
    head[0] = first;
    head[1] = mark | 127;
    head.writeBigUInt64BE(BigInt(body.length), 2);
  }
  if (!masked) return Buffer.concat([head, body]);
  const mask = randomBytes(4);
  const hidden = body.map((byte, at) => byte ^ (mask[at % 4] ?? 0));
  return Buffer.concat([head, mask, hidden]);
}

export function closeFrame(code: number, reason: Buffer | string = ''): Buffer {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(code);
  return frame({ opcode: op.close, payload: Buffer.concat([head, Buffer.from(reason)]) });
}

/** Resolves when the upgrade is answered, whatever the answer is. */
export async function openRaw(
  wsUrl: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<RawSocket> {
  const url = new URL(wsUrl);
  const socket = connect({ host: url.hostname, port: Number(url.port), noDelay: true });
  let received = Buffer.alloc(0);
  let head = '';
  let ended = false;
  const frames: Frame[] = [];
  socket.on('error', () => undefined);
  socket.on('close', () => {
    ended = true;
  });
  socket.on('data', (chunk) => {
    received = Buffer.concat([received, chunk]);
    if (head === '') {
      const end = received.indexOf('\r\n\r\n');
      if (end < 0) return;
      head = received.toString('latin1', 0, end);
      received = received.subarray(end + 4);
    }
    for (let read = readFrame(received); read !== null; read = readFrame(received)) {
      frames.push(read.frame);
      received = received.subarray(read.length);
    }
  });
  const asked = {
    host: url.host,
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': randomBytes(16).toString('base64'),
    'sec-websocket-protocol': protocolVersion,
    ...headers,
  };
  const lines = Object.entries(asked).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`GET ${url.pathname} HTTP/1.1\r\n${lines.join('')}\r\n`);
  await until(() => head !== '' || ended);
  return {
    socket,
    head,
    frames,
    async write(bytes, chop = bytes.length) {
      for (let at = 0; at < bytes.length; at += chop) {
        if (ended) return;
        socket.write(bytes.subarray(at, at + chop));
        // So that each piece is a TCP segment of its own.
        if (chop < bytes.length) await new Promise((resolve) => setImmediate(resolve));
      }
    },
    isEnded: () => ended,
    closeCode() {
      const close = frames.find(({ opcode }) => opcode === op.close);
      if (close === undefined) return null;
      return close.payload.length < 2 ? 1005 : close.payload.readUInt16BE(0);
    },
    destroy: () => socket.destroy(),
  };
}

/** null when no frame is complete yet. */
function readFrame(bytes: Buffer): { frame: Frame; length: number } | null {
  const [first, second] = bytes;
  if (first === undefined || second === undefined) return null;
  const short = second & 0x7f;
  const start = short < 126 ? 2 : short === 126 ? 4 : 10;
  if (bytes.length < start) return null;
  const size = short < 126 ? short : short === 126 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
  if (bytes.length < start + size) return null;
  return {
    length: start + size,
    frame: {
      fin: (first & 0x80) !== 0,
      rsv: (first >> 4) & 7,
      opcode: first & 0xf,
      masked: (second & 0x80) !== 0,
      payload: Buffer.from(bytes.subarray(start, start + size)),
    },
  };
}
