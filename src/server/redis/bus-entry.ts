/**
 * Entries of the bus and of the rooms' own streams, as Redis gives them back. PURE.
 * Entries are versioned, because an old and a new release read each other's: a form that this release does not know is
 * skipped, fields that it does not know are ignored.
 */

export interface BusEntry {
  room: string;
  offset: number;
  /** JSON of a RoomEvent. */
  body: string;
}

/** One entry of a stream: its id, then names and values in turn. */
export type StreamEntry = [id: string, fields: string[]];

/** null for an entry of another form. The first entries of this form named no epoch. */
export function entryOf(fields: readonly string[]): (BusEntry & { epoch: string | null }) | null {
  const { v, e, r, o, b } = recordOf(fields);
  if (v !== '1' || r === undefined || o === undefined || b === undefined) return null;
  return { room: r, offset: Number(o), body: b, epoch: e ?? null };
}

/** Of a room's own stream, whose ids are `<offset>-0`. */
export function entriesOf(room: string, entries: readonly StreamEntry[]): BusEntry[] {
  return entries.flatMap(([id, fields]) => {
    const { v, b } = recordOf(fields);
    return v === '1' && b !== undefined ? [{ room, offset: Number.parseInt(id, 10), body: b }] : [];
  });
}

function recordOf(fields: readonly string[]): Partial<Record<string, string>> {
  const record: Partial<Record<string, string>> = {};
  for (let at = 0; at + 1 < fields.length; at += 2) record[fields[at] ?? ''] = fields[at + 1] ?? '';
  return record;
}

export function idOf(entry: StreamEntry | undefined): string | null {
  return entry?.[0] ?? null;
}
