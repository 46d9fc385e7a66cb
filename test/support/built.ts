/** vitest's global set-up: tests run the programs in dist/, so those must not be older than their sources. */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

export default function setup(): void {
  if (!isStale()) return;
  const { status, stderr } = spawnSync(process.execPath, ['scripts/build.js'], {
    cwd: root,
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`the build failed:\n${stderr}`);
}

function isStale(): boolean {
  const built = join(root, 'dist', 'cli.cjs');
  if (!existsSync(built)) return true;
  const builtMs = statSync(built).mtimeMs;
  const sources = ['src', 'scripts'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) =>
      join(root, folder, name),
    ),
  );
  return sources.some((file) => statSync(file).mtimeMs > builtMs);
}
