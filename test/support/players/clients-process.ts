/** The process behind clients.ts: reads its request from argv, answers "window" and "stop" over IPC. */
import { Agent, request as httpRequest, type IncomingMessage } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { type LoadPlayer, startPlayer } from '../../../src/client/player.ts';
import { endpoint } from '../../../src/contract.ts';
import { closeCode } from '../../../src/protocol.ts';

export interface ClientsRequest {
  /** Where players connect, such as http://127.0.0.1:8080/ */
  url: string;
  /** Connections, each with one request at a time. */
  clients: number;
  players?: number;
  /** Between two requests of a connection; 0 saturates. */
  pauseMs?: number;
  /** Paths of a server that is not ours. Default: the API of the bundled server, up to a quarter of it POSTs. */
  paths?: string[];
}

export interface ClientsReport {
  windowMs: number;
  sent: number;
  failed: number;
  /** "502", "ECONNRESET", "timeout" … → how many. */
  failures: Record<string, number>;
  /** The first failures, with the time and what was asked, and the first broken players, with how they were closed. */
  examples: string[];
  /** Longest time in which no client at all got a good answer. */
  longestSilenceMs: number;
  /** When that silence ended, ISO. */
  silenceAt: string;
  perSecond: number;
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
  players: {
    on: number;
    of: number;
    moved: number;
    closed: number;
    broken: number;
    longestAwayMs: number;
  };
}

/** Against an answer that never comes; one that is late shows in `longestSilenceMs`. */
const timeoutMs = 120_000;
/**
 * Guests who write in turn over one connection: the server limits what one player does, and a full site has many
 * players. However fast the machine, no guest comes near that limit.
 */
const guestsPerClient = 16;
const writeEveryMs = 20;
/** Buckets grow by 2 % each from 0.1 ms on: percentiles to 2 %, in bounded memory. */
const bucketOf = (ms: number) => Math.max(0, Math.ceil(Math.log(Math.max(ms, 0.1) / 0.1) / Math.log(1.02)));
const upperMs = (bucket: number) => 0.1 * 1.02 ** bucket;

interface Tally {
  beganAt: number;
  sent: number;
  failures: Map<string, number>;
  examples: string[];
  lastAnswerAt: number;
  silence: { ms: number; at: number };
  buckets: Uint32Array;
  maxMs: number;
}

const newTally = (lastAnswerAt: number): Tally => ({
  beganAt: performance.now(),
  sent: 0,
  failures: new Map(),
  examples: [],
  lastAnswerAt,
  silence: { ms: 0, at: Date.now() },
  buckets: new Uint32Array(2_048),
  maxMs: 0,
});

const asked = JSON.parse(process.argv[2] ?? '{}') as ClientsRequest;
const base = new URL(asked.url);
let tally = newTally(performance.now());
let stopping = false;

function closeTally(players: readonly LoadPlayer[]): ClientsReport {
  const now = performance.now();
  noteSilence(now);
  const done = tally;
  // A silence that spans two windows counts in full in both.
  tally = newTally(done.lastAnswerAt);
  const failed = [...done.failures.values()].reduce((sum, one) => sum + one, 0);
  const windowMs = Math.round(now - done.beganAt);
  return {
    windowMs,
    sent: done.sent,
    failed,
    failures: Object.fromEntries(done.failures),
    examples: done.examples,
    longestSilenceMs: Math.round(done.silence.ms),
    silenceAt: new Date(done.silence.at).toISOString(),
    perSecond: Math.round((done.sent / windowMs) * 1_000),
    p50Ms: percentile(done.buckets, 0.5),
    p99Ms: percentile(done.buckets, 0.99),
    maxMs: Math.round(done.maxMs),
    players: {
      on: players.filter((player) => player.isOn()).length,
      of: players.length,
      moved: sum(players, ({ counts }) => counts.moves),
      closed: sum(players, ({ counts }) => counts.restarts),
      broken: sum(players, ({ counts }) => counts.breaks),
      longestAwayMs: Math.round(Math.max(0, ...players.map(({ counts }) => counts.longestGapMs))),
    },
  };
}

const sum = (players: readonly LoadPlayer[], count: (player: LoadPlayer) => number) =>
  players.reduce((total, player) => total + count(player), 0);

function percentile(buckets: Uint32Array, share: number): number {
  const total = buckets.reduce((all, one) => all + one, 0);
  let rest = Math.ceil(total * share);
  for (const [bucket, count] of buckets.entries()) {
    rest -= count;
    if (rest <= 0) return Math.round(upperMs(bucket) * 10) / 10;
  }
  return 0;
}

function noteSilence(now: number): void {
  const ms = now - tally.lastAnswerAt;
  if (ms > tally.silence.ms) tally.silence = { ms, at: Date.now() };
}

function noteAnswer(ms: number): void {
  const now = performance.now();
  noteSilence(now);
  tally.lastAnswerAt = now;
  const bucket = Math.min(bucketOf(ms), tally.buckets.length - 1);
  tally.buckets[bucket] = (tally.buckets[bucket] ?? 0) + 1;
  tally.maxMs = Math.max(tally.maxMs, ms);
}

function noteFailure(kind: string, what: string): void {
  tally.failures.set(kind, (tally.failures.get(kind) ?? 0) + 1);
  noteExample(`${kind} ${what}`);
}

function noteExample(text: string): void {
  if (tally.examples.length < 20) tally.examples.push(`${new Date().toISOString()} ${text}`);
}

interface Call {
  method: 'GET' | 'POST';
  path: string;
  headers: Record<string, string>;
  body: string;
}

