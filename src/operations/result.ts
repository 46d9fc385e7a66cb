/** The text and the data that deploy, rollback, resume and abort show about their plan and their result. */
import { OpsError } from '../errors.ts';
import type { Plan, World } from '../release/model.ts';
import { liveRelease, runningReplicas } from '../release/position.ts';
import { planText } from '../report/plan-text.ts';
import type { RunningAct, StepReport } from '../runner/act.ts';
import { counted } from '../units.ts';
import type { Context, Outcome, Style } from './context.ts';
import { addressesOf } from './project.ts';

/** `result` of CLI.md for every verb that moves releases. */
export interface ActResult {
  url: string | null;
  release: number | null;
  previous: number | null;
  strategy: string;
  image: string | null;
  /** The image by digest; null for one that never was in a registry. */
  digestRef: string | null;
  steps: StepReport[];
  /** What was done to the schema, in the order of its fields. */
  schema: RunningAct['schema'];
  players: RunningAct['players'];
  probes: RunningAct['probes'];
  ms: number;
}

/** "deploy 41 · live 40 · 2 replicas · 214 players online", "back out of 41 · live 40 · 214 players online" */
export function headingOf(plan: Plan, world: World, replicas: number | null): string {
  const live = liveRelease(world);
  const running = world.fleets.filter((fleet) => runningReplicas(world, fleet.release).length > 0);
  const counts = running.map((fleet) => fleet.players);
  const online = counts.reduce<number | null>(
    (sum, one) => (sum === null || one === null ? null : sum + one),
    0,
  );
  const parts = [
    subjectOf(plan, world),
    live ? `live ${live.id}` : 'nothing live',
    ...(replicas === null ? [] : [counted(replicas, 'replica')]),
    ...(running.length === 0 ? [] : [online === null ? 'players unknown' : `${online} players online`]),
  ];
  return parts.join(' · ');
}

function subjectOf({ verb, release }: Plan, { intent }: World): string {
  if (verb === 'back out') return intent ? `back out of ${intent.release}` : verb;
  return release === null ? verb : `${verb} ${release}`;
}

export function resultOf(context: Context, act: RunningAct, plan: Plan, began: number): ActResult {
  const live = act.record.releases.find((release) => release.verdict === 'live');
  const acted = act.record.releases.find((release) => release.id === plan.release);
  return {
    url: addressesOf(context, act.record)?.url ?? null,
    release: live?.id ?? null,
    previous: plan.previous,
    strategy: strategyOf(plan, act),
    image: (acted ?? live)?.imageRef ?? null,
    digestRef: (acted ?? live)?.digestRef ?? null,
    steps: act.steps,
    schema: act.schema,
    players: act.players,
    probes: act.probes,
    ms: Date.now() - began,
  };
}

function strategyOf(plan: Plan, act: RunningAct): string {
  const opened = plan.steps.find((step) => step.kind === 'open');
  if (opened?.kind === 'open') return opened.intent.strategy;
  return act.record.intent?.strategy ?? act.record.history.at(-1)?.strategy ?? 'blue-green';
}

export function actText(style: Style, result: ActResult): string {
  const seconds = (result.ms / 1000).toFixed(1);
  const { http, ws } = result.probes;
  const lines = [
    result.steps.length === 0
      ? `${style.bold(`release ${result.release ?? '–'} is live`)}; nothing to do`
      : `${style.bold(`release ${result.release ?? '–'} is live`)} after ${seconds} s`,
    `  ${result.url ?? ''}`,
  ];
  lines.push(...schemaLines(result.schema));
  if (http.sent > 0)
    lines.push(`  probes: ${http.sent} HTTP, ${ws.sent} WebSocket, ${http.failed + ws.failed} failed`);
  if (result.players.online) {
    const { online, moved, closed, lost } = result.players;
    const handed = moved === null ? 'disconnected' : `${moved} handed over`;
    lines.push(
      `  players: ${online}, ${handed}; sockets closed: ${closed ?? 'unknown'}; not back yet: ${lost ?? 'unknown'}`,
    );
  }
  return lines.join('\n');
}

function schemaLines({ backup, applied, reverted, rescued, undo }: ActResult['schema']): string[] {
  return [
    ...(backup === null ? [] : [`  backup: ${backup}`]),
    ...(applied.length === 0 ? [] : [`  schema: applied ${applied.join(', ')}`]),
    ...(reverted.length === 0 ? [] : [`  schema: reverted ${reverted.join(', ')}`]),
    ...rescued.map(
      ({ table, columns, rows, savedAs }) =>
        `  saved ${rows} rows of ${table}${columns.length > 0 ? ` (${columns.join(', ')})` : ''} as ${savedAs}`,
    ),
    ...(undo === null ? [] : [`  database: restored; gameops db restore ${undo} goes back`]),
  ];
}

/** --plan: what would be done, as text and as data. */
export function planOutcome(plan: Plan, heading: string): Outcome {
  return {
    ok: true,
    result: { plan, release: plan.release, previous: plan.previous, changed: false },
    text: () => `${heading}\n${plan.steps.length === 0 ? 'nothing to do' : planText(plan)}`,
  };
}

/** A failed act still reports how far it got. */
export function attachResult(error: unknown, result: ActResult): unknown {
  return error instanceof OpsError ? Object.assign(error, { result }) : error;
}
