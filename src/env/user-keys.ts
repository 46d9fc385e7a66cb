/**
 * Settings of an image that is not the bundled server, as gameops.yaml describes them under env.keys. A problem names the
 * key and what was expected, never the value.
 */
import type { SettingProblem } from './settings.ts';

export interface UserKey {
  type: 'string' | 'integer' | 'number' | 'boolean' | 'url' | 'email' | 'host' | 'port';
  required: boolean;
  /** Whether the rules for secrets apply; when absent, its name decides. */
  secret?: boolean | undefined;
  /** For `env explain`. */
  purpose?: string | undefined;
  /** The only allowed values. */
  values?: readonly string[] | undefined;
  min?: number | undefined;
  max?: number | undefined;
  /** Prints the value: `op read …`, `vault kv get -field=… …`. */
  command?: string | undefined;
}

export type UserKeys = Readonly<Record<string, UserKey>>;

const host = /^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/;

/** In words: "a whole number, 1 to 50". */
export function acceptsOf({ type, values, min, max }: UserKey): string {
  if (values !== undefined) return `one of ${values.join(', ')}`;
  const what = {
    string: 'text',
    integer: 'a whole number',
    number: 'a number',
    boolean: 'true or false',
    url: 'a URL (percent-encode special characters in its password)',
    email: 'an e-mail address',
    host: 'a host name or address',
    port: 'a port number, 1 to 65535',
  }[type];
  const of = type === 'string' ? ' characters' : '';
  if (min !== undefined && max !== undefined) return `${what}, ${min} to ${max}${of}`;
  if (min !== undefined) return `${what}, at least ${min}${of}`;
  return max === undefined ? what : `${what}, at most ${max}${of}`;
}

export function userProblems(keys: UserKeys, values: ReadonlyMap<string, string>): SettingProblem[] {
  return Object.entries(keys).flatMap(([key, about]) => {
    const value = values.get(key);
    if (value === undefined) return about.required ? [{ key, expected: acceptsOf(about) }] : [];
    return isTaken(about, value) ? [] : [{ key, expected: acceptsOf(about) }];
  });
}

function isTaken({ type, values, min, max }: UserKey, value: string): boolean {
  if (values !== undefined && !values.includes(value)) return false;
  const isBetween = (amount: number) => amount >= (min ?? -Infinity) && amount <= (max ?? Infinity);
  switch (type) {
    case 'string':
      return isBetween(value.length);
    case 'integer':
      return /^-?\d{1,15}$/.test(value) && isBetween(Number(value));
    case 'number':
      return /^-?\d{1,15}(\.\d{1,15})?$/.test(value) && isBetween(Number(value));
    case 'boolean':
      return value === 'true' || value === 'false';
    case 'url':
      return URL.canParse(value) && /^[a-z][a-z0-9+.-]*:\/\//i.test(value);
    case 'email':
      return /^[^\s@]{1,64}@[^\s@]{1,189}$/.test(value);
    case 'host':
      return host.test(value) || /^\[?[0-9a-fA-F:]{2,39}\]?$/.test(value);
    case 'port':
      return /^\d{1,5}$/.test(value) && Number(value) >= 1 && Number(value) <= 65_535;
  }
}
