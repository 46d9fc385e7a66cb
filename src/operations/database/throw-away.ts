/**
 * A throw-away Postgres from the image that this project's own server runs, or would run. Promises that results on it hold
 * for the live server: another major version is refused.
 */
import { accessoryHost, namesOf } from '../../contract.ts';
import type { DatabaseEndpoint } from '../../database/server/connection.ts';
import { serverVersion } from '../../database/server/facts.ts';
import { type LiveServer, refuseOtherMajor, withThrowAway } from '../../database/server/throw-away.ts';
import type { Engine } from '../../engine/port.ts';
import { isOpsError, OpsError } from '../../errors.ts';
import { resolveImages } from '../../images/roles.ts';
import type { Context } from '../context.ts';
import { withLock } from '../project.ts';
import { look, openEndpoint } from './database.ts';

/** Under the project's lock: only the holder of the lock makes such containers. @throws IMAGE_NOT_FOUND, LOCKED, CONFIG_INVALID */
export async function onThrowAway<T>(
  context: Context,
  use: (endpoint: DatabaseEndpoint) => Promise<T>,
): Promise<T> {
  const engine = await context.engine();
  const image = await postgresImage(context, engine);
  const { database, user } = namesOfLive(context);
  const { project, signal } = context;
  return withLock(context, image, async () => {
    const live = await externalServer(context);
    return withThrowAway(engine, { project, image, database, user, signal }, async (endpoint) => {
      if (live !== null) refuseOtherMajor(live, await look(endpoint, serverVersion));
      return use(endpoint);
    });
  });
}

/** null: no server is named, or it does not answer. A server that gameops runs has the same image as the throw-away one. */
async function externalServer(context: Context): Promise<LiveServer | null> {
  try {
    const endpoint = await openEndpoint(context);
    if (endpoint.accessory !== null) return null;
    const version = await look(endpoint, serverVersion, { connectMs: 2_000 });
    return { at: `${endpoint.host}:${endpoint.port}`, version };
  } catch (error) {
    if (!isOpsError(error)) throw error;
    const message = `images.postgres was not compared with the live server: ${error.message}`;
    context.emit({ type: 'note', level: 'detail', message });
    return null;
  }
}

async function postgresImage(context: Context, engine: Engine): Promise<string> {
  const name = namesOf(context.project).postgres;
  const there = (await engine.observe(context.project)).find((one) => one.name === name);
  if (there) return there.image;
  const { postgres } = await resolveImages(engine, context.config);
  if (postgres.info) return postgres.info.id;
  throw new OpsError('IMAGE_NOT_FOUND', {
    message: `The image ${postgres.ref} is not on this engine, so no throw-away Postgres can be started. Nothing was touched.`,
    next: ['gameops images prepare'],
    facts: { image: postgres.ref },
  });
}

/** Works without settings, too: the check of a pull request has none. */
function namesOfLive(context: Context): { database: string; user: string } {
  try {
    const { database } = context.readEnv().settings;
    if (database) return { database: database.DB_NAME, user: database.DB_USER };
  } catch (error) {
    if (!isOpsError(error)) throw error;
  }
  return { database: accessoryHost.postgres, user: accessoryHost.postgres };
}
