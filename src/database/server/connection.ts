/**
 * One connection to the project's database. Promises: a broken connection fails the call, never the process; waits are
 * bounded; errors say what went wrong, without the password.
 */
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { accessoryHost, namesOf, port } from '../../contract.ts';
import type { Engine } from '../../engine/port.ts';
import type { ServerSettings } from '../../env/settings.ts';
import { OpsError } from '../../errors.ts';
import { isSameHost } from '../../hosts.ts';

export type DatabaseSettings = Pick<
  ServerSettings,
  'DB_HOST' | 'DB_PORT' | 'DB_NAME' | 'DB_USER' | 'DB_PASSWORD'
>;

export interface DatabaseEndpoint {
  host: string;
  port: number;
  database: string;
  user: string;
  password: string;
  /** The container's name when gameops runs the server, else null. */
  accessory: string | null;
}

/** Where this process reaches the database that game servers reach as DB_HOST. @throws ENGINE_REMOTE */
export async function databaseEndpoint(
  engine: Engine,
  project: string,
  settings: DatabaseSettings,
): Promise<DatabaseEndpoint> {
  const isOurs = isSameHost(settings.DB_HOST, accessoryHost.postgres);
  const accessory = isOurs ? namesOf(project).postgres : null;
  const reached = accessory
    ? await engine.dial(project, accessory, port.postgres)
    : { host: settings.DB_HOST, port: settings.DB_PORT };
  return {
    ...reached,
    database: settings.DB_NAME,
    user: settings.DB_USER,
    password: settings.DB_PASSWORD,
    accessory,
  };
}

export interface Limits {
  connectMs?: number;
  /** How long a statement may wait for a lock. Every later statement waits behind it, and players notice. */
  lockMs?: number;
  statementMs?: number;
  /** Name of the connection in pg_stat_activity. */
  application?: string;
}

/** Session limits beside these: a transaction left open for 60 s is ended by the server. @throws DATABASE_UNREACHABLE */
export async function withClient<T>(
  endpoint: DatabaseEndpoint,
  use: (client: pg.Client) => Promise<T>,
  limits: Limits = {},
): Promise<T> {
  const statementMs = limits.statementMs ?? 30_000;
  const client = new pg.Client({
    host: endpoint.host,
    port: endpoint.port,
    database: endpoint.database,
    user: endpoint.user,
    password: endpoint.password,
    application_name: limits.application ?? 'gameops',
    connectionTimeoutMillis: limits.connectMs ?? 5_000,
    keepAlive: true,
    // The server enforces the statement's limit; this limit is for a frozen or unreachable server.
    query_timeout: statementMs + 5_000,
  });
  // Without a listener, a server that stops between two queries would end the whole process.
  client.on('error', () => {});
  try {
    await client.connect();
    await setLimits(client, limits.lockMs ?? 300, statementMs);
  } catch (error) {
    await hangUp(client);
    throw unreachable(endpoint, error);
  }
  try {
    return await use(client);
  } finally {
    await hangUp(client);
  }
}

/**
 * Ends the connection when the signal aborts: a query that runs fails here at once, and on the server within half a second
 * (`client_connection_check_interval`). Afterwards the client is of no use. @throws the reason of `signal`
 */
export async function endedBy<T>(
  signal: AbortSignal | undefined,
  client: pg.Client,
  use: (client: pg.Client) => Promise<T>,
): Promise<T> {
  if (!signal) return use(client);
  signal.throwIfAborted();
  const end = () => streamOf(client).destroy();
  signal.addEventListener('abort', end, { once: true });
  try {
    return await use(client);
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  } finally {
    signal.removeEventListener('abort', end);
  }
}

const streamOf = (client: pg.Client) =>
  (client as unknown as { connection: { stream: Socket } }).connection.stream;

/** A frozen server never answers the request to close. */
async function hangUp(client: pg.Client): Promise<void> {
  const patience = new AbortController();
  const ended = client.end().catch(() => {});
  const impatient = sleep(1_000, undefined, { signal: patience.signal }).catch(() => {});
  await Promise.race([ended, impatient]);
  patience.abort();
  streamOf(client).destroy();
}

