/** Where gameops is installed on this machine, both from source and from the bundle. Writes nothing. */
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
    if (parent === folder)
      throw new Error(`no folder above ${fileURLToPath(import.meta.url)} is the package of gameops`);
    folder = parent;
  }
  found = folder;
  return folder;
}
