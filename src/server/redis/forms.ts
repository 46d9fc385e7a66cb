/**
 * What the CLI and other servers leave in Redis for this server to read. PURE. Another release may have written it, so
 * a form that this release does not know counts as nothing.
 */
import type { HandoverOrder, Vitals } from '../../contract.ts';

export function readOrder(text: string | null): HandoverOrder | null {
  const read = readJson<HandoverOrder>(text);
  const isKnown = read?.v === 1 && read.order === 'hand-over';
  return isKnown && Array.isArray(read.replicas) && typeof read.patienceMs === 'number'
    ? (read as HandoverOrder)
    : null;
}

export function readVitals(text: string | null): Vitals | null {
  const read = readJson<Vitals>(text);
  const isKnown = read?.v === 1 && typeof read.lagMs === 'number';
  return isKnown && (read.joinMs === null || typeof read.joinMs === 'number') ? (read as Vitals) : null;
}

function readJson<T>(text: string | null): Partial<T> | null {
  try {
    return JSON.parse(text ?? 'null') as Partial<T> | null;
  } catch {
    return null;
  }
}
