/**
 * Builds all three programs into dist/: the CLI (split, so that a verb loads only what it needs), the game server
 * (one file, goes into an image) and the web page (names by content). Promises the same bytes for the same input:
 * the server's image is tagged by content. Never leaves a deploy that runs meanwhile without files: everything is
 * built aside and moved in file by file (install.js).
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { buildCli, leaveOut } from './build-cli.js';
import { install, openStage } from './install.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const dist = join(root, 'dist');
const stage = await openStage(dist);

/** CommonJS packages in an ES module still call require() for Node's own modules. */
const requireBanner =
  "import { createRequire as requireFrom } from 'node:module'; const require = requireFrom(import.meta.url);";
/** Compiled or optional parts that their packages do without. */
const optional = ['*.node', 'cpu-features', 'pg-native'];

const shared = {
  absWorkingDir: root,
  bundle: true,
  platform: 'node',
  format: 'esm',
  external: optional,
  legalComments: 'none',
  logLevel: 'warning',
  metafile: true,
};

async function buildServer() {
  await build({
    ...shared,
    entryPoints: { server: 'src/server/main.ts' },
    outdir: join(stage, 'server'),
    outExtension: { '.js': '.mjs' },
    target: 'node24',
    banner: { js: requireBanner },
    // Neither minified nor mapped: a stack names functions and files as they are, and a map costs every start 100 ms.
    plugins: [leaveOut(/^\.\.\/locales\/index\.js$/)],
  });
  const needs = await imageNeeds();
  await writeFile(join(stage, 'server', 'migrations.json'), `${JSON.stringify(needs)}\n`);
  await writeFile(join(stage, 'server', 'Dockerfile'), await dockerfile(needs));
}

/** Which schemas the server can run on, by the same reader and the same rule that the CLI has. */
async function imageNeeds() {
  const { outputFiles } = await build({
    ...shared,
    stdin: {
      contents: `export { listMigrations } from './src/database/migrate/files.ts';
        export { imageNeeds } from './src/boot-rule.ts';`,
      resolveDir: root,
    },
    write: false,
    target: 'node20',
  });
  const code = Buffer.from(outputFiles[0].contents).toString('base64');
  const rule = await import(`data:text/javascript;base64,${code}`);
  return rule.imageNeeds(await rule.listMigrations(join(root, 'migrations')));
}

async function dockerfile({ needs, knows }) {
  const protocol = await readFile(join(root, 'src/protocol.ts'), 'utf8');
  const version = /protocolVersion = '([^']+)'/.exec(protocol)?.[1];
  if (version === undefined) throw new Error('src/protocol.ts names no protocolVersion');
  return `ARG BASE
FROM \${BASE}
LABEL gameops.protocol="${version}" gameops.needs="${needs ?? ''}" gameops.knows="${knows ?? ''}" gameops.key-ring="1" gameops.unix-socket="1"
WORKDIR /app
COPY server.mjs migrations.json /app/
USER 10001:10001
ENTRYPOINT ["node", "/app/server.mjs"]
CMD []
`;
}

async function buildPage() {
  const outdir = join(stage, 'web');
  const result = await build({
    absWorkingDir: root,
    entryPoints: { app: 'src/client/web/main.ts', style: 'src/client/web/style.css' },
    outdir,
    entryNames: 'assets/[name]-[hash]',
    bundle: true,
    minify: true,
    format: 'esm',
    target: ['chrome110', 'firefox110', 'safari16'],
    legalComments: 'none',
    logLevel: 'warning',
    metafile: true,
  });
  const manifest = {};
  for (const [output, { entryPoint }] of Object.entries(result.metafile.outputs)) {
    if (entryPoint === undefined) continue;
    const source = entryPoint.slice('src/client/web/'.length);
    manifest[source] = `assets/${output.split('/').at(-1)}`;
  }
  let page = await readFile(join(root, 'src/client/web/index.html'), 'utf8');
  for (const [source, output] of Object.entries(manifest))
    page = page.replaceAll(`./${source}`, `/${output}`);
  await writeFile(join(outdir, 'index.html'), page);
  const icon = await readFile(join(root, 'src/client/web/favicon.svg'));
  await writeFile(join(outdir, 'favicon.svg'), icon);
  await writeFile(
    join(outdir, 'manifest.json'),
    `${JSON.stringify(manifest, Object.keys(manifest).sort(), 2)}\n`,
  );
}

const began = performance.now();
await mkdir(join(stage, 'web'), { recursive: true });
await Promise.all([buildCli(root, stage), buildServer(), buildPage()]);
const pieces = await install(stage, dist);
const digest = createHash('sha256')
  .update(await readFile(join(dist, 'server/server.mjs')))
  .digest('hex');
process.stderr.write(
  `built in ${Math.round(performance.now() - began)} ms: ${pieces} files, server.mjs ${digest.slice(0, 12)}\n`,
);
