/**
 * Acknowledgements: "Redis has everything that you said up to here." What was accepted comes back from the bus within
 * moments, to its player too, so the acknowledgement waits that long and leaves in one write with what the room is told.
 */
import type { Player } from './player.ts';
import { tell } from './wire.ts';

const acknowledgedPerTick = 500;

export function acknowledge({ link, seq }: Player): void {
  tell(link, { t: 'ack', seq });
}

/**
 * Either of the two costs one write, and so do both together. A player whose room is told nothing by this read gets the
 * acknowledgement sooner than what they said.
 */
export function tellWithAcknowledgements(unacknowledged: Set<Player>, tellRooms: () => void): void {
  const corked: Player[] = [];
  for (const player of unacknowledged) {
    if (corked.length === acknowledgedPerTick) break;
    unacknowledged.delete(player);
    player.link.stream.cork();
    acknowledge(player);
    corked.push(player);
  }
  try {
    tellRooms();
  } finally {
    for (const { link } of corked) link.stream.uncork();
  }
  // After a pause of the bus it may be everybody.
  if (unacknowledged.size > 0) setImmediate(() => tellWithAcknowledgements(unacknowledged, () => undefined));
}
