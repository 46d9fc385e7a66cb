#!/usr/bin/env node
/**
 * `npm run quickstart`: from a bare clone to a running game, and then a deploy under its players' feet.
 * Plain JavaScript on Node alone, because at its start nothing else is there. Every part is a command that can be run
 * by itself; running it again does only what is missing. Touches no project but its own.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const audienceSize = { clients: 16, players: 40 };
const begun = Date.now();
const isTerminal = process.stdout.isTTY && !process.env.NO_COLOR;
const bold = (text) => (isTerminal ? `\u001b[1m${text}\u001b[22m` : text);

const [major, minor] = process.versions.node.split('.').map(Number);
if (major < 20 || (major === 20 && minor < 19)) {
  console.error(`quickstart needs Node 20.19 or newer; this is ${process.version}.`);
  process.exit(2);
}

// A clone has its own project, so that two clones on one engine never meet. Files of the user's are left alone.
const project = `quickstart-${createHash('sha256').update(root).digest('hex').slice(0, 6)}`;
const scope = projectScope();
const gameops = (...words) => ['node', '--', 'bin/gameops.js', ...words, ...scope];

function projectScope() {
  const config = join(root, 'gameops.yaml');
  const isOurs = existsSync(config) && readFileSync(config, 'utf8').includes(`project: ${project}\n`);
  if (isOurs || (!existsSync(config) && !existsSync(join(root, '.env')))) return [];
  const folder = join(
    process.env.XDG_STATE_HOME || join(homedir(), '.local', 'state'),
    'gameops',
    `${project}-files`,
  );
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const own = join(folder, 'gameops.yaml');
  if (!existsSync(own)) writeFileSync(own, `project: ${project}\nhttp: { port: 0, tlsPort: 0 }\n`);
  return ['--config', own, '--env-file', join(folder, '.env')];
}

function needsInstall() {
  const installed = join(root, 'node_modules', '.package-lock.json');
  return (
    !existsSync(installed) || statSync(installed).mtimeMs < statSync(join(root, 'package-lock.json')).mtimeMs
  );
}

function needsBuild() {
  const outputs = [
    'dist/cli.cjs',
    'dist/audience.cjs',
    'dist/server/server.mjs',
    'dist/server/Dockerfile',
    'dist/web/index.html',
  ];
  if (!outputs.every((file) => existsSync(join(root, file)))) return true;
  const builtAt = Math.min(...outputs.map((file) => statSync(join(root, file)).mtimeMs));
  const sources = readdirSync(join(root, 'src'), { recursive: true }).map((name) => join(root, 'src', name));
  return [...sources, join(root, 'scripts/build.js'), join(root, 'package-lock.json')].some(
    (file) => statSync(file).mtimeMs > builtAt,
  );
}

/** Ports free now may be taken a minute later, or when this runs again: 0 is chosen once, by the deploy itself. */
function letPortsBeChosen() {
  const file = scope[1] ?? join(root, 'gameops.yaml');
  const text = readFileSync(file, 'utf8');
  const changed = text.replace(/^( {2}(?:port|tlsPort)): \d+$/gm, '$1: 0');
  if (changed !== text) writeFileSync(file, changed);
}

const elapsed = () => `${((Date.now() - begun) / 1000).toFixed(1).padStart(5)} s`;

/** Runs one part with its own words on the terminal; ends the quickstart with its exit code when it fails. */
async function part(title, [program, ...rest]) {
  console.log(`\n${bold(`[${elapsed()}] ${title}`)}  ${[program, ...rest].join(' ')}`);
  const child = spawn(program, rest, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] });
  const { code, why } = await new Promise((resolve) => {
    child.on('error', (error) => resolve({ code: 1, why: error.message }));
    child.on('exit', (status, signal) =>
      resolve({ code: status ?? (signal === 'SIGINT' ? 130 : 143), why: signal }),
    );
  });
  if (code === 0) return;
  console.error(
    `\nquickstart stopped after ${elapsed().trim()}: "${title}" ended with exit code ${code}${why ? ` (${why})` : ''}.`,
  );
  console.error(
    `What it said is above. By itself:\n  ${[program, ...rest].join(' ')}\nThen again:\n  npm run quickstart`,
  );
  process.exit(code);
}

