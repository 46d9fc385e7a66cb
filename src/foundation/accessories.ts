/**
 * The table of accessories: a new one is a row here, with a file of its own, and a name in `contract.ts`. PURE: no engine, no
 * clock.
 */
import type { Config } from '../config.ts';
import type { Accessory, AccessoryName, AccessorySettings, Ownership } from './model.ts';
import { postgres } from './postgres.ts';
import { redis } from './redis.ts';
import { ownership } from './which.ts';

export const accessories: readonly Accessory[] = [postgres, redis];

/** @throws DB_HOST_LOOPBACK, CONFIG_INVALID when gameops.yaml and .env contradict each other */
export function whichAccessories(
  config: Pick<Config, 'accessories'>,
  settings: Partial<AccessorySettings>,
): Record<AccessoryName, Ownership> {
  const owned = accessories.map(
    (one) => [one, ownership(one, config.accessories[one.name], settings)] as const,
  );
  for (const [one, whose] of owned) if (whose === 'managed') one.mustFit(settings);
  return Object.fromEntries(owned.map(([{ name }, whose]) => [name, whose])) as Record<
    AccessoryName,
    Ownership
  >;
}

/** Names of those that gameops runs. */
export function managedOf(owned: Record<AccessoryName, Ownership>): AccessoryName[] {
  return accessories.map(({ name }) => name).filter((name) => owned[name] === 'managed');
}
