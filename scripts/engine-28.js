#!/usr/bin/env node
/**
 * Runs a command against a current Docker Engine (28.5, API 1.51) beside the one this machine has:
 *
 *   node scripts/engine-28.js docker version
 *   node scripts/engine-28.js npx vitest run test/integration
 *
 * The engine runs from a root file system of Debian's packages (built once, kept in the user's cache folder), in a
 * network namespace and a mount namespace of its own. Its published ports exist only in there, so the command runs
 * in that network namespace too, with DOCKER_HOST set. There is no way out of it: the images that gameops prepared
 * on this machine's own engine are copied in first.
 *
 * Needs Debian and root. Removes the engine, its containers and its data afterwards; keeps the root file system.
 */
import { execFileSync, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
} from 'node:fs';
import http from 'node:http';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const suite = 'forky';
const packages = ['docker.io', 'iptables', 'iproute2', 'ca-certificates'];
const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'gameops');
const root = join(cache, `engine-28-${suite}`);
const ownSocket = '/var/run/docker.sock';

// A plain chroot is not enough: the engine remounts / when it imports an image.
const boot = `
set -eu
mount --bind "$1" "$1"
for tree in proc sys dev; do mount --rbind "/$tree" "$1/$tree"; done
mount -t tmpfs tmpfs "$1/run"
mkdir -p "$1/state"
mount --bind "$2" "$1/state"
cd "$1"
pivot_root . mnt
cd /
umount -l /mnt
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ip link set lo up
exec dockerd --data-root /state/data --exec-root /run/docker --pidfile /run/docker.pid -H unix:///state/docker.sock
`;

const command = process.argv.slice(2);
if (command.length === 0) {
  console.error('usage: node scripts/engine-28.js <command> [argument…]');
  process.exit(2);
}
if (process.platform !== 'linux' || process.getuid() !== 0) {
  console.error('engine-28: needs Debian and root, for namespaces and mounts of its own.');
  process.exit(4);
}

const say = (message) => console.error(`engine-28: ${message}`);

function buildRoot() {
  if (existsSync(root)) return;
  const mirror = debianMirror();
  if (!mirror) throw new Error("this machine's apt sources name no Debian mirror");
  if (!hasProgram('mmdebstrap')) {
    say('installing mmdebstrap');
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    execFileSync('apt-get', ['-q', '-y', 'install', '--no-install-recommends', 'mmdebstrap'], {
      env,
      stdio: 'ignore',
    });
  }
  mkdirSync(cache, { recursive: true });
  const partial = mkdtempSync(`${root}-partial-`);
  say(`building its root file system, once, in ${root}`);
  try {
    const options = ['--quiet', '--variant=minbase', '--format=directory', `--include=${packages.join(',')}`];
    execFileSync(
      'mmdebstrap',
      [
        ...options,
        '--aptopt=Acquire::Check-Valid-Until "false"',
        suite,
        partial,
        `deb ${mirror} ${suite} main`,
      ],
      { stdio: ['ignore', 'ignore', 'inherit'], timeout: 600_000 },
    );
    // The rename is what makes it count; whoever was faster wins.
    if (!existsSync(root)) renameSync(partial, root);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
}

function debianMirror() {
  const format = '$(REPO_URI) $(RELEASE) $(COMPONENT)';
  const targets = execFileSync('apt-get', ['indextargets', '--format', format], { encoding: 'utf8' });
  const releases = /^(bullseye|bookworm|trixie|forky|sid|oldstable|stable|testing|unstable)$/;
  for (const line of targets.split('\n')) {
    const [uri, release, component] = line.trim().split(/\s+/);
    if (releases.test(release ?? '') && component === 'main') return uri;
  }
  return null;
}

function hasProgram(name) {
  return (process.env.PATH ?? '').split(':').some((folder) => existsSync(join(folder, name)));
}

function ask(socketPath, method, path, body) {
  return new Promise((resolve, reject) => {
    const request = http.request({
      socketPath,
      method,
      path,
      headers: body ? { 'content-type': 'application/x-tar' } : {},
    });
    request.on('response', resolve).on('error', reject);
    if (body) body.pipe(request);
    else request.end();
  });
}

async function text(response) {
  let all = '';
  for await (const chunk of response) all += chunk;
  return all;
}

async function untilAnswers(socket, daemon, log) {
  for (let attempt = 0; attempt < 150; attempt++) {
    const response = await ask(socket, 'GET', '/version').catch(() => null);
    if (response) return JSON.parse(await text(response));
    if (daemon.exitCode !== null || daemon.signalCode !== null) break;
    await sleep(200);
  }
  throw new Error(
    `the engine did not come up:\n${readFileSync(log, 'utf8').split('\n').slice(-12).join('\n')}`,
  );
}

/** Copies the images of gameops from this machine's own engine, if there are any. */
async function copyImages(socket) {
  const listed = await ask(ownSocket, 'GET', '/images/json').catch(() => null);
  if (listed?.statusCode !== 200) return;
  const tags = JSON.parse(await text(listed)).flatMap((image) => image.RepoTags ?? []);
  const ours = tags.filter((tag) => /^gameops-(debian|test-registry):/.test(tag));
  if (ours.length === 0) {
    say(
      "this machine's engine has no images built by gameops; to have them: gameops images prepare --source debian",
    );
    return;
  }
  say(`copying ${ours.join(', ')}`);
  const query = ours.map((tag) => `names=${encodeURIComponent(tag)}`).join('&');
  const tar = await ask(ownSocket, 'GET', `/images/get?${query}`);
  const loaded = await ask(socket, 'POST', '/images/load', tar);
  const words = await text(loaded);
  if (loaded.statusCode !== 200 || words.includes('"error"'))
    throw new Error(`images could not be copied: ${words}`);
}

/** Everything that still runs in the engine's mount namespace: shims outlive a killed engine. */
function processesIn(namespace) {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return readlinkSync(`/proc/${pid}/ns/mnt`) === namespace;
      } catch {
        return false;
      }
    })
    .map(Number);
}

