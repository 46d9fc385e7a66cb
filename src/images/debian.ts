/**
 * Images without a registry: one root file system of Debian's own signed packages that serves every role.
 * Promises that each recipe is built once, also when several processes ask at the same time, and that no temporary file
 * stays. Never names a mirror: it takes the mirror from which this machine installs its own packages.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, readdir, readFile, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecaError } from 'execa';
import { label } from '../contract.ts';
import type { Engine, ImageInfo } from '../engine/port.ts';
import { OpsError } from '../errors.ts';
import { oneAtATime } from '../host/lock.ts';
import { installPackages, isProgram, lastWords, searchPath } from '../host/packages.ts';
import { packageRoot } from '../package-root.ts';
import type { Emit } from '../report/events.ts';
import { formatBytes, megabyte } from '../units.ts';

/** Newest first: the next suite is tried when the mirror lacks the one before it, or can't prove its signature. */
export const suites = [
  { name: 'forky', postgres: 18, loses: null },
  {
    name: 'trixie',
    postgres: 17,
    loses: 'its Nginx is older than 1.27.4: a switch can reset busy keep-alive connections',
  },
  {
    name: 'bookworm',
    postgres: 15,
    loses:
      'its Nginx is older than 1.27.4: a switch can reset busy keep-alive connections; its Node is past its end of life',
  },
] as const;

export type Suite = (typeof suites)[number];

/** One list for every role. */
export const packagesOf = (suite: Suite): string[] => [
  'nginx',
  'redis-server',
  `postgresql-${suite.postgres}`,
  'nodejs',
  'ca-certificates',
];

/** On images built here: the versions inside, for people. */
const versionsLabel = 'gameops.versions';

const buildDeadlineMs = 600_000;
const neededBytes = 2048 * megabyte;
const tempPrefix = 'gameops-image-';

// A mirror's index of a suite that is not released yet may be some weeks old. Signatures are checked all the same.
const options = [
  '--variant=minbase',
  '--aptopt=Acquire::Check-Valid-Until "false"',
  '--aptopt=Acquire::Retries "2"',
  // The folders that the recipe makes there; a container's first start would make them anew, for root alone.
  '--skip=cleanup/run',
  '--dpkgopt=path-exclude=/usr/share/man/*',
  '--dpkgopt=path-exclude=/usr/share/locale/*',
  '--dpkgopt=path-exclude=/usr/share/doc/*',
  '--dpkgopt=path-include=/usr/share/doc/*/copyright',
  '--essential-hook=sh "$GAMEOPS_RECIPE/accounts.sh" "$1"',
  '--customize-hook=sh "$GAMEOPS_RECIPE/customize.sh" "$1"',
];

/** Dockerfile lines, without the labels. */
function changesOf(suite: Suite): string[] {
  const path = `/usr/lib/postgresql/${suite.postgres}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`;
  return [`ENV PATH=${path}`, 'ENTRYPOINT ["docker-entrypoint.sh"]'];
}

export interface DebianImage {
  ref: string;
  info: ImageInfo;
  suite: Suite;
  /** "nginx 1.30.6, PostgreSQL 18.6, …" */
  versions: string;
}

/** The image of the newest suite that is on the engine. Changes nothing. */
export async function findDebianImage(engine: Engine): Promise<DebianImage | null> {
  for (const suite of suites) {
    const ref = debianTag(suite, await recipeFiles());
    const info = await engine.image(ref);
    if (info) return { ref, info, suite, versions: info.labels[versionsLabel] ?? '' };
  }
  return null;
}

/**
 * @throws IMAGE_BUILD_FAILED when this machine can't build one, saying why
 * @throws DISK_TOO_FULL before anything is written
 */
export async function ensureDebianImage(
  engine: Engine,
  { emit, signal }: { emit: Emit; signal?: AbortSignal },
): Promise<DebianImage> {
  const present = await findDebianImage(engine);
  if (present) return present;
  const mirror = await requireBuilder(engine);
  return oneAtATime(
    'images',
    async () => (await findDebianImage(engine)) ?? (await buildNewest(engine, mirror, emit, signal)),
    () =>
      emit({
        type: 'note',
        level: 'info',
        message: 'another gameops process is building the images; waiting for it',
      }),
  );
}

