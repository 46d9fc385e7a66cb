/**
 * The CLI in three programs, of which bin/gameops.js chooses one, and the JSON Schema of gameops.yaml.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { execa } from 'execa';

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

/** CommonJS in one file: what V8 has compiled of it can be kept (bin/program.js). */
const program = {
  bundle: true,
  platform: 'node',
  target: 'node20',
  format: 'cjs',
  outExtension: { '.js': '.cjs' },
  // Scripts with kept code may not call import().
  supported: { 'dynamic-import': false },
  define: {
    'import.meta.url': '$url',
    // pg asks with it whether it runs at Cloudflare, and Node loads all of fetch for the answer.
    Response: 'undefined',
  },
  banner: { js: "const $url = require('node:url').pathToFileURL(__filename).href;" },
  minifySyntax: true,
  minifyWhitespace: true,
  legalComments: 'none',
  logLevel: 'warning',
};

/** What the programs are asked while V8 compiles them: no engine is there, so every command ends early. */
const firstCommands = {
  cli: ['status', 'deploy --plan', 'rollback --plan', 'db status', 'resume', 'abort'],
  env: ['env check'],
};

export async function buildCli(root, outdir) {
  const whole = {
    cli: 'src/cli/main.ts',
    config: 'src/config.ts',
    'load-thread': 'src/load/thread.ts',
    audience: 'src/load/audience.ts',
  };
  const inRoot = { ...program, absWorkingDir: root, outdir };
  await Promise.all([
    build({ ...inRoot, entryPoints: whole, plugins: [leaveOut(neverCalled), choosePackages] }),
    build({ ...inRoot, entryPoints: { env: 'src/cli/main.ts' }, plugins: [onlyEnv] }),
    build({ ...inRoot, entryPoints: { help: 'src/cli/help.ts' }, plugins: [leaveVerbs], minify: true }),
  ]);
  const { configJsonSchema } = await import(join(outdir, 'config.cjs'));
  await writeFile(join(outdir, 'gameops.schema.json'), `${JSON.stringify(configJsonSchema(), null, 2)}\n`);
  await Promise.all(
    Object.entries(firstCommands).map(([name, commands]) => keepCompiled(outdir, name, commands)),
  );
}

/** In a process of its own, because the programs change what surrounds them. */
async function keepCompiled(outdir, name, commands) {
  const cwd = await mkdtemp(join(tmpdir(), 'gameops-build-'));
  const env = { PATH: process.env.PATH, HOME: cwd, XDG_STATE_HOME: cwd, DOCKER_HOST: `unix://${cwd}/none` };
  const script = fileURLToPath(new URL('keep-compiled.js', import.meta.url));
  try {
    await execa(process.execPath, [script, outdir, name, ...commands], { cwd, env, extendEnv: false });
  } finally {
    await rm(cwd, { recursive: true, force: true });
  }
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
 * have nothing to do with engines. bin/gameops.js chooses. The rest is never asked for there, but for the schema of
 * gameops.yaml when something is wrong in it.
 */
const keptForEnv = /\/src\/((commands\/)?env\/(?!rotate)|report\/|operations\/env-context\.ts$)/;
const onlyEnv = {
  name: 'only-env',
  setup(esbuild) {
    esbuild.onResolve({ filter: /^\.\.?\// }, ({ path, kind, importer, resolveDir }) => {
      if (kind !== 'dynamic-import' || importer.includes('node_modules')) return null;
      if (path.endsWith('/config.ts')) return { path: './config.cjs', external: true };
      return keptForEnv.test(join(resolveDir, path)) ? null : { path: './cli.cjs', external: true };
    });
  },
};
