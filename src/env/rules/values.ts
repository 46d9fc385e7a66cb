/**
 * Rules over the values: settings that are missing, unknown, of the wrong kind, or that contradict another one. Pure.
 */
import { closest, distance } from 'fastest-levenshtein';
import { isLoopback } from '../../hosts.ts';
import { settingsIn } from '../file/tokens.ts';
import { knownSettings } from '../settings.ts';
import { userProblems } from '../user-keys.ts';
import { shownKey } from './findings.ts';
import { type Found, found } from './found.ts';
import { endPlace, keysWithMeaning, placeIn, placeOf, type Subject, textOf } from './subject.ts';

export function valueFindings(subject: Subject): Found[] {
  const wrong = wrongValues(subject);
  return [
    ...wrong,
    ...absentOfExample(subject, new Set(wrong.map(({ key }) => key))),
    ...unknownKeys(subject),
    ...badUrls(subject, new Set(wrong.map(({ key }) => key))),
    ...databaseUrl(subject),
    ...inProduction(subject),
    ...unreadable(subject),
  ];
}

function wrongValues(subject: Subject): Found[] {
  const values = new Map([...subject.values].map(([key, { value }]) => [key, value]));
  const check = knownSettings(Object.fromEntries(values), { isBundled: subject.isBundled });
  const broken = new Set(subject.problems.map(({ key }) => key?.replace(/_FILE$/, '')));
  const problems = [...(check.ok ? [] : check.problems), ...userProblems(subject.userKeys, values)];
  return problems.flatMap(({ key, expected }) => {
    if (values.has(key)) return [found('wrong-value', placeOf(subject, key), `${key}: expected ${expected}`)];
    // The source that fails has a finding of its own.
    if (broken.has(key)) return [];
    const place = placeOf(subject, key);
    const where = place.line === null ? endPlace(subject, key) : place;
    return [found('missing-key', where, `${key} is missing: expected ${expected}`)];
  });
}

function absentOfExample(subject: Subject, told: ReadonlySet<string | null>): Found[] {
  const { example, values } = subject;
  if (example === null) return [];
  const inFile = new Set(settingsIn(subject.text).map(({ key }) => key));
  const pointed = (key: string) => inFile.has(`${key}_FILE`) || values.has(key.replace(/_FILE$/, ''));
  const absent = new Set(settingsIn(example).map(({ key }) => key));
  return [...absent]
    .filter((key) => !values.has(key) && !inFile.has(key) && !told.has(key) && !pointed(key))
    .map((key) =>
      found(
        'missing-from-example',
        endPlace(subject, key),
        `${shownKey(key)} is in the example, and has no value here`,
      ),
    );
}

/** Other images may read any setting: there only what looks like a typo is reported, unless the keys are listed. */
function unknownKeys(subject: Subject): Found[] {
  const asked = keysWithMeaning(subject);
  const isListed = subject.isBundled || subject.example !== null || Object.keys(subject.userKeys).length > 0;
  const known = [...asked];
  return settingsIn(subject.text).flatMap((setting) => {
    const { key } = setting;
    const isPointer = key.endsWith('_FILE') && asked.has(key.slice(0, -'_FILE'.length));
    if (asked.has(key) || isPointer || key === 'DATABASE_URL') return [];
    const near = key.length > 64 ? null : nearest(key, known);
    // A key that is set already is not the one that was meant.
    const meant = near !== null && !subject.values.has(near) ? near : null;
    if (!isListed && meant === null) return [];
    const place = { ...placeIn(key, setting), column: setting.column };
    const hint = meant
      ? `did you mean ${meant}?`
      : 'If your server reads it, add it under env.keys of gameops.yaml; otherwise remove it';
    return [
      found(
        'unknown-key',
        place,
        `${shownKey(key)} is not a setting that gameops knows${meant ? ';' : '.'} ${hint}`,
      ),
    ];
  });
}