function status() {
  const [program, ...rest] = gameops('status', '--json');
  const { stdout } = spawnSync(program, rest, {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const answer = JSON.parse(stdout || '{}');
  if (!answer.ok || !answer.result?.url) {
    console.error(`quickstart: gameops status gave no address: ${answer.error?.message ?? 'no answer'}`);
    process.exit(answer.error ? 4 : 1);
  }
  return answer.result;
}

async function deployUnderAnAudience() {
  const { startAudience } = await import(new URL('../dist/audience.cjs', import.meta.url).href);
  const { url } = status();
  const audience = await startAudience({ url, ...audienceSize });
  await audience.joined(20_000);
  console.log(
    `\n[${elapsed()}] ${audienceSize.clients} HTTP clients and ${audienceSize.players} players are on ${url}`,
  );
  await part(
    'a second release, while they play',
    gameops('deploy', '--again', '--watch', '5s', '--drain', '20s'),
  );
  // Whoever was closed last needs a moment to be back.
  await audience.joined(10_000).catch(() => undefined);
  return { url, seen: await audience.leave() };
}

function table({ http, players }) {
  const row = (name, value, remark = '') =>
    `  ${name.padEnd(22)}${String(value).padStart(9)}   ${remark}`.trimEnd();
  const ms = (value) => `${Math.round(value)} ms`;
  const why = Object.entries(http.failures).map(([name, count]) => `${name}: ${count}`);
  return [
    row(
      'HTTP requests',
      http.sent.toLocaleString('en'),
      'GET and POST on kept-alive connections, none retried',
    ),
    row('failed', http.failed, why.join(', ')),
    row('longest wait', ms(http.longestWaitMs), 'of any one request'),
    row('longest silence', ms(http.longestSilenceMs), 'without an answer to anybody'),
    row('players', players.online + players.lost),
    row('moved', players.moved, 'to the next release, before they left the last'),
    row('closed by the server', players.closed, 'at a pace, with "come back" (1012)'),
    row(
      'came back',
      players.cameBack,
      players.cameBack ? `the slowest after ${ms(players.longestAwayMs)}` : '',
    ),
    row('lost', players.lost),
    row('messages lost', players.messages.lost),
    row('heard twice', players.messages.duplicated),
  ].join('\n');
}

async function main() {
  if (needsInstall())
    await part('install dependencies', ['npm', 'ci', '--no-fund', '--no-audit', '--loglevel=error']);
  if (needsBuild()) await part('build', ['npm', 'run', '--silent', 'build']);
  // Both work without a gameops.yaml, so before there is one.
  await part('write .env and gameops.yaml', gameops('init', '--project', project));
  letPortsBeChosen();
  await part('have a Docker Engine', gameops('host', 'setup'));
  await part('have the images', gameops('images', 'prepare'));
  await part('deploy', gameops('deploy', '--watch', '5s', '--drain', '20s'));
  const { url, seen } = await deployUnderAnAudience();
  const again = (verb) => `  ${gameops(...verb.split(' ')).join(' ')}`;
  console.log(`\n${bold('What the clients saw while the second release took over')}\n\n${table(seen)}\n`);
  console.log(
    `${bold('The game:')}  ${url}\n\n${bold('Try next')}\n${['status', 'deploy --again --plan', 'down'].map(again).join('\n')}\n`,
  );
  console.log(`Done in ${elapsed().trim()}.`);
  const { lost, messages } = seen.players;
  if (seen.http.failed + lost + messages.lost + messages.duplicated === 0) return 0;
  console.error('Players noticed this deploy, which must not happen: please report it with the lines above.');
  return 1;
}

// Ctrl-C reaches the part that runs, too: it stops at a safe boundary and says how to go on; we wait for it.
process.on('SIGINT', () => undefined);
process.exit(await main());
