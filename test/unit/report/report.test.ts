/** What people read: plans, progress, failures. Compared as literal text, because every word counts. */
import { PassThrough } from 'node:stream';
import { describe, expect, it, vi } from 'vitest';
import { type Status, statusText } from '../../../src/commands/status.ts';
import type { Plan, Step } from '../../../src/release/model.ts';
import { errorText } from '../../../src/report/error-text.ts';
import type { Event } from '../../../src/report/events.ts';
import { findingLines } from '../../../src/report/findings/pretty.ts';
import { jsonSink } from '../../../src/report/json.ts';
import { fitting } from '../../../src/report/live-line.ts';
import { planText } from '../../../src/report/plan-text.ts';
import { styleFor, wantsColour } from '../../../src/report/style.ts';
import { columns } from '../../../src/report/table.ts';
import { terminalSink } from '../../../src/report/terminal.ts';

const plain = styleFor({ isTty: false, refused: true, env: {} });

const migrate = {
  kind: 'migrate',
  phase: 'prepare',
  cause: 'pending; additive',
  deadlineMs: 1,
  migrations: ['0003_seasons'],
};
const start = {
  kind: 'start-fleet',
  phase: 'prepare',
  cause: 'no fleet for 41',
  deadlineMs: 1,
  release: 41,
  replicas: [1, 2],
};
const ready = { ...start, kind: 'await-ready', cause: 'HTTP ready, a player can join' };
const change = {
  kind: 'switch-traffic',
  phase: 'switch',
  cause: '41 is ready',
  deadlineMs: 1,
  from: [{ release: 40, replicas: [1, 2] }],
  routes: [{ release: 41, replicas: [1, 2] }],
};
const watch = {
  kind: 'watch',
  phase: 'switch',
  cause: 'probes',
  deadlineMs: 1,
  release: 41,
  replicas: [1, 2],
  forMs: 30_000,
};
const steps = [migrate, start, ready, change, watch] as unknown as Step[];
const plan = { verb: 'deploy', release: 41, previous: 40, steps } as unknown as Plan;

describe('a plan', () => {
  it('has one aligned line for each step: phase, kind, subject and cause', () => {
    expect(planText(plan, 'deploy 41 · live 40')).toBe(
      `deploy 41 · live 40
 prepare  migrate         0003_seasons  pending; additive
 prepare  start-fleet     41 ×2         no fleet for 41
 prepare  await-ready     41 ×2         HTTP ready, a player can join
 switch   switch-traffic  40 → 41       41 is ready
 switch   watch           41, 30.0 s    probes`,
    );
  });

  it('says that there is nothing to do when it has no steps', () => {
    expect(planText({ ...plan, steps: [] })).toBe(' nothing to do');
  });

  it('names the replicas of a part of a fleet, and counts replicas while two releases serve', () => {
    const part = { ...start, replicas: [3, 4] };
    const shared = {
      ...change,
      routes: [
        { release: 40, replicas: [2] },
        { release: 41, replicas: [1] },
      ],
    };
    expect(planText({ ...plan, steps: [part, shared] as unknown as Step[] })).toBe(
      ` prepare  start-fleet     41 #3,4                no fleet for 41
 switch   switch-traffic  40 ×2 → 40 ×1 + 41 ×1  41 is ready`,
    );
  });
});

describe('the text of status', () => {
  const fleet = { image: 'a:1', wanted: 2, players: 0, verdict: 'live', phase: 'serving' } as const;
  const seen = (ready: number, act: Partial<Status> & Pick<Status, 'lockedBy'>): string => {
    const places = { project: 'arena', url: 'http://a/', wsUrl: 'ws://a/ws', proxyAnswers: true };
    const rest = { unfinished: null, schema: null, certificates: [], accessories: [] };
    const traffic = [{ release: 4, replicas: [1, 2] }];
    return statusText(plain, {
      ...places,
      ...rest,
      ...act,
      traffic,
      fleets: [{ ...fleet, release: 4, ready }],
    });
  };
  const deploying = { holder: 'me', host: 'here', verb: 'deploy', since: 'now' };

  it('says which release has the traffic, and how many of its replicas', () => {
    expect(seen(2, { lockedBy: null })).toContain('\ntraffic  release 4 (2 replicas)\n');
  });

  it('says when replicas that get players do not run, and what starts them again', () => {
    expect(seen(2, { lockedBy: null })).not.toContain('next:');
    expect(seen(1, { lockedBy: null })).toContain('release 4 has 1 of 2 replicas running');
    expect(seen(0, { lockedBy: null })).toMatch(
      /0 of 2 replicas running, so nobody can play\n {2}next: gameops deploy/,
    );
    expect(seen(1, { lockedBy: deploying })).not.toContain('next:');
  });

  it('says when Nginx does not answer, and what starts it again', () => {
    const away = { lockedBy: null, proxyAnswers: false };
    expect(seen(2, away)).toMatch(/Nginx does not answer, so nobody can play\n {2}next: gameops resume/);
    expect(seen(0, away)).toContain('next: gameops deploy');
    expect(seen(2, { ...away, lockedBy: deploying })).not.toContain('next:');
  });
});

