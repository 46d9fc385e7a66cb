/** Whether an accessory is run by gameops or by the operator: what .env points to, held against gameops.yaml. PURE. */
import { accessoryHost } from '../contract.ts';
import { OpsError } from '../errors.ts';
import { isLoopback, isSameHost } from '../hosts.ts';
import type { Accessory, AccessorySettings, Ownership } from './model.ts';

/** @throws DB_HOST_LOOPBACK, CONFIG_INVALID */
export function ownership(
  { name, pointer }: Pick<Accessory, 'name' | 'pointer'>,
  wish: Ownership | 'auto',
  settings: Partial<AccessorySettings>,
): Ownership {
  const { key } = pointer;
  const host = pointer.host(settings);
  const ours = accessoryHost[name];
  if (host !== null && isLoopback(host)) {
    throw new OpsError('DB_HOST_LOOPBACK', {
      message: `${key} names ${host}. Inside a container that is the container itself, so the game server would find nothing there.`,
      next: [
        `write ${ours} as the host in ${key} to use the one that gameops runs`,
        'or write a host that containers can reach',
      ],
      facts: { key, host },
    });
  }
  const implied: Ownership = host !== null && isSameHost(host, ours) ? 'managed' : 'external';
  if (wish === 'auto' || wish === implied) return implied;
  const message =
    wish === 'managed'
      ? `accessories.${name} is "managed", but ${key} names ${host ?? 'nothing'}, not ${ours}. Players' data would be stored elsewhere.`
      : `accessories.${name} is "external", but ${key} names ${ours}, the host name of the one that gameops runs.`;
  const next =
    wish === 'managed'
      ? `write ${ours} as the host in ${key}`
      : `write the host of your own server in ${key}`;
  throw new OpsError('CONFIG_INVALID', {
    message,
    next: [next, `or set accessories.${name}: auto in gameops.yaml`],
    facts: { key, host },
  });
}

export function mustUsePort(what: string, given: number, wanted: number): void {
  if (given === wanted) return;
  throw new OpsError('CONFIG_INVALID', {
    message: `${what} is ${given}, but the one that gameops runs listens on ${wanted}.`,
    next: [`set ${what} to ${wanted}`],
    facts: { given, wanted },
  });
}
