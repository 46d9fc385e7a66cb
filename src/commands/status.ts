/** gameops status: where traffic goes, what runs, how many players are online, what is unfinished. Reads only. */
import { accessoryHost, namesOf } from '../contract.ts';
import type { ObservedContainer } from '../engine/port.ts';
import type { Context, Outcome, Style } from '../operations/context.ts';
import { type Addresses, readProject } from '../operations/project.ts';
import type { ProjectRecord } from '../record/record.ts';
import type { Fleet, Intent, Release } from '../release/model.ts';
import { servedReplicas } from '../release/position.ts';
import { columns } from '../report/table.ts';
import type { Observed } from '../runner/observe.ts';
import { counted } from '../units.ts';
import { type SchemaStatus, schemaStatus, schemaText } from './schema-status.ts';

interface FleetStatus {
  release: number;
  image: string;
  wanted: number;
  /** Running replicas; the gate proved them before they got traffic. */
  ready: number;
  /** starting: gets traffic once it is ready · leaving: runs without traffic */
  phase: 'serving' | 'starting' | 'leaving' | 'stopped';
  players: number | null;
  verdict: Release['verdict'] | 'unknown';
}

export interface Status {
  project: string;
  url: string | null;
  wsUrl: string | null;
  traffic: { release: number; replicas: number[] }[];
  /** False: Nginx does not answer, and `traffic` is what its configuration says. */
  proxyAnswers: boolean;
  fleets: FleetStatus[];
  unfinished: Pick<Intent, 'verb' | 'release' | 'previous' | 'stage' | 'startedAt' | 'by'> | null;
  lockedBy: { holder: string; host: string; verb: string; since: string } | null;
  /** null: there is no database. */
  schema: SchemaStatus | null;
  certificates: never[];
  accessories: { name: string; state: string; health: string }[];
}

export async function run(context: Context): Promise<Outcome> {
  const { engine, record, observed, addresses } = await readProject(context);
  const [lockedBy, schema] = await Promise.all([
    engine.lockHolder(context.project),
    schemaStatus(context, engine, record),
  ]);
  const status = { ...statusOf(context.project, record, observed, addresses, lockedBy), schema };
  return { ok: true, result: status, text: (style) => statusText(style, status) };
}

function statusOf(
  project: string,
  record: ProjectRecord | null,
  observed: Observed | null,
  addresses: Addresses | null,
  lockedBy: Status['lockedBy'],
): Omit<Status, 'schema'> {
  const intent = record?.intent ?? null;
  return {
    project,
    url: addresses?.url ?? null,
    wsUrl: addresses?.wsUrl ?? null,
    traffic: observed?.world.traffic.routes ?? [],
    proxyAnswers: observed?.traffic.answering ?? false,
    fleets: (observed?.world.fleets ?? []).map((fleet) => fleetStatus(fleet, observed as Observed, intent)),
    unfinished: intent && {
      verb: intent.verb,
      release: intent.release,
      previous: intent.previous,
      stage: intent.stage,
      startedAt: intent.startedAt,
      by: intent.by,
    },
    lockedBy,
    certificates: [],
    accessories: accessoriesOf(project, observed?.containers ?? []),
  };
}

function fleetStatus(fleet: Fleet, { world }: Observed, intent: Intent | null): FleetStatus {
  const release = world.releases.find((one) => one.id === fleet.release);
  const ready = fleet.replicas.filter((replica) => replica.running).length;
  const isServing = servedReplicas(world, fleet.release).length > 0;
  const isArriving = intent?.release === fleet.release && intent.stage === 'open';
  const phase = ready === 0 ? 'stopped' : isServing ? 'serving' : isArriving ? 'starting' : 'leaving';
  return {
    release: fleet.release,
    image: release?.imageRef ?? 'unknown',
    wanted: release?.replicas ?? fleet.replicas.length,
    ready,
    phase,
    players: ready === 0 ? 0 : fleet.players,
    verdict: release?.verdict ?? 'unknown',
  };
}

function accessoriesOf(project: string, containers: readonly ObservedContainer[]): Status['accessories'] {
  const names = namesOf(project);
  return (Object.keys(accessoryHost) as (keyof typeof accessoryHost)[]).flatMap((name) => {
    const container = containers.find((one) => one.name === names[name]);
    return container ? [{ name, state: container.state, health: container.health }] : [];
  });
}

export function statusText(style: Style, status: Status): string {
  if (status.url === null && status.fleets.length === 0) {
    return `${status.project}: nothing has been deployed yet\n  next: gameops deploy`;
  }
  const lines = [`${style.bold(status.project)}  ${status.url ?? 'no address yet'}`];
  const routes = status.traffic
    .map(({ release, replicas }) => `release ${release} (${counted(replicas.length, 'replica')})`)
    .join(' + ');
  lines.push(
    status.proxyAnswers
      ? `traffic  ${routes || style.yellow('no release; Nginx gives the maintenance answer')}`
      : `traffic  ${style.red('Nginx does not answer')}${routes ? `; it would serve ${routes}` : ''}`,
  );
  if (status.schema) lines.push(schemaText(style, status.schema));
  const rows = [...status.fleets]
    .sort((a, b) => b.release - a.release)
    .map((fleet) => [
      String(fleet.release),
      paintPhase(style, fleet.phase),
      `${fleet.ready}/${fleet.wanted}`,
      fleet.players === null ? 'players unknown' : `${fleet.players} players`,
      fleet.verdict,
      fleet.image,
    ]);
  lines.push('', ...columns(rows, { indent: '  ' }));
  if (status.accessories.length > 0) {
    lines.push(
      '',
      ...columns(
        status.accessories.map((one) => [one.name, one.state, one.health]),
        { indent: '  ' },
      ),
    );
  }
  lines.push(...shortageLines(style, status));
  if (status.lockedBy) {
    const { holder, verb, since } = status.lockedBy;
    lines.push('', style.yellow(`locked by ${holder} for ${verb} since ${since}`));
  }
  if (status.unfinished && !status.lockedBy) {
    const { verb, release, stage, by } = status.unfinished;
    lines.push(
      '',
      style.yellow(`unfinished: ${verb} ${release} (${stage}) by ${by}`),
      '  next: gameops resume, or gameops abort',
    );
  }
  return lines.join('\n');
}

/** What serves worse than it should. While an act is at work, or unfinished, that act starts and stops what it needs. */
function shortageLines(
  style: Style,
  { traffic, fleets, proxyAnswers, lockedBy, unfinished }: Status,
): string[] {
  if (lockedBy || unfinished) return [];
  const short = traffic.flatMap(({ release, replicas }) => {
    const ready = fleets.find((fleet) => fleet.release === release)?.ready ?? 0;
    if (ready >= replicas.length) return [];
    const effect = ready === 0 ? ', so nobody can play' : '';
    return [
      '',
      style.red(`release ${release} has ${ready} of ${replicas.length} replicas running${effect}`),
      '  next: gameops deploy starts them again',
    ];
  });
  if (short.length > 0 || proxyAnswers || traffic.length === 0) return short;
  return [
    '',
    style.red('Nginx does not answer, so nobody can play'),
    '  next: gameops resume starts it again',
  ];
}

function paintPhase(style: Style, phase: FleetStatus['phase']): string {
  if (phase === 'serving') return style.green(phase);
  return phase === 'stopped' ? style.dim(phase) : style.yellow(phase);
}
