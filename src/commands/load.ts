/**
 * gameops load: load players join, play and count. Promises that they go to this project, or to the address that was given,
 * and nowhere else. Their tokens are made here, because a login for each would measure the hashing of passwords.
 */
import { readFileSync } from 'node:fs';
import { OpsError } from '../errors.ts';
import { type LoadReport, runLoad } from '../load/load.ts';
import type { Context, Outcome, Style } from '../operations/context.ts';
import { addressesOf } from '../operations/project.ts';
import { readRecord } from '../record/record.ts';
import { columns } from '../report/table.ts';
import { formatMs } from '../units.ts';

export interface LoadOptions {
  players: number;
  forMs?: number;
  url?: string;
  rate?: number;
  threads?: number;
}

const defaultMs = 30_000;
/** Joining takes time, too. */
const tokenBeyondMs = 600_000;
/** Open files of this process beside the players' sockets. */
const filesBeside = 200;

export async function run(context: Context, options: LoadOptions): Promise<Outcome> {
  const { players, rate = 1, forMs = defaultMs, threads } = options;
  refuseTooFewFiles(players);
  const secret = context.readEnv().settings.jwtSecret ?? refuseWithoutSecret(context);
  const url = options.url ?? (await ownAddress(context));
  context.emit({ type: 'note', level: 'info', message: `${players} players for ${formatMs(forMs)}: ${url}` });
  const report = await runLoad({
    url,
    players,
    rate,
    forMs,
    threads,
    signal: context.signal,
    tokens: { secret, lifeMs: forMs + tokenBeyondMs },
    onProgress: (what, done) =>
      context.emit(
        what === 'joined'
          ? { type: 'progress', label: 'in the game', done, total: players, unit: 'players' }
          : { type: 'progress', label: 'playing', done: done * 1_000, total: forMs, unit: 'ms' },
      ),
  });
  const result = { url, rate, ...report };
  if (context.signal.aborted) throw stopped(context, result);
  if (report.failed === players) throw nobodyCameIn(url, result);
  return { ok: true, result, text: (style) => reportText(style, report) };
}

async function ownAddress(context: Context): Promise<string> {
  const engine = await context.engine();
  const record = await readRecord(engine, context.project);
  const wsUrl = record ? addressesOf(context, record)?.wsUrl : undefined;
  if (wsUrl) return wsUrl;
  throw new OpsError('USAGE', {
    message: `${context.project} has no address yet, because nothing has been deployed. No load player was started.`,
    next: ['gameops deploy', 'gameops load --players <n> --url <ws-url>'],
    facts: { project: context.project },
  });
}

/** Each player is a socket, and for a moment in a handover two. */
function refuseTooFewFiles(players: number): void {
  const limit = openFilesMax();
  if (limit === null || limit >= players + filesBeside) return;
  throw new OpsError('USAGE', {
    message: `${players} players need as many open files, but this process may have only ${limit}. No load player was started.`,
    next: [
      `ulimit -n ${players + filesBeside}`,
      `gameops load --players ${Math.max(1, limit - filesBeside)}`,
    ],
    facts: { players, limit },
  });
}

/** Node itself raises the soft limit to the hard one. null: unknown. */
function openFilesMax(): number | null {
  try {
    const [, limit] = /^Max open files\s+\d+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
    return limit === undefined ? null : Number(limit);
  } catch {
    return null;
  }
}

function refuseWithoutSecret({ envPath }: Context): never {
  throw new OpsError('ENV_INVALID', {
    message: `${envPath} has no JWT_SECRET to sign the players' tokens with. No load player was started.`,
    next: ['write the JWT_SECRET of the server into .env'],
    facts: { key: 'JWT_SECRET' },
  });
}

function stopped(context: Context, result: LoadReport): OpsError {
  const by = context.interruptedBy();
  return new OpsError(by === 'SIGTERM' ? 'TERMINATED' : 'INTERRUPTED', {
    message: `load was stopped by ${by ?? 'a signal'}. Its load players have left; nothing else was changed.`,
    next: ['gameops status'],
    facts: { signal: by },
    result,
  });
}

function nobodyCameIn(url: string, result: LoadReport): OpsError {
  const { lastCode, players } = result;
  const why = lastCode === null ? 'no answer' : `last close code ${lastCode}`;
  return new OpsError('GAME_UNREACHABLE', {
    message: `None of ${players} load players could join at ${url} (${why}). Nothing was changed.`,
    next: ['gameops status', 'gameops doctor'],
    facts: { url, lastCode },
    result,
  });
}

function reportText(style: Style, report: LoadReport): string {
  const { gapMs, rttMs, deliveryMs, generatorLagMs } = report;
  const good = (count: number) => (count === 0 ? style.green('0') : style.red(String(count)));
  const number = (count: number) => count.toLocaleString('en');
  const served = Object.entries(report.servedBy).map(([name, count]) => `${name}: ${number(count)}`);
  const rows = [
    [
      'players',
      number(report.players),
      `in ${report.rooms} rooms; all had joined after ${formatMs(report.joinMs)}`,
    ],
    ['failed', good(report.failed), served.length > 0 ? `served by ${served.join(', ')}` : ''],
    ['sent', number(report.sent), `in ${formatMs(report.ms)}; ${report.unacknowledged} not acknowledged`],
    ['received', number(report.received), ''],
    ['lost', good(report.lost), 'by offsets and by the counts of every sender'],
    ['duplicated', good(report.duplicated), ''],
    [
      'gone',
      good(report.falseOffline),
      'times a player was told that another player had left, although they had not',
    ],
    [
      'moved',
      number(report.moved),
      `moved to another server without a gap; reconnected: ${number(report.resumed)}`,
    ],
    ['gap', `${gapMs.max} ms`, `the longest; p50 ${gapMs.p50}, p99 ${gapMs.p99}`],
    ['round trip', `${rttMs.p50} ms`, `p50; p95 ${rttMs.p95}, p99 ${rttMs.p99}, max ${rttMs.max}`],
    ['delivery', `${deliveryMs.p50} ms`, `p50; p99 ${deliveryMs.p99}, max ${deliveryMs.max}`],
    [
      'own delay',
      `${generatorLagMs.p99} ms`,
      `p99 of the event loop of gameops load, max ${generatorLagMs.max}`,
    ],
  ];
  return columns(rows).join('\n');
}
