/**
 * Whether Redis still remembers what it told. PURE.
 * A Redis that was flushed, or that restarted with less than it had, gives out offsets that players have heard already.
 * They would take new messages for old ones, and a silent gap would follow. So the tail asks after every reconnect.
 */

export interface Seen {
  /** Newest entry of the bus that this server has read; null before the first. */
  read: string | null;
  /** That entry is still in the bus. */
  has: boolean;
  /** Oldest and newest entry now in the bus; null when it is empty. */
  oldest: string | null;
  newest: string | null;
}

/** `missed`: the bus was trimmed past the newest entry that was read. `lost`: Redis forgot that entry. */
export function judgeContinuity({ read, has, oldest, newest }: Seen): 'same' | 'missed' | 'lost' {
  if (read === null || has) return 'same';
  if (oldest === null || newest === null) return 'lost';
  return compareIds(oldest, read) > 0 && compareIds(newest, read) > 0 ? 'missed' : 'lost';
}

/** Stream ids are `<ms>-<n>`. */
export function compareIds(a: string, b: string): number {
  const [aMs = 0, aN = 0] = a.split('-').map(Number);
  const [bMs = 0, bN = 0] = b.split('-').map(Number);
  return aMs - bMs || aN - bN;
}
