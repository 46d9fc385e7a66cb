/**
 * Tells whether two values are the same without telling the value: a hash under a key that stays on this machine, so that
 * who reads it in a log can't try passwords against it.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { makeFolder } from './write.ts';

/** Alike for every call on this machine by this user; where nothing can be kept, for this call alone. */
export function localFingerprint(
  environment: Readonly<Record<string, string | undefined>>,
): (value: string) => string {
  const key = keptKey(environment) ?? randomBytes(32);
  return (value) => createHmac('sha256', key).update(value).digest('hex').slice(0, 12);
}

function keptKey(environment: Readonly<Record<string, string | undefined>>): Buffer | null {
  const base = environment.XDG_STATE_HOME || join(environment.HOME || homedir(), '.local', 'state');
  const file = join(base, 'gameops', 'fingerprint-key');
  try {
    makeFolder(join(base, 'gameops'));
    // Of two who come first, one makes it and both read the same.
    writeFileSync(file, randomBytes(32), { mode: 0o600, flag: 'wx' });
  } catch {
    // It is there already, or can't be.
  }
  try {
    const key = readFileSync(file);
    return key.length === 32 ? key : null;
  } catch {
    return null;
  }
}
