/**
 * The settings and the identity of this process: from the file that gameops puts into the container and from the process
 * environment, which wins. Promises that a value never reaches a message: a problem names the key and what is expected.
 */
import { readFileSync } from 'node:fs';
import { type ImageNeeds, statedNeeds } from '../boot-rule.ts';
import { identityEnv, path } from '../contract.ts';
import { type ServerSettings, serverSettings, settingKeys } from '../env/settings.ts';

type Values = Record<string, string | undefined>;

export interface Identity {
  project: string;
  release: number;
  replica: number;
  drainMs: number;
  /** Unix socket to listen on, beside the port. */
  unixSocket: string | null;
}

export type SettingsResult = { ok: true; settings: ServerSettings } | { ok: false; problems: string[] };

/** The environment wins over the file, so that one value can be changed for one run. */
export function readSettings(environment: Values): SettingsResult {
  const problems: string[] = [];
  const values = {
    ...fromFile(environment.GAMEOPS_SETTINGS_FILE ?? path.settingsFile, problems),
    ...withPointedFiles(environment, problems),
  };
  const check = serverSettings(values);
  if (!check.ok) problems.push(...check.problems.map(({ key, expected }) => `${key}: expected ${expected}`));
  return check.ok && problems.length === 0 ? { ok: true, settings: check.settings } : { ok: false, problems };
}

/** As the image states it; null for a server that runs without an image. */
export function readNeeds(file: URL): ImageNeeds | null {
  try {
    const { needs, knows } = JSON.parse(readFileSync(file, 'utf8'));
    return statedNeeds(needs, knows);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

export function readIdentity(environment: Values): Identity {
  return {
    project: environment[identityEnv.project] ?? 'local',
    release: wholeNumber(environment[identityEnv.release], 0),
    replica: wholeNumber(environment[identityEnv.replica], 1),
    drainMs: wholeNumber(environment[identityEnv.drainMs], 30_000),
    unixSocket: environment[identityEnv.unixSocket] ?? null,
  };
}

function fromFile(file: string, problems: string[]): Values {
  try {
    const parsed: unknown = JSON.parse(readFileSync(file, 'utf8'));
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)) {
      return Object.fromEntries(Object.entries(parsed).map(([key, value]) => [key, String(value)]));
    }
    problems.push(`${file}: expected a JSON object`);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : 'no JSON';
    // Without gameops an image has no such file: the environment then has to hold everything.
    if (code !== 'ENOENT') problems.push(`${file}: expected a JSON file that can be read (${String(code)})`);
  }
  return {};
}

/** KEY_FILE names a file that holds the value of KEY, the way container secrets are usually mounted. */
function withPointedFiles(environment: Values, problems: string[]): Values {
  const values: Values = Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== ''));
  // Only for settings that this server knows: others, such as SSL_CERT_FILE, belong to somebody else.
  for (const key of settingKeys) {
    const name = `${key}_FILE`;
    const target = environment[name];
    if (!target || values[key] !== undefined) continue;
    try {
      values[key] = readFileSync(target, 'utf8').replace(/\r?\n$/, '');
    } catch {
      problems.push(`${name}: expected the path of a file that can be read`);
    }
  }
  return values;
}

function wholeNumber(text: string | undefined, fallback: number): number {
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : fallback;
}
