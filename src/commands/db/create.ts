/** gameops db create: an empty migration whose number comes after all others. Never overwrites. */
import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { listMigrations, prefixOf } from '../../database/migrate/files.ts';
import { OpsError } from '../../errors.ts';
import type { Context, Outcome } from '../../operations/context.ts';
import { migrationsFolder, shownPath } from '../../operations/database/database.ts';
import { packageRoot } from '../../package-root.ts';
import { originOfImage } from '../../release/origin.ts';

export interface DbCreateOptions {
  name: string;
}

const template = `-- gameops: phase=expand reversible=yes
-- phase=expand: the previous release works with it. What removes something is phase=contract, in a file of its own.
-- reversible=yes, lossy (reverting it loses values of players) or no. For CREATE INDEX CONCURRENTLY: transaction=off.

-- Up Migration

-- Down Migration
`;

export async function run(context: Context, { name }: DbCreateOptions): Promise<Outcome> {
  const slug =
    name
      .toLowerCase()
      .match(/[a-z0-9]+/g)
      ?.join('_') ?? '';
  if (slug === '') throw refused('the name needs letters or digits', 'gameops db create add-guilds');
  const dir = migrationsFolder(context);
  if (originOfImage(context.config.server.image) === 'bundled' && context.cwd !== packageRoot())
    throw refused(
      'the migrations of the bundled server come with gameops, and an upgrade replaces them',
      'name your own image in server.image; its migrations belong in the folder that database.migrations names',
    );
  const names = (await listMigrations(dir)).map((one) => one.name);
  const path = join(dir, `${nextPrefix(names, new Date())}_${slug}.sql`);
  if (existsSync(path)) throw refused(`${path} exists already`, 'gameops db create <another name>');
  await mkdir(dir, { recursive: true });
  await writeFile(path, template, { flag: 'wx' });
  const shown = shownPath(context, path);
  const text = () => `wrote ${shown}\nNext: fill it in, then gameops db lint and gameops db verify`;
  return { ok: true, result: { file: path, applied: [], reverted: [], pending: [], findings: [] }, text };
}

/** Numbered like the existing files: by an index, or by a UTC date of 17 digits. */
export function nextPrefix(names: readonly string[], now: Date): string {
  const last = names.at(-1);
  const digits = last === undefined ? '' : (/^\d+/.exec(last)?.[0] ?? '');
  if (last !== undefined && digits.length < 13)
    return String(Number(digits) + 1).padStart(digits.length, '0');
  const after = last === undefined ? 0 : prefixOf(last) + 1;
  const ms = Math.max(now.getTime(), after);
  return digits.length === 13 ? String(ms) : new Date(ms).toISOString().replace(/\D/g, '');
}

function refused(why: string, next: string): OpsError {
  return new OpsError('USAGE', { message: `No migration was written: ${why}.`, next: [next] });
}
