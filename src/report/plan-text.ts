/**
 * A plan in words: what a person sees before and while it runs, and what tests of planners compare. Pure.
 */
import type { Plan, Route, Step } from '../release/model.ts';
import { formatMs } from '../units.ts';
import { columns } from './table.ts';

/** `start-fleet` of release 41 → { subject: "41 ×2", cause: "no fleet for 41" } */
export function describeStep(step: Step): { subject: string; cause: string } {
  return { subject: subjectOf(step), cause: step.cause };
}

/** Heading and one aligned line per step, without colours. */
export function planText(plan: Plan, heading?: string): string {
  return [...(heading === undefined ? [] : [heading]), ...planLines(plan)].join('\n');
}

export function planLines(
  plan: Plan,
  paint: (text: string, step: Step) => string = (text) => text,
): string[] {
  if (plan.steps.length === 0) return [' nothing to do'];
  const rows = plan.steps.map((step) => {
    const { subject, cause } = describeStep(step);
    return [paint(step.phase, step), step.kind, subject, cause];
  });
  return columns(rows, { indent: ' ' });
}

function subjectOf(step: Step): string {
  switch (step.kind) {
    case 'prepare-images':
      return step.images.map((image) => image.replace(/(@sha256:.{12}).*/, '$1')).join(', ');
    case 'build-image':
      return step.image;
    case 'make-network':
    case 'start-proxy':
      return '';
    case 'start-accessories':
      return step.accessories.join(', ');
    case 'migrate':
    case 'take-back':
      return step.migrations.length === 1
        ? (step.migrations[0] ?? '')
        : `${step.migrations.length} migrations`;
    case 'start-fleet':
    case 'await-ready':
    case 'drain':
    case 'retire':
      return fleetText(step.release, step.replicas);
    case 'switch-traffic':
      return switchText(step.from, step.routes);
    case 'restore':
      return step.backup;
    case 'watch':
      return `${step.release}, ${formatMs(step.forMs)}`;
    case 'quiesce':
      return formatMs(step.forMs);
    case 'open':
    case 'backup':
    case 'condemn':
    case 'commit':
    case 'forget':
    case 'close':
      return String(step.release);
    default:
      return step satisfies never;
  }
}

/** A whole fleet is counted ("41 ×2"), a part of one is named ("41 #3,4"). */
function fleetText(release: number, replicas: readonly number[]): string {
  const isFromFirst = replicas.every((n, at) => n === at + 1);
  if (replicas.length === 0) return String(release);
  return isFromFirst ? `${release} ×${replicas.length}` : `${release} #${replicas.join(',')}`;
}

/** Counts are shown only while two releases share the traffic: otherwise the release says it all. */
function switchText(from: readonly Route[], to: readonly Route[]): string {
  const isShared = from.length > 1 || to.length > 1;
  const side = (routes: readonly Route[]) =>
    routes
      .map((route) => (isShared ? `${route.release} ×${route.replicas.length}` : `${route.release}`))
      .join(' + ') || 'nothing';
  return `${side(from)} → ${side(to)}`;
}
