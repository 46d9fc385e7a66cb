/**
 * How good the secrets are. These are estimates: a secret that passes may still be a bad one. Pure; no value reaches a
 * message.
 */

import { valuesIn } from '../file/tokens.ts';
import { shownKey } from './findings.ts';
import { type Found, found } from './found.ts';
import { isSecret, placeOf, type Subject, textOf } from './subject.ts';

const lengthMin = 16;
/** With fewer bits, an attacker who has a hash finds the secret by trying. */
const bitsMin = 48;
/** RFC 7518, 3.2: a key for HS256 is at least as long as the hash. */
const jwtBitsMin = 256;
/** A rotation is replacing this key already. It can't be improved any more, and a deploy must not wait until it is gone. */
const goingOut = 'JWT_SECRET_PREVIOUS';
const advice = 'make a new one: openssl rand -base64 32 | tr +/ -_ | tr -d =';

export function secretFindings(subject: Subject): Found[] {
  const secrets = secretsOf(subject);
  const judged = secrets.filter(({ key }) => key !== goingOut);
  return [...judged.flatMap((secret) => judge(subject, secret)), ...reused(subject, secrets)];
}

interface Secret {
  key: string;
  /** As messages call it: "JWT_SECRET", "the password in REDIS_URL" */
  name: string;
  /** Of a URL, only its password. */
  text: string;
}

function secretsOf(subject: Subject): Secret[] {
  return [...subject.values].flatMap(([key, { value }]) => {
    const text = passwordIn(value) ?? value;
    const isOne = isSecret(subject, key) || passwordIn(value);
    const name = passwordIn(value) === null ? shownKey(key) : `the password in ${shownKey(key)}`;
    return isOne && text !== '' && !isPublicUrl(value) ? [{ key, name, text }] : [];
  });
}

/** Null when it is not a URL, or a URL without a password. */
export function passwordIn(value: string): string | null {
  if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(value) || !URL.canParse(value)) return null;
  const { password } = new URL(value);
  if (password === '') return null;
  try {
    return decodeURIComponent(password);
  } catch {
    return password;
  }
}

function isPublicUrl(value: string): boolean {
  return /^[a-z][a-z0-9+.-]*:\/\//i.test(value) && passwordIn(value) === null;
}

function judge(subject: Subject, { key, name, text }: Secret): Found[] {
  const at = placeOf(subject, key);
  const inExample = subject.example === null ? undefined : valuesIn(subject.example).get(key)?.value;
  const jwt = /^JWT_SECRET(_NEXT)?$/.test(key) && text.length >= 32 && bitsAtMost(text) < jwtBitsMin;
  const strength = jwt ? [found('weak-jwt-secret', at, `${name} holds fewer than 256 bits; ${advice}`)] : [];
  if (inExample !== undefined && inExample !== '' && inExample === textOf(subject, key))
    return [
      found('example-secret', at, `${name} is the same as in the example, which others know; ${advice}`),
    ];
  if (isPlaceholder(text)) return [found('placeholder-secret', at, `${name} is a placeholder; ${advice}`)];
  if (text.length < lengthMin)
    return [
      found(
        'short-secret',
        at,
        `${name} has ${text.length} characters; use at least ${lengthMin}; ${advice}`,
      ),
    ];
  if (isMonotonous(text))
    return [found('weak-secret', at, `${name} is easy to guess; ${advice}`), ...strength];
  return strength;
}

const placeholders = new Set(
  `admin changeit default demo dummy example foobar guest hunter2 iloveyou jwtsecret letmein mypassword mysecret none null
  pass passw0rd passwd password placeholder postgres qwerty redis root sample secret supersecret test testing tobedone todo
  topsecret undefined user welcome`.split(/\s+/),
);

function isPlaceholder(text: string): boolean {
  const bare = text.toLowerCase().replace(/[^a-z0-9]/g, '');
  if (placeholders.has(bare.replace(/\d+$/, '')) || placeholders.has(bare)) return true;
  if (/^(change|replace|insert|enter|fill|put|set)[a-z]*(me|this|it|in|here|your)/.test(bare)) return true;
  if (/^<.*>$|^\[.*\]$|^\{\{.*\}\}$|^(x|\*|\.|0){3,}$/i.test(text)) return true;
  return /^your[a-z]*(secret|password|key|token|here)/.test(bare) || /^(0?123456789?0?|12345+)$/.test(bare);
}

/** The most bits that a text of this length and alphabet can hold. */
function bitsAtMost(text: string): number {
  const kinds: [RegExp, number][] = [
    [/^\d+$/, 10],
    [/^[\da-f]+$|^[\dA-F]+$/, 16],
    [/^[a-z]+$|^[A-Z]+$/, 26],
    [/^[\da-z]+$|^[\dA-Z]+$/, 36],
    [/^[a-zA-Z]+$/, 52],
    [/^[\w+/=-]+$/, 64],
  ];
  const alphabet = kinds.find(([kind]) => kind.test(text))?.[1] ?? 94;
  return text.length * Math.log2(alphabet);
}

/** Few different letters, letters in sequence, or one word repeated. */
function isMonotonous(text: string): boolean {
  const counts = new Map<string, number>();
  for (const letter of text) counts.set(letter, (counts.get(letter) ?? 0) + 1);
  const bitsEach = [...counts.values()].reduce((sum, count) => {
    const share = count / text.length;
    return sum - share * Math.log2(share);
  }, 0);
  if (bitsEach * Math.min(text.length, 1_000) < bitsMin) return true;
  let inRow = 0;
  for (let at = 1; at < text.length; at++)
    if (Math.abs(text.charCodeAt(at) - text.charCodeAt(at - 1)) <= 1) inRow++;
  return inRow > (text.length - 1) * 0.6 || /^(.{1,12})\1{2,}$/.test(text.slice(0, 1_000));
}

function reused(subject: Subject, secrets: readonly Secret[]): Found[] {
  const first = new Map<string, Secret>();
  return secrets.flatMap((secret) => {
    const { key, name, text } = secret;
    const other = first.get(text);
    if (other === undefined) first.set(text, secret);
    // DATABASE_URL repeats the password of DB_*: it is the same secret.
    const isCopy =
      other === undefined || [other.key, key].every((one) => /^(DATABASE_URL|DB_PASSWORD)$/.test(one));
    if (isCopy) return [];
    const message = `${name} is the same as ${other.name}: whoever learns one has both; ${advice}`;
    return [found('reused-secret', placeOf(subject, key), message)];
  });
}
