/**
 * What is sent to one player: frames that are made once and written as they are, and a bounded queue behind a connection
 * that takes no more. Promises that nobody waits for a slow reader, and that a slow reader costs references to frames
 * that their room has anyway, never copies of their own.
 *
 * Frames are made here and not by ws, because the same bytes go to everybody in a room. That is sound as long as
 * compression is declined and nothing is sent in fragments. The options of our WebSocketServer see to both.
 */
import type { Duplex } from 'node:stream';
import { WebSocket } from 'ws';
import { type CloseReason, closeCode, type Downward, limits } from '../../protocol.ts';

export interface Link {
  readonly socket: WebSocket;
  /** The connection below the WebSocket, which ws itself would write to. */
  readonly stream: Duplex;
  readonly onClose: (why: CloseReason) => void;
  /** What the last write returned: asking the stream itself each time costs as much as a small frame. */
  isFull: boolean;
  /** Frames that wait until the connection takes more; [] while it does. */
  waiting: Buffer[];
  waitingBytes: number;
  /** Why this side closed the connection; null while it did not. */
  closedFor: CloseReason | null;
}

const opcode = { text: 0x1, close: 0x8, pong: 0xa } as const;
/**
 * The close frame waits behind what the slow reader has not read. If they read on within this time they get all of it. If
 * they were cut off earlier, the next thing they send would be answered with a reset, which discards what was still on its
 * way to them: so much that no history goes back far enough.
 */
const closeSlowMs = 8_000;

/** @param onClose told once, when this side decides to close; the connection may take long to end after that */
export function openLink(socket: WebSocket, stream: Duplex, onClose: (why: CloseReason) => void): Link {
  const link: Link = {
    socket,
    stream,
    onClose,
    isFull: false,
    waiting: [],
    waitingBytes: 0,
    closedFor: null,
  };
  stream.on('drain', () => flush(link));
  return link;
}

/** RFC 6455, §5.2: one final, unmasked frame. */
export function frameOf(payload: string | Buffer, kind: keyof typeof opcode = 'text'): Buffer {
  const length = typeof payload === 'string' ? Buffer.byteLength(payload) : payload.length;
  const start = payloadStart(length);
  const frame = Buffer.allocUnsafe(start + length);
  frame[0] = 0x80 | opcode[kind];
  if (start === 2) frame[1] = length;
  else if (start === 4) {
    frame[1] = 126;
    frame.writeUInt16BE(length, 2);
  } else {
    frame[1] = 127;
    frame.writeBigUInt64BE(BigInt(length), 2);
  }
  if (typeof payload === 'string') frame.write(payload, start);
  else payload.copy(frame, start);
  return frame;
}

/** The text inside a frame of `frameOf`. */
export function textOf(frame: Buffer): string {
  const marked = frame[1] ?? 0;
  return frame.toString('utf8', marked < 126 ? 2 : marked === 126 ? 4 : 10);
}

function payloadStart(length: number): number {
  if (length < 126) return 2;
  return length < 65_536 ? 4 : 10;
}

export function isOpen({ socket, closedFor }: Link): boolean {
  return closedFor === null && socket.readyState === WebSocket.OPEN;
}

export function tell(link: Link, message: Downward): void {
  send(link, frameOf(JSON.stringify(message)));
}

/** One frame, or several in one piece: a piece counts as one message. */
export function send(link: Link, piece: Buffer): void {
  if (!isOpen(link)) return;
  if (link.waiting.length === 0 && !link.isFull) {
    link.isFull = !link.stream.write(piece);
    return;
  }
  link.waiting.push(piece);
  link.waitingBytes += piece.length;
  if (link.waiting.length > limits.queuedMessages || link.waitingBytes > limits.queuedBytes) {
    close(link, 'slow');
  }
}

/**
 * Several messages: in one piece while the connection takes them, which costs as much as one message; otherwise message
 * by message, because that is how the queue is bounded.
 */
export function sendAll(link: Link, frames: readonly Buffer[], piece: Buffer = Buffer.concat(frames)): void {
  if (link.waiting.length === 0 && !link.isFull) send(link, piece);
  else for (const frame of frames) send(link, frame);
}

function flush(link: Link): void {
  let taken = 0;
  link.isFull = false;
  for (const piece of link.waiting) {
    if (link.isFull || link.closedFor !== null) break;
    link.isFull = !link.stream.write(piece);
    link.waitingBytes -= piece.length;
    taken += 1;
  }
  if (taken > 0) link.waiting.splice(0, taken);
}

/** Frames that still wait are dropped: a resume brings them. */
export function close(link: Link, reason: CloseReason): void {
  const { socket, closedFor } = link;
  if (socket.readyState === WebSocket.CLOSED) return;
  if (closedFor !== null) {
    // A server that leaves waits for a slow reader no longer than for others.
    if (closedFor === 'slow') socket.close(closeCode[reason], reason);
    return;
  }
  link.closedFor = reason;
  link.waiting = [];
  link.waitingBytes = 0;
  link.onClose(reason);
  if (reason === 'slow') closeSlow(link);
  else socket.close(closeCode[reason], reason);
}

/** Not by ws, which would cut the connection within its `closeTimeout`. It still answers the client's own close frame. */
function closeSlow({ socket, stream }: Link): void {
  const code = Buffer.alloc(2);
  code.writeUInt16BE(closeCode.slow);
  stream.write(frameOf(Buffer.concat([code, Buffer.from('slow' satisfies CloseReason)]), 'close'));
  setTimeout(() => socket.terminate(), closeSlowMs).unref();
}