/** What the sink writes to a stream that is not a terminal. */
function told(
  events: readonly (Event | number)[],
  flags: { isQuiet?: boolean; isVerbose?: boolean } = {},
): string[] {
  const stream = new PassThrough({ encoding: 'utf8' });
  vi.useFakeTimers();
  const sink = terminalSink(stream as unknown as NodeJS.WriteStream, {
    style: plain,
    isQuiet: flags.isQuiet ?? false,
    isVerbose: flags.isVerbose ?? false,
  });
  for (const event of events) typeof event === 'number' ? vi.advanceTimersByTime(event) : sink(event);
  sink.end();
  vi.useRealTimers();
  return String(stream.read() ?? '')
    .split('\n')
    .slice(0, -1);
}

const begun = (step: unknown): Event => ({ type: 'step-started', index: 2, of: 5, step: step as Step });
const done = (step: unknown, ms: number): Event => ({
  type: 'step-done',
  index: 2,
  of: 5,
  step: step as Step,
  ms,
});
const progress = (label: string, at: number, total: number | null, unit: string): Event => ({
  type: 'progress',
  label,
  done: at,
  total,
  unit,
});

describe('progress off a terminal', () => {
  it('shows a quick step in one line, with its time and unit', () => {
    expect(told([begun(start), 400, done(start, 1_234)])).toEqual(['✓ start-fleet 41 ×2 (1.2 s)']);
  });

  it('says after three seconds that a slow step is still running, and why the step is there', () => {
    expect(told([begun(start), 3_100, done(start, 3_100)])).toEqual([
      '… [2/5] start-fleet 41 ×2: no fleet for 41',
      '✓ start-fleet 41 ×2 (3.1 s)',
    ]);
  });

  it('counts replicas without drawing a bar', () => {
    const lines = told([
      begun(ready),
      1_500,
      progress('ready', 0, 2, 'replicas'),
      1_000,
      progress('ready', 1, 2, 'replicas'),
      200,
      progress('ready', 2, 2, 'replicas'),
      done(ready, 2_700),
    ]);
    expect(lines).toEqual(['  ready 1 of 2 replicas', '✓ await-ready 41 ×2 (2.7 s)']);
  });

  it('shows one line for each quarter of the watch, in seconds', () => {
    const ticks = Array.from({ length: 60 }, (_, at) => [
      500,
      progress('watched', (at + 1) * 500, 30_000, 'ms'),
    ]);
    const lines = told([begun(watch), ...ticks.flat(), done(watch, 30_000)]);
    expect(lines.filter((line) => line.includes('watched'))).toEqual([
      '  watched 8 s of 30 s',
      '  watched 15 s of 30 s',
      '  watched 23 s of 30 s',
    ]);
    expect(lines.filter((line) => line.startsWith('…'))).toHaveLength(1);
  });

  it('counts how many players moved, were closed and are still there', () => {
    const parts = { moved: 30, closed: 1, left: 29 };
    const handed: Event = {
      type: 'progress',
      label: 'handed over',
      done: 31,
      total: 60,
      unit: 'players',
      parts,
    };
    const lines = told([begun(ready), 1_500, { ...handed, done: 0 }, 1_500, handed]);
    expect(lines.at(-1)).toBe('  handed over 31 of 60 players (moved 30, closed 1, left 29)');
  });

  it('shows the end of a transfer that belongs to no step', () => {
    const parts = [0, 10, 20, 30, 40].flatMap((done) => [
      2_000,
      progress('pulling nginx', done * 1024 ** 2, 40 * 1024 ** 2, 'bytes'),
    ]);
    expect(told(parts).at(-1)).toBe('  pulling nginx 40 MB of 40 MB');
    expect(told(parts).length).toBeLessThanOrEqual(4);
  });

  it('shows only warnings and failures with --quiet, and details too with --verbose', () => {
    const events: Event[] = [
      { type: 'plan', plan, heading: 'deploy 41' },
      { type: 'note', level: 'detail', message: 'a detail' },
      { type: 'note', level: 'info', message: 'an information' },
      { type: 'note', level: 'warning', message: 'a warning' },
      {
        ...(done(start, 5) as object),
        type: 'step-failed',
        code: 'REPLICA_EXITED',
        message: 'exit 1',
      } as Event,
    ];
    expect(told(events, { isQuiet: true })).toEqual(['! a warning', '✗ start-fleet 41 ×2: REPLICA_EXITED']);
    expect(told(events)).not.toContain('  a detail');
    expect(told(events, { isVerbose: true })).toContain('  a detail');
  });

  it('writes one JSON event in each line, with its time', () => {
    const lines: string[] = [];
    jsonSink((line) => lines.push(line))(done(start, 5));
    expect(lines).toHaveLength(1);
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ type: 'step-done', ms: 5, step: { release: 41 } });
    expect(Date.parse(JSON.parse(lines[0] ?? '').at)).not.toBeNaN();
  });
});

