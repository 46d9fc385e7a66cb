/** A throw-away Postgres of the image that this project's own server runs, or would run. */
import { accessoryHost, namesOf } from '../../contract.ts';
import type { DatabaseEndpoint } from '../../database/connection.ts';
import { withThrowAway } from '../../database/throw-away.ts';
import { resolveImages } from '../../engine/images.ts';
import type { Engine } from '../../engine/port.ts';
import { isOpsError, OpsError } from '../../errors.ts';
import type { Context } from '../context.ts';
import { withLock } from '../project.ts';

/** Under the project's lock: only its holder makes such containers. @throws IMAGE_NOT_FOUND, LOCKED */
export async function onThrowAway<T>(
  context: Context,
  use: (endpoint: DatabaseEndpoint) => Promise<T>,
): Promise<T> {
  const engine = await context.engine();
  const image = await postgresImage(context, engine);
  const { database, user } = namesOfLive(context);
  const { project, signal } = context;
  return withLock(context, image, () =>
    withThrowAway(engine, { project, image, database, user, signal }, use),
  );
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
