/**
 * A throw-away Postgres of the image that this project's own server runs, or would run. Promises that what is found on it
 * holds for the live one: where that is another major, it is refused.
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

/** Under the project's lock: only its holder makes such containers. @throws IMAGE_NOT_FOUND, LOCKED, CONFIG_INVALID */
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

/** null: none is named, or it does not answer. One that gameops runs has the throw-away's own image. */
async function externalServer(context: Context): Promise<LiveServer | null> {
  try {
    const endpoint = await openEndpoint(context);
    if (endpoint.accessory !== null) return null;
    const version = await look(endpoint, serverVersion, { connectMs: 2_000 });
    return { at: `${endpoint.host}:${endpoint.port}`, version };
  } catch (error) {
    if (!isOpsError(error)) throw error;
    const message = `images.postgres is not compared with a live server: ${error.message}`;
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
    message: `the image ${postgres.ref} is not on this engine, so there is no throw-away Postgres; nothing was touched`,
    next: ['gameops images prepare'],
    facts: { image: postgres.ref },
  });
}

/** Works without any settings, too: a check of a pull request has none. */
function namesOfLive(context: Context): { database: string; user: string } {
  try {
    const { database } = context.readEnv().settings;
    if (database) return { database: database.DB_NAME, user: database.DB_USER };
  } catch (error) {
    if (!isOpsError(error)) throw error;
  }
  return { database: accessoryHost.postgres, user: accessoryHost.postgres };
}
