/** What a release is given beside its container: today's settings, its page, a token to probe with. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { probePlayer } from '../contract.ts';
import { companionsOf } from '../env/settings.ts';
import { OpsError } from '../errors.ts';
import { packageRoot } from '../package-root.ts';
import type { Release } from '../release/model.ts';
import type { ReleaseInputs } from '../runner/outside.ts';
import { mintToken } from '../tokens.ts';
import { settingsOf } from './candidate.ts';
import type { Context, EnvFile } from './context.ts';

const probeTokenLifeMs = 60_000;

/** Folder of the static files; null when every path goes to the server. @throws CONFIG_INVALID */
export function findPage(context: Context, isBundled: boolean): string | null {
  const { dir } = context.config.web;
  if (dir === undefined) return isBundled ? join(packageRoot(), 'dist', 'web') : null;
  const folder = resolve(context.cwd, dir);
  try {
    readdirSync(folder);
    return folder;
  } catch (cause) {
    throw new OpsError('CONFIG_INVALID', {
      message: `web.dir is ${dir}, but that folder can't be read. Nothing was changed.`,
      next: ['make the folder, or mend web.dir in gameops.yaml'],
      facts: { folder },
      cause,
    });
  }
}

/** What a release may be given today. Of what goes with a secret, gameops.yaml counts before .env, as in a new release. */
export function valuesFor({ config }: Context, env: EnvFile, release: Release): Record<string, string> {
  const goesWith = new Set(companionsOf(Object.keys(release.fingerprints)));
  const asked = Object.entries(config.server.env).filter(([key]) => goesWith.has(key));
  return { ...env.values, PORT: String(release.shape.port), ...Object.fromEntries(asked) };
}

export function releaseInputs(context: Context, env: EnvFile): ReleaseInputs {
  return {
    settings: (release) => settingsOf(release, valuesFor(context, env, release)),
    // Only our own protocol joins with a token; the settings of the bundled server always have the secret.
    probeToken: () =>
      mintToken(env.settings.jwtSecret ?? '', { id: probePlayer, name: 'gameops' }, probeTokenLifeMs),
    page(release) {
      const folder = findPage(context, release.protocol !== null);
      return folder === null ? null : filesIn(folder);
    },
  };
}

/** Names and contents: another page is another release, for players meet it like any other change. */
export function hashPage(folder: string | null): string | null {
  if (folder === null) return null;
  const hash = createHash('sha256');
  const files = filesIn(folder).sort((a, b) => (a.path < b.path ? -1 : 1));
  for (const { path, content } of files) hash.update(`${path}\0${content.length}\0`).update(content);
  return hash.digest('hex').slice(0, 32);
}

function filesIn(folder: string): { path: string; content: Uint8Array }[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .map((file) => ({ path: relative(folder, file), content: readFileSync(file) }));
}
