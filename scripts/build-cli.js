/**
 * The CLI in pieces, so that a verb loads only what it needs, and the JSON Schema of gameops.yaml.
 * Pieces are never taken away from under a running deploy: what an older build left is removed an hour later.
 */
import { mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { build } from 'esbuild';

/** Pure JavaScript that loads faster in one piece; everything else stays a package. */
const bundled = new Set(['commander', 'chalk', 'zod', 'yaml', 'fastest-levenshtein']);

const keepPackages = {
  name: 'keep-packages',
  setup(esbuild) {
    esbuild.onResolve({ filter: /^[^./#]/ }, ({ path, kind }) => {
      if (kind === 'entry-point') return null;
      const name = path.startsWith('@') ? path.split('/').slice(0, 2).join('/') : path.split('/')[0];
      return bundled.has(name) ? null : { path, external: true };
    });
  },
};

export async function buildCli(root) {
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: { cli: 'src/cli.ts', 'cli/config': 'src/config.ts', audience: 'src/observe/audience.ts' },
    outdir: 'dist',
    chunkNames: 'cli/[name]-[hash]',
    bundle: true,
    splitting: true,
    platform: 'node',
    target: 'node20',
    format: 'esm',
    // Bundled CommonJS packages ask for Node's own modules by require.
    banner: {
      js: "import { createRequire as $require } from 'node:module'; const require = $require(import.meta.url);",
    },
    plugins: [keepPackages],
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
    sourcemap: 'linked',
    sourcesContent: false,
    metafile: true,
    logLevel: 'warning',
  });
  await removeOldPieces(root, new Set(Object.keys(metafile.outputs)));
  const { configJsonSchema } = await import(join(root, 'dist/cli/config.js'));
  await mkdir(join(root, 'dist'), { recursive: true });
  await writeFile(join(root, 'dist/gameops.schema.json'), `${JSON.stringify(configJsonSchema(), null, 2)}\n`);
}

async function removeOldPieces(root, current) {
  const keptMs = 3_600_000;
  for (const name of await readdir(join(root, 'dist/cli'))) {
    const path = join(root, 'dist/cli', name);
    if (current.has(`dist/cli/${name}`)) continue;
    const { mtimeMs } = await stat(path);
    if (Date.now() - mtimeMs > keptMs) await rm(path);
  }
}