/** Checks what building needs before anything is done. Returns the mirror. */
async function requireBuilder(engine: Engine): Promise<string> {
  const mirror = mirrorOf(await sourcesOfApt());
  if (mirror === null) throw cannotBuild("this machine's apt sources name no Debian mirror");
  if (process.getuid?.() !== 0) throw cannotBuild('building needs root');
  const { platform } = await engine.info();
  const own = `linux/${process.arch === 'x64' ? 'amd64' : process.arch}`;
  if (platform !== own) throw cannotBuild(`the engine runs ${platform}, this machine is ${own}`);
  return mirror;
}

function cannotBuild(because: string): OpsError {
  return new OpsError('IMAGE_BUILD_FAILED', {
    message: `Images can't be built from Debian packages here: ${because}.`,
    next: [
      'make a registry reachable, then: gameops images prepare --source registry',
      'or load the images yourself (docker load) and name them under `images:` in gameops.yaml',
    ],
  });
}

async function buildNewest(
  engine: Engine,
  mirror: string,
  emit: Emit,
  signal?: AbortSignal,
): Promise<DebianImage> {
  if (!(await isProgram('mmdebstrap'))) {
    emit({ type: 'note', level: 'info', message: 'installing mmdebstrap with apt-get' });
    await installPackages(['mmdebstrap'], { why: 'building images', code: 'IMAGE_BUILD_FAILED' });
  }
  const base = await roomyFolder();
  const failures: string[] = [];
  for (const suite of suites) {
    try {
      return await build(engine, { suite, mirror, base, emit, signal });
    } catch (error) {
      if (signal?.aborted || !isFailedProgram(error)) throw error;
      failures.push(`${suite.name}: ${lastWords(String(error.stderr ?? error.shortMessage), 2)}`);
      emit({
        type: 'note',
        level: 'warning',
        message: `Debian ${suite.name} is not available: ${failures.at(-1)}`,
      });
    }
  }
  throw cannotBuild(`mmdebstrap failed for every suite (${failures.join('; ')})`);
}

