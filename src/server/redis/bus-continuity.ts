/**
 * Whether Redis still remembers what it told. PURE.
 * A Redis that was flushed, or restarted with less than it had, gives out offsets that players have heard already:
 * they would take new messages for old ones, a silent gap. So the tail asks after every reconnect.
 */

export interface Memory {
  /** Newest entry of the bus that this server has read; null before the first. */
  read: string | null;
  /** That entry is still in the bus. */
  has: boolean;
  /** Oldest and newest entry now in the bus; null when it is empty. */
  oldest: string | null;
  newest: string | null;
}

/** `missed`: the bus was trimmed past what was read. `lost`: it forgot what was read. */
export function judgeMemory({ read, has, oldest, newest }: Memory): 'same' | 'missed' | 'lost' {
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