/** One request on the agent's one connection. Resolves with the body; null when it failed. */
function exchange(agent: Agent, call: Call): Promise<string | null> {
  const began = performance.now();
  const what = `${call.method} ${call.path}`;
  tally.sent += 1;
  return new Promise((resolve) => {
    let settled = false;
    const fail = (kind: string) => {
      if (settled) return;
      settled = true;
      noteFailure(kind, `${what} after ${Math.round(performance.now() - began)} ms`);
      resolve(null);
    };
    const { method, path, headers } = call;
    const sent = httpRequest(
      { host: base.hostname, port: base.port, agent, method, path, headers },
      (response: IncomingMessage) => {
        let body = '';
        response.setEncoding('utf8').on('data', (text: string) => (body += text));
        response.on('error', (error: NodeJS.ErrnoException) => fail(`body ${error.code ?? error.message}`));
        response.on('end', () => {
          const status = response.statusCode ?? 0;
          if (status < 200 || status > 299) return fail(String(status));
          if (!response.complete) return fail('cut short');
          if (settled) return;
          settled = true;
          noteAnswer(performance.now() - began);
          resolve(body);
        });
      },
    );
    sent.setTimeout(timeoutMs, () => {
      fail('timeout');
      sent.destroy();
    });
    sent.on('error', (error: NodeJS.ErrnoException) => fail(error.code ?? error.message));
    sent.end(call.body);
  });
}

const get = (path: string): Call => ({ method: 'GET', path, headers: {}, body: '' });

function post(path: string, value: object, headers: Record<string, string> = {}): Call {
  const body = JSON.stringify(value);
  const length = String(Buffer.byteLength(body));
  return {
    method: 'POST',
    path,
    body,
    headers: { 'content-type': 'application/json', 'content-length': length, ...headers },
  };
}

/** @returns the guest whose turn it is; null while no guest may write */
function turns(tokens: readonly string[]): () => string | null {
  let turn = 0;
  let lastAt = Number.NEGATIVE_INFINITY;
  return () => {
    const now = performance.now();
    if (now - lastAt < writeEveryMs) return null;
    lastAt = now;
    turn += 1;
    return tokens[turn % tokens.length] ?? null;
  };
}

function callNumber(n: number, client: number, writer: () => string | null): Call {
  if (asked.paths) return get(asked.paths[n % asked.paths.length] ?? '/');
  if (n % 4 === 1) return get('/api/discoveries');
  const token = n % 4 === 3 ? writer() : null;
  if (token === null) return get('/api/version');
  return post(
    '/api/discoveries',
    { region: `r${client % 20}-${n % 10}`, x: n % 32, y: Math.floor(n / 32) % 32 },
    {
      authorization: `Bearer ${token}`,
      'idempotency-key': `clients:${process.pid}:${client}:${n}`,
    },
  );
}

async function guestToken(agent: Agent, name: string): Promise<string> {
  if (asked.paths) return '';
  // The game's own limit holds back a second crowd from the same address within a minute.
  for (let tries = 0; tries < 75; tries += 1) {
    const body = await exchange(agent, post('/api/session', { name }));
    if (body !== null) return (JSON.parse(body) as { token: string }).token;
    await sleep(1_000);
  }
  throw new Error(`no token for ${name}: ${tally.examples.join('; ')}`);
}

async function guestTokens(agent: Agent, client: number): Promise<string[]> {
  const tokens: string[] = [];
  while (tokens.length < guestsPerClient)
    tokens.push(await guestToken(agent, `client ${client}-${tokens.length}`));
  return tokens;
}

async function runClient(client: number, agent: Agent, tokens: readonly string[]): Promise<void> {
  const writer = turns(tokens);
  for (let n = 0; !stopping; n += 1) {
    const answered = await exchange(agent, callNumber(n, client, writer));
    // A refused connection fails at once: without a pause the counts would show how fast this machine fails.
    if (answered === null) await sleep(20);
    if (asked.pauseMs) await sleep(asked.pauseMs);
  }
  agent.destroy();
}

async function main(): Promise<void> {
  const agents = Array.from({ length: asked.clients }, () => new Agent({ keepAlive: true, maxSockets: 1 }));
  const tokens = await Promise.all(agents.map((agent, client) => guestTokens(agent, client)));
  const socketUrl = new URL(endpoint.socket, asked.url.replace(/^http/, 'ws')).href;
  const lobby = new Agent({ keepAlive: true, maxSockets: 4 });
  const players: LoadPlayer[] = [];
  for (let n = 0; n < (asked.players ?? 0); n += 1) {
    const token = await guestToken(lobby, `player ${n}`);
    const own = startPlayer({
      url: socketUrl,
      token,
      onEvent(event) {
        if (event.type !== 'state' || event.code === null || event.code === closeCode.restart) return;
        noteExample(`player ${n} closed with ${event.code} on ${own.servedBy() ?? 'nothing yet'}`);
      },
    });
    players.push(own);
  }
  lobby.destroy();
  while (players.some((player) => !player.isOn())) await sleep(20);

  tally = newTally(performance.now());
  const loops = agents.map((agent, client) => runClient(client, agent, tokens[client] ?? []));
  process.on('message', async (word) => {
    if (word === 'window') return void process.send?.(closeTally(players));
    stopping = true;
    await Promise.all(loops);
    const report = closeTally(players);
    for (const player of players) player.stop();
    process.send?.(report, () => process.disconnect?.());
  });
  // Without the parent nobody needs this process any more.
  process.on('disconnect', () => process.exit());
  process.send?.('ready');
}

await main();
