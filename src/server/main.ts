/**
 * The game server's process: another program than the CLI. Reads its identity and its settings, starts, and leaves on
 * SIGTERM. Never prints a setting's value.
 */
import { once } from 'node:events';
import { type Logger, pino } from 'pino';
import { migrationsFile, port } from '../contract.ts';
import type { ServerSettings } from '../env/settings.ts';
import { startServer } from './server.ts';
import { type Identity, readIdentity, readNeeds, readSettings } from './settings.ts';

const hangTurnMs = 100;

async function run(settings: ServerSettings, identity: Identity, log: Logger): Promise<void> {
  const adminPort = Number(process.env.GAMEOPS_ADMIN_PORT ?? port.admin);
  const needs = readNeeds(new URL(migrationsFile, import.meta.url));
  const server = await startServer({ settings, identity, log, adminPort, needs, onTooOld });
  const why = await Promise.race([signalled('SIGTERM'), signalled('SIGINT')]);
  // Whatever hangs while leaving, the process ends. Counted in turns, because after a standstill of the machine the drain
  // still needs its time.
  let turns = 0;
  setInterval(() => {
    turns += 1;
    if (turns * hangTurnMs > identity.drainMs + 2_000) process.exit(1);
  }, hangTurnMs).unref();
  await server.leave(why).catch(() => undefined);
  process.exit(0);
}

/** Only another image can help, so waiting would hide the problem. */
function onTooOld(floor: string): void {
  log.fatal(
    { floor },
    'this server is too old for the schema: deploy a release that knows the migration named in floor',
  );
  process.exit(1);
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
  await run(read.settings, identity, log).catch((error: unknown) => {
    log.fatal({ err: error }, 'the server failed to start');
    process.exit(1);
  });
} else {
  log.fatal({ problems: read.problems }, 'the settings are not valid');
  process.exit(1);
}
