/** How a rotation changes .env: under the project's lock, with one rename, and only if nobody has changed it since it was read. */
import { readFileSync } from 'node:fs';
import { type Edit, editEnv } from '../env/file/edit.ts';
import { replaceFile } from '../env/file/write.ts';
import type { EnvFile } from '../env/read.ts';
import { OpsError } from '../errors.ts';
import type { Context } from '../operations/context.ts';
import { lockImage, withLock } from '../operations/project.ts';

/** @throws ROTATION_REFUSED for a value that does not come from .env: it has to be changed where it comes from */
export function mustComeFromFile(context: Context, env: EnvFile, keys: readonly string[]): void {
  for (const key of keys) {
    const source = env.sources[key];
    const isPlain = Object.hasOwn(context.config.server.env, key);
    if (source === 'file' && !isPlain) continue;
    const elsewhere = isPlain ? 'server.env of gameops.yaml' : whereIs(key, source);
    throw new OpsError('ROTATION_REFUSED', {
      message: `${key} comes from ${elsewhere}, but a rotation can change only ${context.envPath}. Nothing was changed.`,
      next: [
        `gameops env explain ${key}`,
        'rotate it there by hand: docs/operations.md, "A secret has to change"',
      ],
      facts: { key, source: source ?? null },
    });
  }
}

function whereIs(key: string, source: EnvFile['sources'][string] | undefined): string {
  switch (source) {
    case 'process':
      return 'the environment';
    case 'process-file':
    case 'file-file':
      return `the file that ${key}_FILE names`;
    case 'command':
      return 'a command of gameops.yaml';
    default:
      return 'nowhere';
  }
}

/** Runs the work under the project's lock. @throws LOCKED */
export async function locked<T>(context: Context, work: () => Promise<T>): Promise<T> {
  const engine = await context.engine();
  const image = await lockImage(context, await engine.observe(context.project));
  return image === null ? work() : withLock(context, image, () => work());
}

/** Empty when the file can't be read: `readEnv` reports why. */
export function readNow({ envPath }: Context): string {
  try {
    return readFileSync(envPath, 'utf8');
  } catch {
    return '';
  }
}

/** Called before a change that .env has to name afterwards. @throws ROTATION_REFUSED */
export function mustBeEditable({ envPath }: Context, seen: string, edits: readonly Edit[]): void {
  try {
    editEnv(seen, edits);
  } catch (cause) {
    const keys = edits.map(({ key }) => key);
    throw new OpsError('ROTATION_REFUSED', {
      message: `New values of ${keys.join(', ')} can't be written into ${envPath}: ${cause instanceof Error ? cause.message : cause}. Nothing was changed; players are not affected.`,
      next: [
        'write these values without characters that need quotes (percent-encoded in a URL), each on a line of its own',
        'the same command again',
      ],
      facts: { file: envPath, keys },
      cause,
    });
  }
}

/** The caller holds the lock. @returns false when somebody has changed the file since it was read; then nothing is written */
export function writeEnv(context: Context, seen: string, edits: readonly Edit[]): boolean {
  const { envPath } = context;
  if (readNow(context) !== seen) return false;
  try {
    replaceFile(envPath, editEnv(seen, edits));
    return true;
  } catch (error) {
    const reason = error instanceof Error && 'code' in error ? String(error.code) : null;
    if (reason === null) throw error;
    throw new OpsError('ENV_UNREADABLE', {
      message: `${envPath} can't be written (${reason}). The file is unchanged; players are not affected.`,
      next: [`make ${envPath} and its folder writable for this user`],
      facts: { file: envPath, reason },
    });
  }
}
