/** The project's lock for db verbs that change the schema. Apart from what only reads, which should start fast. */
import type { Engine } from '../engine/port.ts';
import { isOpsError } from '../errors.ts';
import { readRecord } from '../record/record.ts';
import type { Context } from './context.ts';
import { lockImage, withLock } from './project.ts';

/**
 * Keeps deploys away while the schema changes. Without an engine there are none to keep away.
 * @param use gets a signal that also aborts when the lock is lost. @throws LOCKED
 */
export async function withProjectLock<T>(
  context: Context,
  use: (engine: Engine | null, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const engine = await context.engine().catch((error) => {
    if (isOpsError(error, 'ENGINE_UNREACHABLE')) return null;
    throw error;
  });
  const { project, signal } = context;
  if (engine === null) return use(null, signal);
  const [containers, record] = await Promise.all([engine.observe(project), readRecord(engine, project)]);
  const isKnown = containers.length > 0 || record !== null;
  const image = isKnown ? await lockImage(context, containers) : null;
  if (image === null) return use(engine, signal);
  return withLock(context, image, ({ lost }) => use(engine, AbortSignal.any([signal, lost])));
}
