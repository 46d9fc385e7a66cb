/** What lies on which tile. PURE: a tile has the same content, whichever server is asked. */
import { hashOf } from '../../protocol.ts';

const kinds = ['a warm spring', 'a sunken bell', 'a nest of drones', 'iron ore', 'an old road', 'glass sand'];
const marks = ['', ' under roots', ' in the fog', ' beside a cairn', ', still warm', ' nobody has named'];

export function contentOf(region: string, { x, y }: { x: number; y: number }): string {
  const hash = hashOf(`${region}:${x}:${y}`);
  const kind = kinds[hash % kinds.length] ?? '';
  return kind + (marks[Math.floor(hash / kinds.length) % marks.length] ?? '');
}
