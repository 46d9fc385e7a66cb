/**
 * The last defence: known secrets are blacked out of everything that leaves the process: results, errors, stacks,
 * events, the journal. Nothing may rely on it; messages are written without secrets in the first place.
 */

const known = new Set<string>();
const revealingName = /SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|PRIVATE|API_?KEY|REDIS_URL|DATABASE_URL/i;
/** Shorter values would black out ordinary words. Under a name that does not sound secret, only a long value counts. */
const lengthMin = { revealed: 6, unnamed: 16 };
/** Weak passwords that are also words in our messages: hiding them would hide the message, not the secret. */
const ordinary = new Set(['postgres', 'gameops', 'password', 'secret', 'production']);

/** Remembers a value that must never be shown, in every form in which it may appear. */
export function keepSecret(value: string): void {
  if (value.length < lengthMin.revealed || ordinary.has(value)) return;
  // An error quotes a key of several lines line by line; in JSON it appears with its escapes.
  for (const line of [value, ...value.split(/\r?\n/).map((part) => part.trim())]) {
    if (line.length < lengthMin.revealed) continue;
    known.add(line).add(encodeURIComponent(line)).add(JSON.stringify(line).slice(1, -1));
  }
  if (!URL.canParse(value)) return;
  const { password } = new URL(value);
  if (password !== '') keepSecret(decoded(password));
}

/** Values of variables whose names sound like secrets. */
export function keepSecretsOf(environment: Readonly<Record<string, string | undefined>>): void {
  for (const [key, value] of Object.entries(environment)) {
    if (value && revealingName.test(key) && !key.endsWith('_FILE')) keepSecret(value);
  }
}

/** A value of .env: a setting that is not known to be public counts as secret. */
export function keepSetting(key: string, value: string, isSecret: boolean): void {
  if (revealingName.test(key) ? !key.endsWith('_FILE') : isSecret && value.length >= lengthMin.unnamed)
    keepSecret(value);
}

export function redact(text: string): string {
  let clean = text;
  // Longest first, so that a secret inside another one does not leave the rest of it behind.
  for (const secret of [...known].sort((a, b) => b.length - a.length))
    clean = clean.replaceAll(secret, '[secret]');
  return clean;
}

/** JSON in which every text is redacted, at any depth. */
export function redactedJson(data: object): string {
  return JSON.stringify(data, (_key, value: unknown) => (typeof value === 'string' ? redact(value) : value));
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    // A stray percent sign: the password is the text as it is.
    return text;
  }
}
