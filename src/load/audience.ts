/**
 * A small audience for a demonstration: keep-alive HTTP clients and WebSocket players that behave as real ones do and
 * count what they see. Promises to count every request once, to retry none, and to end when told.
 * Never a load test: it pauses between requests, and says nothing about capacity.
 */
import http from 'node:http';
import https from 'node:https';
import { setTimeout as sleep } from 'node:timers/promises';
import { type LoadPlayer, startPlayer } from '../client/player.ts';
import { realClock, until } from '../clock.ts';
import { endpoint } from '../contract.ts';
import { world } from '../protocol.ts';

export interface Audience {
  /** Resolves when every player has joined once. @throws when that takes longer than `deadlineMs` */
  joined(deadlineMs: number): Promise<void>;
  seen(): Seen;
  /** Ends all clients, players last; resolves with what they saw. */
  leave(): Promise<Seen>;
}

export interface Seen {
  http: {
    sent: number;
    failed: number;
    /** Why, and how often: "ECONNRESET", "502". */
    failures: Record<string, number>;
    /** Longest time from sending to the whole answer, ms. */
    longestWaitMs: number;
    /** Longest time in which no client got an answer, ms. */
    longestSilenceMs: number;
  };
  players: {
    online: number;
    /** Times that a player moved to another server while the old connection was still open. */
    moved: number;
    /** Sockets that a drain closed with 1012. */
    closed: number;
    /** Sockets that ended, or tries that failed, in any other way. */
    broken: number;
    /** How many of those were in the game again. */
    cameBack: number;
    lost: number;
    /** Messages that one player heard twice, or did not hear although others did. */
    messages: { lost: number; duplicated: number };
    /** Longest time between a close and the next welcome, ms. */
    longestAwayMs: number;
  };
}

const requestDeadlineMs = 10_000;
const talkEveryMs = 100;
/** Guests that write in turn over one connection, because the server limits what one player does. */
const guestsPerClient = 8;

/**
 * @param url where players enter, such as http://127.0.0.1:8080/
 * @throws when the first requests for guest tokens fail
 */
export async function startAudience(asked: {
  url: string;
  clients: number;
  players: number;
  pauseMs?: number;
}): Promise<Audience> {
  const { url } = asked;
  const guests = (count: number) =>
    Promise.all(Array.from({ length: count }, (_, index) => guestToken(url, `guest ${index + 1}`)));
  const tokens = await guests(asked.players);
  const writers = await Promise.all(Array.from({ length: asked.clients }, () => guests(guestsPerClient)));
  const socketUrl = new URL(endpoint.socket, url.replace(/^http/, 'ws')).href;
  const run = `audience-${Math.random().toString(36).slice(2, 6)}`;
  const players = tokens.map((token, n) => startPlayer({ url: socketUrl, token, name: `${run}-${n}` }));
  let turn = 0;
  // Some player always speaks, so a player who misses a message notices it.
  const talking = setInterval(() => players[turn++ % players.length]?.count(), talkEveryMs);
  const stop = new AbortController();
  const tally = newTally();
  const clients = writers.map((own, client) =>
    runClient(
      { url, pauseMs: asked.pauseMs ?? 10, client: `${run}-${client}`, tokens: own },
      tally,
      stop.signal,
    ),
  );
  const seen = () => summary(tally, players);
  return {
    seen,
    async joined(deadlineMs) {
      const all = await until(realClock, { deadlineMs, everyMs: 20 }, async () =>
        players.every((player) => player.isOn()) ? true : null,
      );
      if (all) return;
      const { online } = seen().players;
      throw new Error(`${online} of ${players.length} players had joined after ${deadlineMs / 1000} s`);
    },
    async leave() {
      const { players: atTheEnd } = seen();
      stop.abort();
      clearInterval(talking);
      await Promise.all(clients);
      for (const player of players) player.stop();
      return { ...seen(), players: atTheEnd };
    },
  };
}

interface Tally {
  sent: number;
  failures: Map<string, number>;
  longestWaitMs: number;
  lastAnswerAt: number;
  longestSilenceMs: number;
}

function newTally(): Tally {
  return {
    sent: 0,
    failures: new Map(),
    longestWaitMs: 0,
    lastAnswerAt: performance.now(),
    longestSilenceMs: 0,
  };
}

