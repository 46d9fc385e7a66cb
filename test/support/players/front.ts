/**
 * Stands in for Nginx, as far as a handover needs it: one address, where `?to=<release>` reaches that release and all
 * other players reach the release that traffic goes to. Only carries bytes.
 */
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';

export interface Front {
  wsUrl: string;
  /** Release → port of a server; traffic goes to the last one that was named. */
  route(release: number, url: string): void;
  close(): Promise<void>;
}

export async function openFront(): Promise<Front> {
  const ports = new Map<number, number>();
  const open = new Set<Socket | Duplex>();
  let live = 0;
  const server = createServer();
  server.on('upgrade', (incoming: IncomingMessage, player: Duplex, head: Buffer) => {
    const to = Number(new URL(incoming.url ?? '/', 'http://front').searchParams.get('to') ?? live);
    const upstream = connect(ports.get(to) ?? ports.get(live) ?? 0, '127.0.0.1');
    const lines = [`${incoming.method} ${incoming.url} HTTP/1.1`];
    for (let at = 0; at < incoming.rawHeaders.length; at += 2)
      lines.push(`${incoming.rawHeaders[at]}: ${incoming.rawHeaders[at + 1]}`);
    upstream.write(`${lines.join('\r\n')}\r\n\r\n`);
    upstream.write(head);
    for (const [one, other] of [
      [player, upstream],
      [upstream, player],
    ] as const) {
      open.add(one);
      one.pipe(other);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        open.delete(one);
        other.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    wsUrl: `ws://127.0.0.1:${(server.address() as AddressInfo).port}/ws`,
    route(release, url) {
      ports.set(release, Number(new URL(url).port));
      live = release;
    },
    async close() {
      for (const one of open) one.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
