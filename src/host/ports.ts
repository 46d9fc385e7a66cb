/** Which TCP ports of this machine are free now. Reserves none. */
import { createServer } from 'node:net';

export async function isPortFree(port: number, address = '0.0.0.0'): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen({ port, host: address, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/**
 * Why a port can't be opened; null when it can, or when only the engine can tell (this user may not open low ports).
 */
export async function whyNotFree(port: number, address: string): Promise<'taken' | 'not here' | null> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', ({ code }: NodeJS.ErrnoException) => {
      resolve(code === 'EADDRINUSE' ? 'taken' : code === 'EADDRNOTAVAIL' ? 'not here' : null);
    });
    server.listen({ port, host: address, exclusive: true }, () => server.close(() => resolve(null)));
  });
}

const portsTriedMax = 200;

/**
 * The first port from `start` on that is free on every address, so that it stays free when the published address
 * changes. 0 (the engine chooses) when the whole range is taken.
 */
export async function firstFreePort(start: number, except: readonly number[] = []): Promise<number> {
  for (let port = start; port < start + portsTriedMax; port++) {
    if (!except.includes(port) && (await isPortFree(port))) return port;
  }
  return 0;
}
