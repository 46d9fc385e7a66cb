/**
 * Who may open a WebSocket here. An upgrade that is refused is answered in HTTP, before anything is set up for it.
 *
 * A page of another origin is refused. No cookie carries any right here, so such a page could do nothing anyway, but it
 * would hold connections in its visitors' names. Programs send no Origin and are let in.
 */
import type { IncomingMessage } from 'node:http';
import type { ServerOptions } from 'ws';
import { endpoint } from '../../contract.ts';
import { limits, protocolVersion } from '../../protocol.ts';

// `closeTimeout` is newer than the published types.
export const socketOptions: ServerOptions & { closeTimeout: number } = {
  noServer: true,
  clientTracking: false,
  perMessageDeflate: false,
  maxPayload: limits.frameBytes,
  // By default one message may come in 16,384 fragments and a frame in 262,144 chunks: memory for a client that says nothing.
  maxFragments: 256,
  maxBufferedChunks: limits.frameBytes + 256,
  // Pongs go through the player's own queue, so that a client which does not read can't pile them up.
  autoPong: false,
  // The default of 30 s would let one silent client stretch every drain by as much.
  closeTimeout: 2_000,
  handleProtocols: () => protocolVersion,
};

/** The state of this server that an upgrade depends on. */
export interface Openness {
  isDraining: boolean;
  isFull: boolean;
}

/** An HTTP status line, or null when the upgrade is accepted. */
export function refusalOf(
  { url, headers }: Pick<IncomingMessage, 'url' | 'headers'>,
  { isDraining, isFull }: Openness,
): string | null {
  const [path] = (url ?? '').split('?');
  if (path !== endpoint.socket) return '404 Not Found';
  if (isDraining || isFull) return '503 Service Unavailable';
  if (!isSameOrigin(headers.origin, headers.host)) return '403 Forbidden';
  const offered = (headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim());
  return offered.includes(protocolVersion) ? null : '400 Bad Request';
}

/** Nginx passes on the host name of the request, and answers to no other name when a domain is configured. */
export function isSameOrigin(origin: string | undefined, host: string | undefined): boolean {
  if (origin === undefined) return true;
  return URL.canParse(origin) && new URL(origin).host === host?.toLowerCase();
}
