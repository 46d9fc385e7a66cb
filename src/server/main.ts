/**
 * The game server: another program than the CLI. Listens at once, is ready when Postgres, the schema and Redis have
 * answered, and leaves on SIGTERM without refusing a request. Never prints a setting's value.
 */
import { once } from 'node:events';
import { type Logger, pino } from 'pino';
import { port } from '../contract.ts';
import type { ServerSettings } from '../env/schema.ts';
import { tokenVerifier } from '../tokens.ts';
import { type Bus, openBus } from './bus.ts';
import { leave } from './drain.ts';
import { createHttp } from './http.ts';
import { createMetrics, listenForAdmin } from './metrics.ts';
import { createReadiness } from './readiness.ts';
import { type Identity, readIdentity, readSettings } from './settings.ts';
import { openSockets } from './sockets.ts';
import { openStore } from './store.ts';

const host = '0.0.0.0';
const lossGraceMs = 5_000;
const countEveryMs = 2_000;

async function start(settings: ServerSettings, identity: Identity, log: Logger): Promise<void> {
  const readiness = createReadiness(lossGraceMs);
  const metrics = createMetrics(identity);
  const verify = tokenVerifier(settings.JWT_SECRET);
  // Both connect while the rest is being set up: a deploy waits for this process.
  const store = openStore(settings, readiness, log);
  const bus: Bus = openBus({
    url: settings.REDIS_URL,
    identity,
    readiness,
    log,
    onMessage: (message) => sockets.deliver(message),
  });
  const http = createHttp({
    identity,
    readiness,
    metrics,
    store,
    bus,
    secret: settings.JWT_SECRET,
    verify,
    log,
  });
  const sockets = openSockets({ server: http.app.server, identity, verify, bus: () => bus, metrics, log });

  const adminPort = Number(process.env.GAMEOPS_ADMIN_PORT ?? port.admin);
  const admin = await listenForAdmin(metrics.registry, { port: adminPort, host });
  await http.app.listen({ port: settings.PORT, host });
  readiness.set('listening', true);
  log.info({ port: settings.PORT, bootMs: Math.round(performance.now()) }, 'listening');

  const count = () => void bus.recordCount(sockets.count());
  const counting = setInterval(count, countEveryMs);
  count();

  const why = await Promise.race([signalled('SIGTERM'), signalled('SIGINT')]);
  // Whatever hangs while leaving, the process does not.
  setTimeout(() => process.exit(1), identity.drainMs + 2_000).unref();
  await leave({ why, identity, readiness, http, sockets, bus, log });
  clearInterval(counting);
  admin.close();
  await Promise.allSettled([bus.close(), store.close()]);
  process.exit(0);
}

async function signalled(signal: NodeJS.Signals): Promise<NodeJS.Signals> {
  await once(process, signal);
  // A drain ignores further SIGTERMs (`docker stop` sends its own); a second Ctrl-C is somebody at the keyboard.
  process.on('SIGTERM', () => undefined);
  process.on('SIGINT', () => process.exit(130));
  return signal;
}

const identity = readIdentity(process.env);
const base = { release: identity.release, replica: identity.replica };
const redact = [
  'token',
  '*.token',
  'password',
  '*.password',
  'secret',
  '*.secret',
  '*.headers.authorization',
];
const read = readSettings(process.env);
const level = read.ok ? read.settings.LOG_LEVEL : 'info';
const log = pino({ level, base, redact, timestamp: pino.stdTimeFunctions.isoTime });

if (read.ok) {
  await start(read.settings, identity, log).catch((error: unknown) => {
    log.fatal({ err: error }, 'the server could not start');
    process.exit(1);
  });
} else {
  log.fatal({ problems: read.problems }, 'the settings are not usable');
  process.exit(1);
}
