/** What every peer tells its rooms: the fields that the bundled server tells, so that all carry the same. */
const offsets = new Map();

export function said(room, from, text) {
  const offset = (offsets.get(room) ?? 0) + 1;
  offsets.set(room, offset);
  return { room, offset, t: 'said', from, text, at: new Date().toISOString() };
}
