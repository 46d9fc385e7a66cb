/** A proxy to a server on this machine that can be closed, or paused or broken in the middle of a large answer. */
import { connect, createServer, type Socket } from 'node:net';

/** An answer that is paused. */
export interface Held {
  goOn(): void;
  /** Breaks its connection; those that come later are let through. */
  cut(): void;
}

export interface HoldingProxy {
  /** "127.0.0.1:40123" */
  host: string;
  /** Holds the next answer that is larger, after this many bytes, and resolves there. */
  holdAfter(bytes: number): Promise<Held>;
  /** Refuses connections until `listen`. */
  refuse(): void;
  listen(): Promise<void>;
  close(): void;
}

export async function openHoldingProxy(target: number): Promise<HoldingProxy> {
  const sockets = new Set<Socket>();
  let armed: { bytes: number; tell: (held: Held) => void } | null = null;
  const join = (from: Socket, to: Socket) => {
    sockets.add(from);
    from.on('end', () => to.end());
    from.on('error', () => to.destroy());
    from.on('close', () => {
      sockets.delete(from);
      // Not at once: what came before the end may still wait to be sent.
      to.destroySoon();
    });
  };
  const server = createServer((client) => {
    const upstream = connect(target, '127.0.0.1');
    join(client, upstream);
    join(upstream, client);
    client.on('data', (chunk) => upstream.write(chunk));
    let sent = 0;
    upstream.on('data', (chunk) => {
      client.write(chunk);
      sent += chunk.length;
      if (armed === null || sent < armed.bytes) return;
      upstream.pause();
      armed.tell({ goOn: () => upstream.resume(), cut: () => client.destroy() });
      armed = null;
    });
  });
  const listen = (port: number) =>
    new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(port, '127.0.0.1', resolve);
    });
  await listen(0);
  const { port } = server.address() as { port: number };
  return {
    host: `127.0.0.1:${port}`,
    holdAfter: (bytes) =>
      new Promise((tell) => {
        armed = { bytes, tell };
      }),
    refuse: () => server.close(),
    listen: () => listen(port),
    close() {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