describe('a failure', () => {
  it('shows its code, what happened, the facts, and what to do next', () => {
    const error = {
      code: 'REPLICA_EXITED',
      message: 'Replica 1 of release 41 ended with exit 1. Players are on release 40, as before.',
      next: ['docker logs arena-game-41-1', 'gameops deploy'],
      facts: { container: 'arena-game-41-1', log: ['first', 'second'], exitCode: 1, health: null },
    };
    expect(errorText(error, plain, '')).toBe(
      `✗ REPLICA_EXITED: Replica 1 of release 41 ended with exit 1. Players are on release 40, as before.
  container: arena-game-41-1
  log: first
    second
  exitCode: 1
  health: none
Next:
  docker logs arena-game-41-1
  gameops deploy
`,
    );
  });
});

describe('columns and colours', () => {
  it('aligns columns as if the colours were not there', () => {
    const coloured = styleFor({ isTty: true, refused: false, env: {} });
    const [first, second] = columns([
      [coloured.red('a'), 'x'],
      ['bbb', 'y'],
    ]);
    expect(first).toBe(`${coloured.red('a')}    x`);
    expect(second).toBe('bbb  y');
  });

  it('aligns columns by what a terminal shows: a wide character takes two columns, an accent none', () => {
    const rows = ['日本', 'cafe\u0301', '👩‍👩‍👧', 'bbbb'].map((name) => [name, 'x']);
    expect(columns(rows)).toEqual(['日本  x', 'cafe\u0301  x', '👩‍👩‍👧    x', 'bbbb  x']);
  });

  it('cuts a live line that would wrap, also when its characters are wide', () => {
    expect(fitting('pulling nginx', 14)).toBe('pulling nginx');
    expect(fitting('pulling nginx', 13)).toBe('pulling ngi…');
    expect(fitting('日本語日本語', 9)).toBe('日本語…');
  });

  it('puts the caret under the column of a finding, also after wide characters', () => {
    const finding = { severity: 'error', rule: 'a-rule', file: '.env', line: 3, column: 5, message: 'odd' };
    const lines = findingLines(finding as never, 'A=日本"', plain);
    expect(lines.slice(1, 3)).toEqual(['  3 | A=日本"', '    |       ^']);
  });

  it.each([
    ['a terminal', { isTty: true, refused: false, env: {} }, true],
    ['a pipe', { isTty: false, refused: false, env: {} }, false],
    ['a dumb terminal', { isTty: true, refused: false, env: { TERM: 'dumb' } }, false],
    ['NO_COLOR', { isTty: true, refused: false, env: { NO_COLOR: '1' } }, false],
    ['an empty NO_COLOR', { isTty: true, refused: false, env: { NO_COLOR: '' } }, true],
    ['--no-color against FORCE_COLOR', { isTty: true, refused: true, env: { FORCE_COLOR: '1' } }, false],
    ['FORCE_COLOR in a pipe', { isTty: false, refused: false, env: { FORCE_COLOR: '1' } }, true],
  ])('decides about colour for %s', (_, request, wanted) => {
    expect(wantsColour(request)).toBe(wanted);
  });
});
