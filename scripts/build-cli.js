/**
 * The CLI in pieces, so that a verb loads only what it needs, and the JSON Schema of gameops.yaml.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { build } from 'esbuild';

/**
 * What every deploy loads: one piece starts in half the time of a hundred files. What only some verbs load, when they
 * need it (node-pg-migrate), stays a package.
 */
const bundled = new Set([
  'chalk',
  'commander',
  'dockerode',
  'eta',
  'execa',
  'fast-jwt',
  'fastest-levenshtein',
  'ioredis',
  'p-limit',
  'pg',
  'fast-string-width',
  'tar-stream',
  'ws',
  'yaml',
  'zod',
]);

/**
 * Half of dockerode's start-up is what gameops never asks of it: SSH (docker-client.ts refuses it) and BuildKit
 * sessions. Half of zod's is messages in fifty languages.
 */
const neverCalled =
  /^(ssh2|@grpc\/grpc-js|@grpc\/proto-loader|protobufjs|pg-native|\.\.\/locales\/index\.js)$/;

/** Whoever calls a module that was left out meets an empty one. */
export const leaveOut = (modules) => ({
  name: 'leave-out',
  setup(esbuild) {
    esbuild.onResolve({ filter: modules }, ({ path }) => ({ path, namespace: 'left-out' }));
    esbuild.onLoad({ filter: /./, namespace: 'left-out' }, () => ({ contents: 'module.exports = {}' }));
  },
});

const choosePackages = {
  name: 'choose-packages',
  setup(esbuild) {
    esbuild.onResolve({ filter: /^[^./#]/ }, ({ path, kind, importer }) => {
      // What a bundled package imports comes along.
      if (kind === 'entry-point' || importer.includes('node_modules')) return null;
      const name = path.startsWith('@') ? path.split('/').slice(0, 2).join('/') : path.split('/')[0];
      return bundled.has(name) ? null : { path, external: true };
    });
  },
};

export async function buildCli(root, outdir) {
  await build({
    absWorkingDir: root,
    entryPoints: {
      cli: 'src/cli/main.ts',
      'cli/config': 'src/config.ts',
      'cli/load-thread': 'src/load/thread.ts',
      audience: 'src/load/audience.ts',
    },
    outdir,
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
    plugins: [leaveOut(neverCalled), choosePackages],
    // pg asks with it whether it runs at Cloudflare, and Node loads all of fetch for the answer.
    define: { Response: 'undefined' },
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
    sourcemap: 'linked',
    sourcesContent: false,
    logLevel: 'warning',
  });
  await Promise.all([buildHelp(root, outdir), buildEnv(root, outdir)]);
  const { configJsonSchema } = await import(join(outdir, 'cli/config.js'));
  await writeFile(join(outdir, 'gameops.schema.json'), `${JSON.stringify(configJsonSchema(), null, 2)}\n`);
}

async function buildHelp(root, outdir) {
  await build({
    absWorkingDir: root,
    entryPoints: { help: 'src/cli/help.ts' },
    outdir,
    outExtension: { '.js': '.cjs' },
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'cjs',
    plugins: [leaveVerbs],
    minify: true,
    legalComments: 'none',
    logLevel: 'warning',
  });
}

/** Help never runs a verb; commander starts other programs only for sub-commands that are some. */
const leaveVerbs = {
  name: 'leave-verbs',
  setup(esbuild) {
    esbuild.onResolve({ filter: /./ }, ({ path, kind }) => {
      if (kind === 'dynamic-import') return { path, external: true };
      return path === 'node:child_process' ? { path, namespace: 'nothing' } : null;
    });
    esbuild.onLoad({ filter: /./, namespace: 'nothing' }, () => ({ contents: '' }));
  },
};

/**
 * The verbs of .env once more, in one file without the rest: they run before every commit and in every CI job, and
 * have nothing to do with engines. bin/gameops.js chooses.
 */
async function buildEnv(root, outdir) {
  await build({
    absWorkingDir: root,
    entryPoints: { env: 'src/cli/main.ts' },
    outdir,
    outExtension: { '.js': '.cjs' },
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'cjs',
    define: { 'import.meta.url': '$url' },
    banner: { js: "const $url = require('node:url').pathToFileURL(__filename).href;" },
    plugins: [onlyEnv],
    minifySyntax: true,
    minifyWhitespace: true,
    legalComments: 'none',
    logLevel: 'warning',
  });
}

/** The rest is never asked for here, but for the schema of gameops.yaml when something is wrong in it. */
const keptForEnv = /\/src\/((commands\/)?env\/(?!rotate)|report\/|operations\/env-context\.ts$)/;
const onlyEnv = {
  name: 'only-env',
  setup(esbuild) {
    esbuild.onResolve({ filter: /^\.\.?\// }, ({ path, kind, importer, resolveDir }) => {
      if (kind !== 'dynamic-import' || importer.includes('node_modules')) return null;
      if (path.endsWith('/config.ts')) return { path: './cli/config.js', external: true };
      return keptForEnv.test(join(resolveDir, path)) ? null : { path: './cli.js', external: true };
    });
  },
};
