/** The Nginx container as a plain specification: made once, never again by a deploy. PURE. */
import { label, namesOf, nginxUid, path, port } from '../contract.ts';
import type { ContainerSpec } from '../engine/port.ts';
import { megabyte } from '../units.ts';
import { pointerFile } from './generation.ts';

export interface ProxyInput {
  project: string;
  image: string;
  /** Where players reach it; host port 0 lets the engine choose. */
  http: { address: string; port: number; tlsPort: number };
  /** Loopback port of the private side; default 0, which is another one after every restart of the container. */
  privatePort?: number;
  /** Servers are reached by Unix sockets where they have one. */
  unixSockets: boolean;
}

/** A bound, not a need: old workers keep theirs (about 10 MB each, 17 KB a socket) until their last player has moved. */
const memoryBytes = 2048 * megabyte;
/** A player costs two: one socket to them, one to the server. Hosts often allow no more than this. */
const openFiles = 20_000;

export function proxySpec(input: ProxyInput): ContainerSpec {
  const names = namesOf(input.project);
  const { address } = input.http;
  return {
    project: input.project,
    name: names.proxy,
    role: 'proxy',
    image: input.image,
    // Past the image's own entrypoint, which would write into the configuration. Errors go to stderr from the first
    // line on: the built-in log path is not writable here.
    entrypoint: ['nginx'],
    command: ['-e', 'stderr', '-c', `${path.nginxConfig}/${pointerFile}`, '-g', 'daemon off;'],
    user: `${nginxUid}:${nginxUid}`,
    network: { name: names.network },
    ...(input.unixSockets ? { labels: { [label.onUnixSocket]: '1' } } : {}),
    mounts: [
      // Writable for root, who flips the pointer by exec; Nginx itself is another user and can change nothing.
      { volume: names.volume.nginx, path: path.nginxConfig, readOnly: false },
      { volume: names.volume.web, path: path.web, readOnly: true },
      { volume: names.volume.certificates, path: path.certificates, readOnly: true },
      { volume: names.volume.logs, path: path.nginxLogs, readOnly: false },
      ...(input.unixSockets
        ? [{ volume: names.volume.unixSockets, path: path.unixSockets, readOnly: true }]
        : []),
    ],
    tmpfs: ['/tmp'],
    publish: [
      { address, hostPort: input.http.port, containerPort: port.nginxHttp },
      { address, hostPort: input.http.tlsPort, containerPort: port.nginxTls },
      { address: '127.0.0.1', hostPort: input.privatePort ?? 0, containerPort: port.nginxPrivate },
    ],
    memoryBytes,
    openFiles,
    readOnlyRoot: true,
    // A HUP sent through the API counts as a manual stop, which `unless-stopped` obeys after a daemon restart.
    restart: 'always',
    stopSignal: 'SIGQUIT',
    stopGraceMs: 10_000,
  };
}