/** With SET and not at start-up, because a pooler such as PgBouncer refuses start-up parameters that it does not know. */
async function setLimits(client: pg.Client, lockMs: number, statementMs: number): Promise<void> {
  await client.query(
    `SELECT set_config('lock_timeout', $1, false), set_config('statement_timeout', $2, false),
            set_config('idle_in_transaction_session_timeout', '60s', false)`,
    [`${lockMs}ms`, `${statementMs}ms`],
  );
  // A killed gameops must not leave a statement and its locks behind. Postgres 14 or newer; not on every system.
  await client
    .query(
      `SELECT set_config(name, '500ms', false) FROM pg_settings WHERE name = 'client_connection_check_interval'`,
    )
    .catch(() => {});
}

/** SQLSTATE of a server's error, or Node's code of a broken connection, or "". */
export function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === 'string' ? code : '';
}

/** Whether the code came from the server, and not from Node because the connection broke. */
export const isSqlState = (code: string): boolean => /^[0-9A-Z]{5}$/.test(code) && !/^E[A-Z]+$/.test(code);

/** True when the connection was lost, so that the outcome of a running statement is not known. */
export function isDisconnected(error: unknown): boolean {
  const code = codeOf(error);
  if (/^(08|57P0[123])/.test(code) || /^E[A-Z]+$/.test(code)) return true;
  return (
    code === '' &&
    error instanceof Error &&
    /connection (terminated|ended)|client was closed|not queryable|query read timeout/i.test(error.message)
  );
}

interface Reading {
  what: string;
  next: [string, ...string[]];
}

export function unreachable(endpoint: DatabaseEndpoint, error: unknown): OpsError {
  const { what, next } = readingOf(endpoint, codeOf(error), error);
  return new OpsError('DATABASE_UNREACHABLE', {
    message: what,
    next,
    facts: {
      host: endpoint.accessory ?? endpoint.host,
      port: endpoint.port,
      database: endpoint.database,
      user: endpoint.user,
      sqlstate: codeOf(error),
    },
    cause: error,
  });
}

function readingOf(endpoint: DatabaseEndpoint, code: string, error: unknown): Reading {
  const { accessory, user, database } = endpoint;
  const where = accessory ?? `${endpoint.host}:${endpoint.port}`;
  if (code === '28000' && /pg_hba\.conf/.test(messageOf(error))) {
    return {
      what: `the database at ${where} does not allow ${user} to connect from this machine: ${messageOf(error)}`,
      next: [`add a line for ${user} and this machine to the server's pg_hba.conf, and reload it`],
    };
  }
  if (code === '28P01' || code === '28000') {
    return {
      what: `the database at ${where} refused the password of ${user}`,
      next: accessory
        ? [
            'put the former DB_USER and DB_PASSWORD back: the volume keeps them',
            'if they were rotated (gameops env rotate db): use the .env of the person who rotated them',
            `or give the role the new password: docker exec -it ${accessory} psql -U ${user} -d ${database}, then \\password`,
          ]
        : [
            'correct DB_USER and DB_PASSWORD; if they were rotated, use the .env of the person who rotated them',
            'gameops env check',
          ],
    };
  }
  if (code === '3D000') {
    return {
      what: `the server at ${where} has no database ${database}`,
      next: accessory
        ? ['put the former DB_NAME back: the volume keeps the database with which it was made']
        : [`create it there (createdb ${database}) or correct DB_NAME`],
    };
  }
  if (code === '53300') {
    return {
      what: `the database server at ${where} has no free connection`,
      next: ['run fewer replicas, or raise max_connections of that server', 'gameops status'],
    };
  }
  if (code === '57P03') {
    return {
      what: `the database server at ${where} is starting or shutting down`,
      next: ['try again in a moment'],
    };
  }
  if (/^(42501|28)/.test(code)) {
    return {
      what: `the server at ${where} does not allow ${user} to do this in ${database}: ${messageOf(error)}`,
      next: [`grant the role the missing right, or GRANT CONNECT ON DATABASE ${database} TO ${user}`],
    };
  }
  return {
    what: `no database answers at ${where}: ${messageOf(error)}`,
    next: accessory
      ? [`docker logs ${accessory}`, 'gameops deploy (starts it again)']
      : ['check DB_HOST, DB_PORT and the firewall in between', 'gameops doctor'],
  };
}

/** Node throws an AggregateError without a message; the errors of the single attempts are inside. */
export function messageOf(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') {
    return error.errors.map(messageOf).join('; ');
  }
  return error instanceof Error ? error.message : String(error);
}
