/**
 * The Unix socket for a proxy on the same machine, beside the port. What is written to it passes no bridge, no firewall
 * and no second TCP connection. With ten thousand players these took most of a server's CPU time.
 */
import { rm } from 'node:fs/promises';
import type { Server as HttpServer } from 'node:http';
import { createServer, type Server } from 'node:net';

/** @param file of this replica alone: a file that is there already was left by a process that was killed */
export async function listenOnUnixSocket(http: HttpServer, file: string, backlog: number): Promise<Server> {
  await rm(file, { force: true });
  // Half-open, as Node's own HTTP server has it. Handing connections to that server is a documented use of its event:
  // https://nodejs.org/docs/latest-v20.x/api/http.html#event-connection
  const server = createServer({ allowHalfOpen: true }, (stream) => http.emit('connection', stream));
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    // Nginx is another user.
    server.listen({ path: file, backlog, writableAll: true }, resolve);
  });
  return server;
}
