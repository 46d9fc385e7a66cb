/** The door against servers that behave badly: every failure is an answer, and nothing waits longer than it was told. */
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { type WebSocket, WebSocketServer } from 'ws';
import { doorHeader } from '../../../src/contract.ts';
import { openDoor } from '../../../src/proxy/door.ts';

const open: { server: Server; sockets: Set<Socket> }[] = [];

afterEach(() => {
  for (const { server, sockets } of open.splice(0)) {
    for (const socket of sockets) socket.destroy();
    server.close();
  }
});

async function doorTo(listener: RequestListener, onSocket?: (socket: WebSocket) => void) {
  const server = createServer(listener);
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => sockets.add(socket));
  if (onSocket) new WebSocketServer({ server }).on('connection', onSocket);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  open.push({ server, sockets });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return {
    door: openDoor({ privateUrl: url, publicUrl: url, token: 'secret', host: 'play.example.com' }),
    sockets,
  };
}

const welcome = '{"t":"welcome","release":41,"replica":2}';

describe('the door', () => {
  it('shows its secret on the private side only, and the name of the domain on the public one', async () => {
    const seen: unknown[] = [];
    const { door } = await doorTo((request, response) => {
      seen.push([request.url, request.headers[doorHeader], request.headers.host?.split(':')[0]]);
      response.setHeader('x-gameops-served-by', '41/2').end('fine');
    });
    const answer = { ok: true, answer: { status: 200, body: 'fine', servedBy: '41/2' } };
    expect(await door.ask('/generation', 2_000)).toEqual(answer);
    expect(await door.askReplica({ address: '10.9.0.2', port: 3000 }, '/readyz', 2_000)).toEqual(answer);
    expect(await door.askPublic('/api/version', 2_000)).toEqual(answer);
    expect(seen).toEqual([
      ['/generation', 'secret', '127.0.0.1'],
      ['/replica/10.9.0.2/3000/readyz', 'secret', '127.0.0.1'],
      ['/api/version', undefined, 'play.example.com'],
    ]);
  });

  it('opens a new connection for every call', async () => {
    const { door, sockets } = await doorTo((_request, response) => response.end());
    for (let n = 0; n < 5; n++) await door.askPublic('/', 2_000);
    expect(sockets.size).toBe(5);
  });

  it('waits no longer than its time-out for an answer, for the end of an answer and for a welcome', async () => {
    const { door } = await doorTo(
      (request, response) => {
        if (request.url === '/half') response.write('half');
      },
      () => {},
    );
    for (const path of ['/never', '/half']) {
      expect(await door.askPublic(path, 100)).toEqual({
        ok: false,
        reason: 'no answer within 100 ms',
        isSilence: true,
      });
    }
    expect(await door.joinPublic('token', 100)).toEqual({
      ok: false,
      reason: 'no welcome within 100 ms',
      isSilence: true,
    });
  });

  it('reads only the beginning of an endless answer', async () => {
    const { door } = await doorTo((_request, response) => {
      const more = () => {
        while (response.write('x'.repeat(16_384)));
      };
      response.on('drain', more);
      more();
    });
    const answer = await door.askPublic('/', 5_000);
    expect(answer.ok && answer.answer.body.length).toBeLessThanOrEqual(64 * 1024);
  });

  it('reports that a player was welcome, and which replica said so', async () => {
    const hellos: string[] = [];
    const { door } = await doorTo(
      () => {},
      (socket) =>
        socket.on('message', (data) => {
          hellos.push(String(data));
          socket.send(welcome);
        }),
    );
    expect(await door.joinPublic('token', 2_000)).toEqual({ ok: true, servedBy: '41/2' });
    expect(hellos.map((hello) => JSON.parse(hello))).toEqual([{ t: 'hello', v: 1, token: 'token' }]);
  });

  it('reports why a player was refused', async () => {
    const refusing = await doorTo(
      () => {},
      (socket) => socket.on('message', () => socket.close(4501, 'bad token')),
    );
    expect(await refusing.door.joinPublic('token', 2_000)).toEqual({
      ok: false,
      reason: 'closed 4501 bad token',
    });
    const draining = await doorTo((_request, response) => response.writeHead(503).end());
    expect(await draining.door.joinPublic('token', 2_000)).toMatchObject({ ok: false });
  });
});