function nearest(key: string, known: readonly string[]): string | null {
  const near = closest(key.toUpperCase(), known);
  return distance(key.toUpperCase(), near) <= Math.max(2, Math.floor(key.length / 4)) ? near : null;
}

function badUrls(subject: Subject, told: ReadonlySet<string | null>): Found[] {
  return [...subject.values].flatMap(([key, { value }]) => {
    const isUrl = /^[a-z][a-z0-9+.-]*:\/\//i.test(value);
    if (!isUrl || told.has(key) || isWellEncoded(value)) return [];
    const message = `${shownKey(key)}: a special character in the user or password of this URL must be percent-encoded ("#" is %23, "/" is %2F, "@" is %40)`;
    return [found('bad-url', placeOf(subject, key), message)];
  });
}

function isWellEncoded(value: string): boolean {
  const rest = value.slice(value.indexOf('://') + 3);
  const authority = rest.split(/[/?#]/, 1)[0] ?? '';
  const at = authority.lastIndexOf('@');
  if (at >= 0) {
    const user = authority.slice(0, at);
    return URL.canParse(value) && !/[@[\]<>^|{}"\\`\s]|%(?![0-9a-f]{2})/i.test(user);
  }
  // A "port" that is not a number is the beginning of a password that holds "/", "?" or "#".
  const isCut = rest.includes('@') && /:[^\]]*$/.test(authority) && !/:\d+$/.test(authority);
  return !isCut && (URL.canParse(value) || value.startsWith('file:'));
}

function databaseUrl(subject: Subject): Found[] {
  const value = textOf(subject, 'DATABASE_URL');
  if (value === undefined || !URL.canParse(value)) return [];
  const url = new URL(value);
  const parts: Record<string, string> = {
    DB_HOST: url.hostname,
    DB_PORT: url.port || '5432',
    DB_NAME: decoded(url.pathname.slice(1)),
    DB_USER: decoded(url.username),
    DB_PASSWORD: decoded(url.password),
  };
  const differing = Object.entries(parts)
    .filter(([key, part]) => part !== '' && subject.values.has(key) && textOf(subject, key) !== part)
    .map(([key]) => key);
  if (differing.length === 0) return [];
  const message = `DATABASE_URL differs from ${differing.join(', ')}; keep one of the two, or make them agree`;
  return [found('database-url-differs', placeOf(subject, 'DATABASE_URL'), message)];
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function inProduction(subject: Subject): Found[] {
  const mode = textOf(subject, 'NODE_ENV') ?? (subject.isBundled ? 'production' : undefined);
  if (mode !== 'production') return [];
  const level = textOf(subject, 'LOG_LEVEL');
  const isLoud = level === 'debug' || level === 'trace';
  const loud = 'LOG_LEVEL: debug logs are slow and reveal too much in production; use info';
  return [
    ...(isLoud ? [found('debug-in-production', placeOf(subject, 'LOG_LEVEL'), loud)] : []),
    ...[...subject.values.keys()]
      .filter((key) => namesLoopback(key, textOf(subject, key) ?? ''))
      .map((key) =>
        found(
          'loopback-in-production',
          placeOf(subject, key),
          `${shownKey(key)} names loopback, which in a container is the container itself; name a host that containers can reach`,
        ),
      ),
  ];
}

function namesLoopback(key: string, value: string): boolean {
  if (/(^|_)HOST$/.test(key)) return isLoopback(value);
  return /(^|_)(URL|URI)$/.test(key) && URL.canParse(value) && isLoopback(new URL(value).hostname);
}

function unreadable(subject: Subject): Found[] {
  return subject.problems.map(({ key, expected, setting }) => {
    const place = setting && key ? placeIn(key, setting) : { key, line: null, column: null };
    return found(
      'unreadable-source',
      place,
      `${key === null ? '' : `${shownKey(key)}: `}expected ${expected}`,
    );
  });
}