async function tearDown(daemon, namespace, state) {
  const isOver = () => daemon.exitCode !== null || daemon.signalCode !== null;
  daemon.kill('SIGTERM');
  for (let waited = 0; waited < 30_000 && !isOver(); waited += 100) await sleep(100);
  for (let round = 0; round < 50 && namespace; round++) {
    const left = processesIn(namespace);
    if (left.length === 0) break;
    for (const pid of left) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It ended meanwhile.
      }
    }
    await sleep(100);
  }
  rmSync(state, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
}

async function main() {
  buildRoot();
  const state = mkdtempSync(join(tmpdir(), 'gameops-engine-28-'));
  const socket = join(state, 'docker.sock');
  const log = join(state, 'dockerd.log');
  const out = openSync(log, 'a', 0o600);
  // pdeathsig: when this script is killed, the engine is told to stop.
  const daemon = spawn(
    'setpriv',
    [
      '--pdeathsig',
      'SIGTERM',
      'unshare',
      '--net',
      '--mount',
      '--propagation',
      'private',
      'sh',
      '-c',
      boot,
      'boot',
      root,
      state,
    ],
    { stdio: ['ignore', out, out], detached: true },
  );
  let namespace = null;
  let child = null;
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
  // A terminal sends Ctrl-C to the command as well; we only wait for it to end and clean up.
  for (const name of signals) process.on(name, () => name !== 'SIGINT' && child?.kill(name));
  try {
    const version = await untilAnswers(socket, daemon, log);
    const own = readlinkSync('/proc/self/ns/mnt');
    const theirs = readlinkSync(`/proc/${daemon.pid}/ns/mnt`);
    namespace = theirs === own ? null : theirs;
    say(`Docker Engine ${version.Version}, API ${version.ApiVersion}`);
    await copyImages(socket);
    child = spawn('nsenter', [`--net=/proc/${daemon.pid}/ns/net`, '--', ...command], {
      stdio: 'inherit',
      env: { ...process.env, DOCKER_HOST: `unix://${socket}` },
    });
    return await new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('exit', (code, signal) => resolve(code ?? (signal === 'SIGINT' ? 130 : 143)));
    });
  } finally {
    await tearDown(daemon, namespace, state);
  }
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error) => {
    say(error.message);
    process.exitCode = 4;
  },
);
