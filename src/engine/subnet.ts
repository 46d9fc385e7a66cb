/**
 * Subnets and addresses of a project's network. PURE: what is taken comes in, what to use goes out.
 * The lower three quarters of a subnet are leased by gameops, the upper quarter by the engine, so nothing the engine
 * starts can take the address of a replica that is only stopped.
 */
import { createHash } from 'node:crypto';

export interface Range {
  /** First address, as a number. */
  from: number;
  /** Last address, inclusive. */
  to: number;
}

const subnetBits = 22;
const subnetSize = 2 ** (32 - subnetBits);

/** Upper half of 10/8 first (clouds and offices begin at the bottom), then what Docker's own pools use least. */
const pools: readonly Range[] = [rangeOf('10.128.0.0/9'), rangeOf('172.24.0.0/13')];

export function toNumber(address: string): number {
  return address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
}

export function toAddress(value: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join('.');
}

export function rangeOf(cidr: string): Range {
  const [address = '0.0.0.0', bits = '32'] = cidr.split('/');
  const size = 2 ** (32 - Number(bits));
  const from = Math.floor(toNumber(address) / size) * size;
  return { from, to: from + size - 1 };
}

/**
 * Free subnets, in the order to try them. The walk starts at a place of the project's own: two projects at once begin
 * far apart, and two processes of one project begin at the same place, where the engine lets only one of them win.
 */
export function* freeSubnets(project: string, taken: readonly Range[]): Generator<string> {
  const seed = createHash('sha256').update(project).digest().readUInt32BE(0);
  for (const pool of pools) {
    const places = (pool.to - pool.from + 1) / subnetSize;
    for (let step = 0; step < places; step += 1) {
      const from = pool.from + ((seed + step) % places) * subnetSize;
      const to = from + subnetSize - 1;
      if (!taken.some((range) => range.from <= to && from <= range.to))
        yield `${toAddress(from)}/${subnetBits}`;
    }
  }
}

/** Gateway and the engine's own share of a subnet. */
export function divide(cidr: string): { gateway: string; dynamic: string } {
  const { from, to } = rangeOf(cidr);
  const quarter = (to - from + 1) / 4;
  const bits = Number(cidr.split('/')[1]) + 2;
  return { gateway: toAddress(from + 1), dynamic: `${toAddress(from + 3 * quarter)}/${bits}` };
}

/** Where no replica ever is: what a body tells in `NetworkInfo.notReplicas`. */
export function notReplicas({ gateway, dynamic }: { gateway: string; dynamic: string }): string[] {
  return [`${gateway}/32`, dynamic];
}

/**
 * The next free address of the leased share. Goes on after the highest one in use before it starts again from below,
 * so that an address rests before another replica answers on it.
 */
export function leaseAddress(cidr: string, taken: ReadonlySet<string>): string | null {
  const { from, to } = rangeOf(cidr);
  const first = from + 2;
  const last = from + Math.floor(((to - from + 1) * 3) / 4) - 1;
  const used = [...taken].map(toNumber).filter((value) => value >= first && value <= last);
  const count = last - first + 1;
  const start = used.length === 0 ? 0 : Math.max(...used) + 1 - first;
  for (let step = 0; step < count; step += 1) {
    const value = first + ((start + step) % count);
    const lastByte = value % 256;
    const address = toAddress(value);
    if (lastByte !== 0 && lastByte !== 255 && !taken.has(address)) return address;
  }
  return null;
}

/** Routes of /proc/net/route (little-endian hex); the default route says nothing about what is taken. */
export function routesOf(procNetRoute: string): Range[] {
  const bytes = (hex: string) => Buffer.from(hex, 'hex').reverse().readUInt32BE(0);
  return procNetRoute
    .split('\n')
    .slice(1)
    .map((line) => line.split(/\s+/))
    .filter((cells) => cells.length > 7 && cells[7] !== '00000000')
    .map((cells) => {
      const from = bytes(cells[1] ?? '00000000');
      return { from, to: from + (2 ** 32 - 1 - bytes(cells[7] ?? 'FFFFFFFF')) };
    });
}