async function build(
  engine: Engine,
  at: { suite: Suite; mirror: string; base: string; emit: Emit; signal: AbortSignal | undefined },
): Promise<DebianImage> {
  const { suite, emit } = at;
  const files = await recipeFiles();
  const ref = debianTag(suite, files);
  const folder = await mkdtemp(join(at.base, tempPrefix));
  try {
    const tarPath = join(folder, 'root.tar');
    const versions = await bootstrap(at, folder, tarPath);
    const info = await engine.importImage({
      tag: ref,
      tarPath,
      changes: [
        ...changesOf(suite),
        `LABEL ${label.role}="image" ${label.content}="${ref}" ${versionsLabel}="${versions}"`,
      ],
    });
    if (suite.loses)
      emit({ type: 'note', level: 'warning', message: `Debian ${suite.name}: ${suite.loses}` });
    return { ref, info, suite, versions };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** By name: execa is loaded only when a program is run, because every deploy loads this module. */
function isFailedProgram(error: unknown): error is ExecaError {
  return error instanceof Error && error.name === 'ExecaError';
}

/** Returns what was installed, for people. */
async function bootstrap(
  at: { suite: Suite; mirror: string; emit: Emit; signal: AbortSignal | undefined },
  folder: string,
  tarPath: string,
): Promise<string> {
  const versionsFile = join(folder, 'versions');
  const include = packagesOf(at.suite);
  const { execa } = await import('execa');
  const builder = execa(
    'mmdebstrap',
    [
      ...options,
      `--include=${include.join(',')}`,
      '--customize-hook=dpkg-query --admindir="$1/var/lib/dpkg" --show >"$GAMEOPS_VERSIONS"',
      at.suite.name,
      tarPath,
      `deb ${at.mirror} ${at.suite.name} main`,
    ],
    {
      // TMPDIR: mmdebstrap unpacks there, in a mount namespace of its own, and removes it; we remove what a kill
      // leaves.
      env: {
        PATH: searchPath(),
        TMPDIR: folder,
        GAMEOPS_RECIPE: join(packageRoot(), 'templates', 'images'),
        GAMEOPS_VERSIONS: versionsFile,
      },
      stdin: 'ignore',
      stdout: 'ignore',
      timeout: buildDeadlineMs,
      ...(at.signal ? { cancelSignal: at.signal } : {}),
    },
  );
  // It announces each of its stages in a line of its own; there are about this many.
  const stages = 19;
  let stage = 0;
  builder.stderr?.on('data', (chunk: Buffer) => {
    stage += chunk
      .toString()
      .split('\n')
      .filter((line) => line.startsWith('I: ')).length;
    const labelText = `building images from Debian packages (${at.suite.name})`;
    at.emit({
      type: 'progress',
      label: labelText,
      done: Math.min(stage, stages),
      total: stages,
      unit: 'stages',
    });
  });
  await builder;
  return versionsText(await readFile(versionsFile, 'utf8'));
}

/** Pure: `dpkg-query --show` → "nginx 1.30.6, PostgreSQL 18.6, Redis 8.0.6, Node 24.21.0" */
export function versionsText(installed: string): string {
  const names: [RegExp, string][] = [
    [/^nginx\t/m, 'nginx'],
    [/^postgresql-\d+\t/m, 'PostgreSQL'],
    [/^redis-server\t/m, 'Redis'],
    [/^nodejs\t/m, 'Node'],
  ];
  const found: string[] = [];
  for (const [pattern, name] of names) {
    const line = installed.split('\n').find((text) => pattern.test(text));
    const version = /\t(?:\d+:)?(\d+(?:\.\d+)*)/.exec(line ?? '')?.[1];
    if (version) found.push(`${name} ${version}`);
  }
  return found.join(', ');
}

/** Pure. Another recipe has another tag, so only a changed recipe is built. */
export function debianTag(suite: Suite, files: ReadonlyMap<string, string>): string {
  const hash = createHash('sha256');
  hash.update(JSON.stringify([options, packagesOf(suite), changesOf(suite)]));
  for (const name of [...files.keys()].sort()) hash.update(`\0${name}\0${files.get(name)}`);
  return `gameops-debian:${suite.name}-${hash.digest('hex').slice(0, 12)}`;
}

async function recipeFiles(): Promise<Map<string, string>> {
  const folder = join(packageRoot(), 'templates', 'images');
  const files = new Map<string, string>();
  for (const name of await readdir(folder)) {
    if (name.endsWith('.sh')) files.set(name, await readFile(join(folder, name), 'utf8'));
  }
  return files;
}

async function sourcesOfApt(): Promise<string> {
  try {
    const args = ['indextargets', '--format', '$(REPO_URI) $(RELEASE) $(COMPONENT) $(CREATED_BY)'];
    const { execa } = await import('execa');
    return (await execa('apt-get', args, { timeout: 30_000, stdin: 'ignore' })).stdout;
  } catch {
    return '';
  }
}

/** Pure. First source of Debian proper: no updates, security or third-party archive. */
export function mirrorOf(indexTargets: string): string | null {
  const releases =
    /^(bullseye|bookworm|trixie|forky|duke|sid|oldoldstable|oldstable|stable|testing|unstable)$/;
  for (const line of indexTargets.split('\n')) {
    const [uri, release, component] = line.trim().split(/\s+/);
    if (uri && release && releases.test(release) && component === 'main' && /^(https?|file):/.test(uri))
      return uri;
  }
  return null;
}

/**
 * A folder with 2 GB free. Removes what an earlier, killed build left there; the lock makes sure that none is running.
 */
async function roomyFolder(): Promise<string> {
  const free: string[] = [];
  for (const folder of new Set([tmpdir(), '/var/tmp'])) {
    for (const name of await readdir(folder).catch(() => [])) {
      if (name.startsWith(tempPrefix)) await rm(join(folder, name), { recursive: true, force: true });
    }
    const disk = await statfs(folder).catch(() => null);
    const freeBytes = disk ? disk.bavail * disk.bsize : 0;
    if (freeBytes >= neededBytes) return folder;
    free.push(`${folder}: ${formatBytes(freeBytes)} free`);
  }
  throw new OpsError('DISK_TOO_FULL', {
    message: `Building the images needs ${formatBytes(neededBytes)} of disk for a minute (${free.join(', ')}).`,
    next: ['free some space, or set TMPDIR to a folder that has it', 'gameops images prepare'],
    facts: { free },
  });
}
