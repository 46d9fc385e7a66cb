/**
 * A deploy refuses what `env check` calls an error: a password that some program reads only in part, a placeholder, a weak
 * key. Rollbacks and rotations are not refused, because they are the ways to replace such a value.
 */
import { dirname, relative } from 'node:path';
import { tokenKeyNames } from '../contract.ts';
import { factsOf } from '../env/file/facts.ts';
import { exampleOf } from '../env/read.ts';
import { checkEnv } from '../env/rules/check.ts';
import { type EnvFinding, shownKey } from '../env/rules/findings.ts';
import { winnersBeside } from '../env/sources.ts';
import { OpsError } from '../errors.ts';
import { fingerprintOfSetting } from '../record/fingerprints.ts';
import type { ProjectRecord } from '../record/record.ts';
import type { Release } from '../release/model.ts';
import { originOfImage } from '../release/origin.ts';
import type { Context, EnvFile } from './context.ts';

const shown = 5;

/** @param image the image that the settings are for @throws ENV_INVALID */
export function refuseEnvErrors(context: Context, env: EnvFile, image: string): void {
  const { config, envPath, cwd } = context;
  const file = relative(cwd, envPath) || envPath;
  const { findings, errors } = checkEnv({
    file,
    text: env.text,
    hasFile: env.exists,
    values: winnersBeside(env.gathered, config.server.env),
    problems: env.gathered.problems,
    isBundled: originOfImage(image) === 'bundled',
    userKeys: config.env.keys,
    example: exampleOf(cwd, undefined, dirname(envPath)),
    facts: env.exists ? factsOf(envPath) : null,
    levels: config.env.rules,
  });
  if (errors === 0) return;
  const grave = findings.filter(({ severity }) => severity === 'error');
  const more = errors > shown ? ` and ${errors - shown} more` : '';
  throw new OpsError('ENV_INVALID', {
    message: `${file} has ${errors} error${errors === 1 ? '' : 's'}: ${grave.slice(0, shown).map(inWords).join(', ')}${more}. Nothing was changed; players are where they were.`,
    next: ['gameops env check', ...waysOut(grave)],
    facts: { file, rules: [...new Set(grave.map(({ rule }) => rule))], keys: keysOf(grave) },
  });
}

/** Warns about a .env of somebody else, or an older one. It is deployed all the same: the key may be meant to change at once. */
export function warnOfLostKey(
  { config, emit }: Context,
  { values }: EnvFile,
  { fingerprintKey }: ProjectRecord,
  live: Release | undefined,
): void {
  const print = live?.fingerprints.JWT_SECRET;
  if (live === undefined || print === undefined) return;
  const today: Readonly<Record<string, string>> = { ...values, ...config.server.env };
  const isHeld = tokenKeyNames.some(
    (name) => fingerprintOfSetting(fingerprintKey, 'JWT_SECRET', today[name] ?? '') === print,
  );
  if (isHeld) return;
  const message = `players will have to log in again: .env does not hold the key that release ${live.id} signs tokens with. Is it an older .env? gameops env rotate jwt changes a key without a player noticing`;
  emit({ type: 'note', level: 'warning', message });
}

function inWords({ rule, key, line }: EnvFinding): string {
  const where = line === null ? '' : ` on line ${line}`;
  return `${rule}${where}${key === null ? '' : ` (${shownKey(key)})`}`;
}

function waysOut(grave: readonly EnvFinding[]): string[] {
  const is = (name: string) => grave.some(({ key }) => key === name);
  return [
    ...(is('JWT_SECRET') ? ['gameops env rotate jwt, if a release with players is live'] : []),
    ...(is('DB_PASSWORD') ? ['gameops env rotate db, if the database already has that password'] : []),
  ];
}

const keysOf = (grave: readonly EnvFinding[]): string[] => [
  ...new Set(grave.flatMap(({ key }) => (key === null ? [] : [shownKey(key)]))),
];
