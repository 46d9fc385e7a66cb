/**
 * Leaving. Promises: no request is refused (HTTP is answered to the last one, with `connection: close`), no player is
 * cut off without a 1012, they are not all closed in one tick, and it ends at the deadline whatever happens.
 */
import type { Logger } from 'pino';
import type { Http } from './http/http.ts';
import type { Sockets } from './players/sockets.ts';
import type { Readiness } from './readiness.ts';
import type { Identity } from './settings.ts';

export interface Leaving {
  why: string;
  identity: Identity;
  readiness: Readiness;
  http: Http;
  sockets: Sockets;
  log: Logger;
}

/** Time without a request before the server stops: old workers of Nginx may hold an idle connection and still use it. */
const quietMs = 300;

export async function leave({ why, identity, readiness, http, sockets, log }: Leaving): Promise<void> {
  const began = performance.now();
  const leftMs = () => identity.drainMs - (performance.now() - began);
  const asked = sockets.count();
  readiness.drain();
  log.info({ why, players: asked, drainMs: identity.drainMs }, 'draining');

  await sockets.drain(identity.drainMs);
  do {
    await new Promise((resolve) => setTimeout(resolve, 20));
    // What came while this process stood still is read first.
    await new Promise((resolve) => setImmediate(resolve));
  } while (http.quietMs() < quietMs && leftMs() > 0);

  const left = sockets.count();
  sockets.stop();
  http.app.server.close();
  http.app.server.closeIdleConnections();
  log.info({ players: asked, left, ms: Math.round(performance.now() - began) }, 'drained');
}
