/**
 * Passwords, as scrypt hashes that carry their own parameters, so that the parameters can change without asking anybody
 * for a password. Hashed off the event loop and a few at a time: a hash takes 16 MB and a fifth of a second of a core,
 * and players must not feel that others log in.
 */
import { randomBytes, type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';
import pLimit from 'p-limit';

interface Parameters {
  N: number;
  r: number;
  p: number;
}

const present: Parameters = { N: 16_384, r: 8, p: 5 };
const saltBytes = 16;
const hashBytes = 32;
const inTurn = pLimit(2);
const waitingMax = 64;

const scryptOf = promisify<string, Buffer, number, ScryptOptions, Buffer>(scrypt);

/** Too many passwords wait to be hashed already. */
export class Busy extends Error {}

/** @throws Busy */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(saltBytes);
  const hash = await derive(password, salt, present);
  const { N, r, p } = present;
  return ['scrypt', `N=${N},r=${r},p=${p}`, salt.toString('base64url'), hash.toString('base64url')].join('$');
}

/** For a name that nobody has, `stored` is null. It takes as long, so that the time tells nothing. @throws Busy */
export async function isPassword(password: string, stored: string | null): Promise<boolean> {
  const read = stored === null ? null : parse(stored);
  const { salt, hash, parameters } = read ?? nobody;
  const derived = await derive(password, salt, parameters);
  return timingSafeEqual(derived, hash) && read !== null;
}

const nobody = { salt: Buffer.alloc(saltBytes), hash: Buffer.alloc(hashBytes), parameters: present };

function parse(stored: string): typeof nobody | null {
  const [, N, r, p, salt = '', hash = ''] =
    /^scrypt\$N=(\d+),r=(\d+),p=(\d+)\$([\w-]+)\$([\w-]+)$/.exec(stored) ?? [];
  const read = Buffer.from(hash, 'base64url');
  if (read.length !== hashBytes) return null;
  const parameters = { N: Number(N), r: Number(r), p: Number(p) };
  return { salt: Buffer.from(salt, 'base64url'), hash: read, parameters };
}

async function derive(password: string, salt: Buffer, { N, r, p }: Parameters): Promise<Buffer> {
  if (inTurn.pendingCount >= waitingMax) throw new Busy('too many passwords at once');
  const options: ScryptOptions = { N, r, p, maxmem: 256 * N * r };
  // Two ways to encode the same letters are the same password.
  return inTurn(() => scryptOf(password.normalize('NFKC'), salt, hashBytes, options));
}
