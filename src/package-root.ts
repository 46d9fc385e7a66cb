/** Where gameops itself lies on this machine, from source and from the bundle alike. Reads, writes nothing. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

let found: string | null = null;

/** The folder that holds package.json, templates/ and dist/. */
export function packageRoot(): string {
  if (found !== null) return found;
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'templates')) || !existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new Error(`no package of gameops around ${fileURLToPath(import.meta.url)}`);
    folder = parent;
  }
  found = folder;
  return folder;
}
