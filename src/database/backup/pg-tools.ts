/**
 * pg_dump and pg_restore from the server's own image, so that they are never older than the server. They run in the
 * server's container when gameops runs it, else in a container that lives as long as this process. Promises that no
 * password is in an argument, in output, or in what the engine shows of a container.
 */
import { randomBytes } from 'node:crypto';
import { namesOf, port } from '../../contract.ts';
import type { Engine, Piped, PipeRequest } from '../../engine/port.ts';
import { OpsError } from '../../errors.ts';
import { megabyte } from '../../units.ts';
import type { DatabaseEndpoint } from '../server/connection.ts';

export interface ToolsAccess {
  engine: Engine;
  project: string;
  endpoint: DatabaseEndpoint;
  /** Image with pg_dump and pg_restore; used only when gameops does not run the server. */
  image: string;
}

export interface Tools {
  /** Version of pg_dump: "18.6" */
  version: string;
  /** Image id, or the configured reference. */
  image: string;
  run(command: readonly string[], request: ToolRequest): Promise<Piped>;
}

export interface ToolRequest extends Pick<PipeRequest, 'input' | 'output' | 'signal'> {
  /** Database that it logs in to; absent when it needs no server. */
  database?: string;
  /** Name of its connection. */
  application?: string;
}

const nobody = '65534:65534';

/** @throws IMAGE_NOT_FOUND, BACKUP_FAILED when the image has no pg_dump */
export async function withTools<T>(access: ToolsAccess, use: (tools: Tools) => Promise<T>): Promise<T> {
  const { engine, project, endpoint } = access;
  if (endpoint.accessory !== null) {
    const home = { host: '127.0.0.1', port: port.postgres };
    return use(await toolsIn(access, endpoint.accessory, home));
  }
  const name = `${project}-tools-${randomBytes(4).toString('hex')}`;
  await engine.ensureNetwork(project);
  const held = await engine.hold({
    project,
    name,
    role: 'tools',
    image: access.image,
    user: nobody,
    network: { name: namesOf(project).network },
    tmpfs: ['/tmp'],
    memoryBytes: 512 * megabyte,
    readOnlyRoot: true,
    restart: 'no',
  });
  try {
    return await use(await toolsIn(access, name, endpoint));
  } finally {
    await held.release().catch(() => undefined);
  }
}

async function toolsIn(
  { engine, project, endpoint, image }: ToolsAccess,
  container: string,
  server: { host: string; port: number },
): Promise<Tools> {
  const asked = await engine.exec(project, container, ['pg_dump', '--version']);
  const version = /(\d+(?:\.\d+)*)/.exec(asked.stdout)?.[1];
  const seen = (await engine.observe(project)).find(({ name }) => name === container);
  if (asked.exitCode !== 0 || version === undefined) throw noTools(seen?.image ?? image, asked.stderr);
  return {
    version,
    image: seen?.image ?? image,
    run: (command, { database, application = 'gameops', ...streams }) =>
      engine.pipe(project, container, command, {
        ...streams,
        env: database === undefined ? {} : loginOf(endpoint, server, database, application),
      }),
  };
}

/** Environment variables of libpq: a name in an argument could be read as a whole connection string. */
function loginOf(
  endpoint: DatabaseEndpoint,
  server: { host: string; port: number },
  database: string,
  application: string,
): Record<string, string> {
  return {
    PGHOST: server.host,
    PGPORT: String(server.port),
    PGUSER: endpoint.user,
    PGPASSWORD: endpoint.password,
    PGDATABASE: database,
    PGAPPNAME: application,
    PGCONNECT_TIMEOUT: '10',
  };
}

function noTools(image: string, words: string): OpsError {
  return new OpsError('BACKUP_FAILED', {
    message: `The image ${image} has no working pg_dump${words.trim() === '' ? '' : `: ${words.trim()}`}. The database was not touched.`,
    next: ['set images.postgres in gameops.yaml to an official image of the version of your server'],
    facts: { image },
  });
}

export const majorOf = (version: string): number => Number.parseInt(version, 10);
