/**
 * What the verbs of .env are given: gameops.yaml where there is one, but no project, engine or state folder. So these verbs
 * start fast and work anywhere.
 */
import { lstatSync } from 'node:fs';
import { relative, resolve } from 'node:path';
import type { Config } from '../config.ts';
import { configPart } from '../env/config-part.ts';
import { configBytesMax, envBytesMax, readUpTo } from '../env/file/text.ts';
import { type ExtraSources, readText, unreadable } from '../env/read.ts';
import type { RuleLevel } from '../env/rules/rules.ts';
import { isRuleId, rulesPage } from '../env/rules/rules.ts';
import { OpsError } from '../errors.ts';
import { originOfImage } from '../release/origin.ts';
import type { Emit } from '../report/events.ts';
import type { Globals, Surroundings } from './context.ts';

export interface EnvContext {
  cwd: string;
  environment: Readonly<Record<string, string | undefined>>;
  /** Absolute; null for stdin. */
  envFilePath: string | null;
  /** The path from the current folder, as messages and annotations show it. */
  envName: string;
  /** Named by --env-file, so it has to exist. */
  isNamed: boolean;
  asked: EnvConfig;
  emit: Emit;
}

/** What gameops.yaml says about settings, or its defaults. */
export interface EnvConfig extends Required<Pick<ExtraSources, 'userKeys'>>, Pick<ExtraSources, 'provider'> {
  isBundled: boolean;
  levels: Readonly<Record<string, RuleLevel>>;
  /** Settings beside .env: no secrets, and every other source overrides them. */
  serverEnv: Readonly<Record<string, string>>;
}

/** @throws CONFIG_INVALID */
export async function openEnvContext(globals: Globals, around: Surroundings): Promise<EnvContext> {
  const isStdin = globals.envFile === '-';
  const path = resolve(around.cwd, globals.envFile ?? '.env');
  return {
    cwd: around.cwd,
    environment: around.env,
    envFilePath: isStdin ? null : path,
    envName: isStdin ? 'stdin' : relative(around.cwd, path) || path,
    isNamed: globals.envFile !== undefined,
    asked: await askConfig(globals, around.cwd),
    emit: around.emit,
  };
}

/** @returns null when there is no such file and none was named. @throws ENV_UNREADABLE */
export function textOfEnv({ envFilePath, isNamed }: EnvContext): string | null {
  if (envFilePath === null) return readStdin();
  const text = readText(envFilePath);
  if (text === null && isNamed) throw unreadable(envFilePath, 'ENOENT');
  return text;
}

/** @throws ENV_UNREADABLE */
function readStdin(): string {
  try {
    return readUpTo(0, envBytesMax);
  } catch (error) {
    throw unreadable('stdin', error instanceof Error && 'code' in error ? String(error.code) : 'unknown');
  }
}

async function askConfig(globals: Globals, cwd: string): Promise<EnvConfig> {
  const path = resolve(cwd, globals.config ?? 'gameops.yaml');
  const isAsked = globals.config !== undefined;
  if (!isAsked && lstatSync(path, { throwIfNoEntry: false }) === undefined)
    return { userKeys: {}, provider: undefined, levels: {}, isBundled: true, serverEnv: {} };
  const part = configPart(readConfig(path));
  const { env, server } = part ?? (await wholeConfig(path));
  for (const id of Object.keys(env.rules)) if (!isRuleId(id)) throw unknownRule(id, path);
  return {
    userKeys: env.keys,
    provider: env.provider,
    levels: env.rules,
    isBundled: originOfImage(server.image) === 'bundled',
    serverEnv: server.env,
  };
}

/** A file that can't be read is reported by the whole schema. */
function readConfig(path: string): string {
  try {
    return readUpTo(path, configBytesMax);
  } catch {
    return ': unreadable';
  }
}

/** Loaded only when something is wrong, because loading it takes longer than everything else here. */
async function wholeConfig(path: string): Promise<Config> {
  const { loadConfig } = await import('../config.ts');
  return loadConfig(path, { mustExist: true });
}

function unknownRule(id: string, path: string): OpsError {
  return new OpsError('CONFIG_INVALID', {
    message: `env.rules of gameops.yaml names "${id}", but there is no such rule. Nothing was changed.`,
    next: [`correct ${path}; ${rulesPage} lists the rules`],
    facts: { file: path, rule: id },
  });
}
