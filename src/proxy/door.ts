/**
 * The door: the project's Nginx as a client reaches it, on its private and its public side. Every call opens a connection of
 * its own and is bounded in time and size. A failed answer is returned as data; nothing here throws or decides.
 */
import { type IncomingMessage, request } from 'node:http';
import { basename } from 'node:path';
import { WebSocket } from 'ws';
import { doorHeader, endpoint, servedByHeader } from '../contract.ts';
import { parseDownward, protocolVersion } from '../protocol.ts';

export interface HttpAnswer {
  status: number;
  body: string;
  /** Value of `x-gameops-served-by`, "" when absent. */
  servedBy: string;
}

/** A failed answer is data, because probing decides nothing. `isSilence`: there was no answer within the caller's time-out. */
type NoAnswer = { ok: false; reason: string; isSilence?: true };
export type Answer = { ok: true; answer: HttpAnswer } | NoAnswer;
export type JoinAnswer = { ok: true; servedBy: string } | NoAnswer;

/**
 * The two ways to the project's Nginx: its private side (loopback publish and a secret header) and its public one.
 * Every call uses a fresh connection, so that it meets the workers that new players would meet.
 */
export interface Door {
  /** Private: path such as /generation or /status. */
  ask(path: string, timeoutMs: number): Promise<Answer>;
  /** Private: HTTP GET to a replica through Nginx, on the way that players' requests will take. */
  askReplica(at: Reach, path: string, timeoutMs: number): Promise<Answer>;
  /** Private: a WebSocket player joins this replica and leaves. */
  joinReplica(at: Reach, token: string, timeoutMs: number): Promise<JoinAnswer>;
  /** Public: as a player would, at `domain`; default: the one of gameops.yaml. */
  askPublic(path: string, timeoutMs: number, domain?: string | null): Promise<Answer>;
  joinPublic(token: string, timeoutMs: number, domain?: string | null): Promise<JoinAnswer>;
}

import type { Reach } from './generation.ts';

export interface DoorInput {
  /** http://127.0.0.1:<port> of Nginx's private side. */
  privateUrl: string;
  /** http://<address>:<port> where players come in. */
  publicUrl: string;
  token: string;
  /** Name that Nginx answers to; null when it answers to any. */
  host?: string | null;
}

const bodyBytesMax = 64 * 1024;

export function openDoor({ privateUrl, publicUrl, token, host }: DoorInput): Door {
  const privateHeaders = { [doorHeader]: token };
  const named = (domain = host): Record<string, string> => (domain ? { host: domain } : {});
  return {
    ask: (path, timeoutMs) => get(new URL(path, privateUrl), privateHeaders, timeoutMs),
    askReplica: (at, path, timeoutMs) =>
      get(new URL(wayTo(at) + path, privateUrl), privateHeaders, timeoutMs),
    joinReplica: (at, player, timeoutMs) =>
      join(new URL(wayTo(at) + endpoint.socket, privateUrl), privateHeaders, player, timeoutMs),
    askPublic: (path, timeoutMs, domain) => get(new URL(path, publicUrl), named(domain), timeoutMs),
    joinPublic: (player, timeoutMs, domain) =>
      join(new URL(endpoint.socket, publicUrl), named(domain), player, timeoutMs),
  };
}

const wayTo = ({ address, port, unixSocket }: Reach) =>
  unixSocket ? `/unix/${basename(unixSocket, '.sock')}` : `/replica/${address}/${port}`;

function get(url: URL, headers: Record<string, string>, timeoutMs: number): Promise<Answer> {
  return new Promise((resolve) => {
    const sent = request(url, { agent: false, headers: { ...headers, connection: 'close' } });
    const timer = afterReading(timeoutMs, () => silent(`no answer within ${timeoutMs} ms`));
    const settle = (answer: Answer) => {
      timer.cancel();
      resolve(answer);
      sent.destroy();
    };
    const end = (reason: string) => settle({ ok: false, reason });
    const silent = (reason: string) => settle({ ok: false, reason, isSilence: true });
    sent.on('error', (error) => end(reasonOf(error)));
    sent.on('response', (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes > bodyBytesMax) settle(answered(response, chunks));
        else chunks.push(chunk);
      });
      response.on('end', () => settle(answered(response, chunks)));
      response.on('error', (error) => end(reasonOf(error)));
    });
    sent.end();
  });
}

function answered(response: IncomingMessage, chunks: readonly Buffer[]): Answer {
  const body = Buffer.concat(chunks).toString('utf8');
  return { ok: true, answer: { status: response.statusCode ?? 0, body, servedBy: servedByOf(response) } };
}

/** Says a player's hello; the welcome proves that the server let the player in. Leaves at once. */
function join(
  url: URL,
  headers: Record<string, string>,
  token: string,
  timeoutMs: number,
): Promise<JoinAnswer> {
  return new Promise((resolve) => {
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new WebSocket(url, protocolVersion, {
      agent: false,
      headers,
      maxPayload: bodyBytesMax,
    });
    let servedBy = '';
    const timer = afterReading(timeoutMs, () =>
      settle({ ok: false, reason: `no welcome within ${timeoutMs} ms`, isSilence: true }),
    );
    let isSettled = false;
    const settle = (answer: JoinAnswer) => {
      // A socket that is closed calls back once more.
      if (isSettled) return;
      isSettled = true;
      timer.cancel();
      resolve(answer);
      if (answer.ok) socket.close(1000);
      // A server that never answers the close must not keep this process alive.
      setTimeout(() => socket.terminate(), answer.ok ? 1_000 : 0).unref();
    };
    socket.on('upgrade', (response) => {
      servedBy = servedByOf(response);
    });
    socket.on('unexpected-response', (_request, response) =>
      settle({ ok: false, reason: `upgrade answered ${response.statusCode}` }),
    );
    socket.on('open', () => socket.send(JSON.stringify({ t: 'hello', v: 1, token })));
    socket.on('message', (frame) => {
      const message = parseDownward(String(frame));
      if (message.t !== 'welcome') return;
      settle({ ok: true, servedBy: servedBy || `${message.release}/${message.replica}` });
    });
    socket.on('close', (code, reason) => settle({ ok: false, reason: `closed ${code} ${reason}`.trim() }));
    socket.on('error', (error) => settle({ ok: false, reason: reasonOf(error) }));
  });
}

/** A process that stood still finds its timers due first, while the answer waits behind them. So the answer is read first. */
function afterReading(ms: number, late: () => void): { cancel(): void } {
  let isOver = false;
  const timer = setTimeout(() => setImmediate(() => !isOver && late()), ms);
  return {
    cancel() {
      isOver = true;
      clearTimeout(timer);
    },
  };
}

function servedByOf(response: IncomingMessage): string {
  return String(response.headers[servedByHeader] ?? '');
}

function reasonOf(error: Error): string {
  return 'code' in error && typeof error.code === 'string' ? error.code : error.message;
}
