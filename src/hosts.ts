/**
 * What a host name says by itself. Node's own parts read it: the parser of URLs writes every short form of an address
 * out (127.1, 0x7f.0.0.1), and a block list knows which network it is in. Asks no resolver.
 */
import { BlockList, isIP } from 'node:net';

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');
// Nobody can be reached at these two addresses; systems connect to themselves instead.
loopback.addAddress('0.0.0.0', 'ipv4');
loopback.addAddress('::', 'ipv6');

/**
 * True for a host at which a machine or a container reaches itself: localhost, 127.0.0.0/8, ::1, and 0.0.0.0.
 * @param host as in DB_HOST, or as a URL has it, so that an IPv6 address may be in brackets
 */
export function isLoopback(host: string): boolean {
  const name = writtenOut(host);
  if (name === 'localhost' || name.endsWith('.localhost')) return true;
  const family = isIP(name);
  return family !== 0 && loopback.check(name, family === 6 ? 'ipv6' : 'ipv4');
}

/** Names of hosts have no case, and a dot at their end adds nothing. */
export const isSameHost = (host: string, other: string): boolean => writtenOut(host) === writtenOut(other);

/** Lower case, without brackets and a last dot, an IPv4 address with four numbers. */
function writtenOut(host: string): string {
  const bare = host.toLowerCase().replace(/^\[|\]$|\.$/g, '');
  const url = `http://${bare}`;
  return /^[\w.-]+$/.test(bare) && URL.canParse(url) ? new URL(url).hostname : bare;
}