function summary(tally: Tally, players: readonly LoadPlayer[]): Seen {
  const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
  const online = players.filter((player) => player.isOn()).length;
  const moved = sum(players.map(({ counts }) => counts.moves));
  return {
    http: {
      sent: tally.sent,
      failed: sum([...tally.failures.values()]),
      failures: Object.fromEntries(tally.failures),
      longestWaitMs: tally.longestWaitMs,
      longestSilenceMs: tally.longestSilenceMs,
    },
    players: {
      online,
      moved,
      closed: sum(players.map(({ counts }) => counts.restarts)),
      broken: sum(players.map(({ counts }) => counts.breaks)),
      cameBack: sum(players.map(({ counts }) => Math.max(0, counts.joins - 1))) - moved,
      lost: players.length - online,
      messages: {
        lost: sum(players.map(({ counts }) => counts.lost)),
        duplicated: sum(players.map(({ counts }) => counts.duplicated)),
      },
      longestAwayMs: Math.max(0, ...players.map(({ counts }) => counts.longestGapMs)),
    },
  };
}

/** One connection, one request after the other: reads, and every fourth time writes. */
async function runClient(
  {
    url,
    pauseMs,
    client,
    tokens,
  }: { url: string; pauseMs: number; client: string; tokens: readonly string[] },
  tally: Tally,
  stop: AbortSignal,
): Promise<void> {
  const dice = (sides: number) => Math.floor(Math.random() * sides);
  const exploring = (n: number) => ({
    body: {
      region: `r${dice(world.columns)}-${dice(world.rows)}`,
      x: dice(world.tiles),
      y: dice(world.tiles),
    },
    headers: {
      authorization: `Bearer ${tokens[(n >> 2) % tokens.length]}`,
      'idempotency-key': `${client}-${n}`,
    },
  });
  const { Agent } = url.startsWith('https:') ? https : http;
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  for (let n = 0; !stop.aborted; n++) {
    const begun = performance.now();
    tally.sent += 1;
    const answer = await (n % 4 === 3
      ? exchange(agent, 'POST', new URL('/api/discoveries', url), exploring(n))
      : exchange(agent, 'GET', new URL(n % 4 === 1 ? '/api/discoveries' : '/api/version', url)));
    const now = performance.now();
    tally.longestWaitMs = Math.max(tally.longestWaitMs, now - begun);
    if (answer.ok) {
      tally.longestSilenceMs = Math.max(tally.longestSilenceMs, now - tally.lastAnswerAt);
      tally.lastAnswerAt = now;
    } else {
      tally.failures.set(answer.why, (tally.failures.get(answer.why) ?? 0) + 1);
    }
    await sleep(pauseMs);
  }
  agent.destroy();
}

type Exchange = { ok: true; body: string } | { ok: false; why: string };

function exchange(
  agent: http.Agent,
  method: string,
  url: URL,
  { body, headers: more = {} }: { body?: object; headers?: Record<string, string> } = {},
): Promise<Exchange> {
  const text = body ? JSON.stringify(body) : '';
  const headers = body
    ? { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text), ...more }
    : more;
  const { request } = url.protocol === 'https:' ? https : http;
  return new Promise((resolve) => {
    const fail = (error: NodeJS.ErrnoException) => resolve({ ok: false, why: error.code ?? error.message });
    const sent = request(url, { agent, method, headers, timeout: requestDeadlineMs }, (response) => {
      const status = response.statusCode ?? 0;
      let received = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        received += chunk;
      });
      response.on('error', fail);
      response.on('end', () =>
        resolve(
          status >= 200 && status < 300 ? { ok: true, body: received } : { ok: false, why: String(status) },
        ),
      );
    });
    sent.on('timeout', () => sent.destroy(new Error('no answer in time')));
    sent.on('error', fail);
    sent.end(text);
  });
}

async function guestToken(url: string, name: string): Promise<string> {
  const agent = url.startsWith('https:') ? https.globalAgent : http.globalAgent;
  const answer = await exchange(agent, 'POST', new URL('/api/session', url), { body: { name } });
  if (!answer.ok) throw new Error(`${url} gave a guest no token: ${answer.why}`);
  return (JSON.parse(answer.body) as { token: string }).token;
}
