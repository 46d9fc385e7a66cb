/**
 * The last defence: known secrets are blacked out of every error text on its way out. Nothing may rely on it; errors
 * are written without secrets in the first place.
 */

const known = new Set<string>();
const revealingName = /SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|PRIVATE|API_?KEY|REDIS_URL|DATABASE_URL/i;
const lengthMin = 8;

/** Remembers what must never be seen. Short values are left out: they would black out ordinary words. */
export function keepSecret(value: string): void {
  if (value.length < lengthMin) return;
  known.add(value);
  if (URL.canParse(value)) {
    const { password } = new URL(value);
    if (password.length >= lengthMin) known.add(password).add(decodeURIComponent(password));
  }
}

/** Values of variables whose names sound like secrets. */
export function keepSecretsOf(environment: Readonly<Record<string, string | undefined>>): void {
  for (const [key, value] of Object.entries(environment)) {
    if (value && revealingName.test(key) && !key.endsWith('_FILE')) keepSecret(value);
  }
}

export function redact(text: string): string {
  let clean = text;
  // Longest first, so that a secret inside another one does not leave the rest of it behind.
  for (const secret of [...known].sort((a, b) => b.length - a.length))
    clean = clean.replaceAll(secret, '[secret]');
  return clean;
}
