/**
 * Shows whether two values are the same without showing the value: a hash under a key that stays on this machine, so that
 * nobody who reads the hash in a log can try passwords against it.
 */
import { createHmac, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { makeFolder } from './write.ts';

/** The same for every call of this user on this machine; where no file can be kept, for this call alone. */
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
    // When two calls come first at once, one of them writes the key and both read it.
    writeFileSync(file, randomBytes(32), { mode: 0o600, flag: 'wx' });
  } catch {
    // The key is there already, or the folder can't be written.
  }
  try {
    const key = readFileSync(file);
    return key.length === 32 ? key : null;
  } catch {
    return null;
  }
}
