/**
 * What every verb is given: who asks, for which project, how to write output and when to stop. Opened once by the
 * program, which also closes it. Promises that neither the engine nor .env is touched before a verb asks for it.
 */
import { homedir, hostname, userInfo } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { type Config, defaultConfig, loadConfig, projectName } from '../config.ts';
import type { Engine } from '../engine/port.ts';
import { makeFolder } from '../env/file/write.ts';
import { type EnvFile, readEnvFile } from '../env/read.ts';
import { isSecretKey } from '../env/settings.ts';
import { isOpsError, OpsError } from '../errors.ts';
import { originOfImage } from '../release/origin.ts';
import type { Emit } from '../report/events.ts';
import type { Outcome } from '../report/outcome.ts';
import { keepSecretsOf, keepSetting } from '../report/redact.ts';
import type { Style } from '../report/style.ts';

export type { EnvFile, Outcome, Style };

export interface Globals {
  project?: string;
  config?: string;
  envFile?: string;
  json?: boolean;
  yes?: boolean;
  color?: boolean;
  verbose?: boolean;
  quiet?: boolean;
}

export type StopSignal = 'SIGINT' | 'SIGTERM';

export interface Context {
  /** "deploy", "images prepare" */
  verb: string;
  project: string;
  config: Config;
  /** Why gameops.yaml could not be used; `config` then holds the defaults. Null for every verb but doctor. */
  configProblem: OpsError | null;
  /** Absolute; the file need not exist. */
  configPath: string;
  /** Absolute; the file need not exist. */
  envPath: string;
  cwd: string;
  /** Of the process, as it was started. */
  environment: Surroundings['env'];
  json: boolean;
  yes: boolean;
  verbose: boolean;
  quiet: boolean;
  /** A person can be asked: stdin and stderr are terminals, and --json is not given. */
  isInteractive: boolean;
  emit: Emit;
  /** Aborts at the first SIGINT or SIGTERM: stop at the next safe boundary. */
  signal: AbortSignal;
  interruptedBy(): StopSignal | null;
  /** user@host */
  operator: string;
  host: string;
  /** This project's folder for journals, mode 0700. */
  stateDir: string;
  /**
   * @param image the image that the settings are for; default: that of gameops.yaml
   * @throws ENV_MISSING, ENV_INVALID, ENV_UNREADABLE, DB_HOST_LOOPBACK
   */
  readEnv(image?: string): EnvFile;
  /** Connected at the first call, closed when the verb is done. @throws ENGINE_UNREACHABLE */
  engine(): Promise<Engine>;
  close(): Promise<void>;
}

export interface Surroundings {
  verb: string;
  cwd: string;
  env: Readonly<Record<string, string | undefined>>;
  emit: Emit;
  signal: AbortSignal;
  interruptedBy(): StopSignal | null;
  isTerminal: boolean;
  /** doctor reports a broken gameops.yaml as a finding; every other verb refuses it. */
  toleratesConfig: boolean;
}

/** @throws CONFIG_INVALID */
export function openContext(globals: Globals, around: Surroundings): Context {
  const configPath = resolve(around.cwd, globals.config ?? 'gameops.yaml');
  const envPath = resolve(around.cwd, globals.envFile ?? '.env');
  const loaded = load(configPath, globals.config !== undefined, around.toleratesConfig);
  keepSecretsOf(loaded.config.server.env);
  const project = projectOf(globals.project ?? loaded.config.project, around.cwd);
  const host = hostname();
  const json = globals.json === true;
  let connected: Promise<Engine> | null = null;
  // doctor reports it as a finding.
  let hasWarned = around.verb === 'doctor';
  const warnOnce = (mode: string | null) => {
    if (mode === null || hasWarned) return;
    hasWarned = true;
    const message = `${envPath} has mode ${mode}: other users of this machine can read its secrets. Next: chmod 600 ${envPath}`;
    around.emit({ type: 'note', level: 'warning', message });
  };
  return {
    verb: around.verb,
    project,
    config: loaded.config,
    configProblem: loaded.problem,
    configPath,
    envPath,
    cwd: around.cwd,
    environment: around.env,
    json,
    yes: globals.yes === true,
    verbose: globals.verbose === true,
    quiet: globals.quiet === true,
    isInteractive: around.isTerminal && !json,
    emit: around.emit,
    signal: around.signal,
    interruptedBy: around.interruptedBy,
    operator: `${userName()}@${host}`,
    host,
    stateDir: stateDirOf(project, around.env),
    readEnv: (image = loaded.config.server.image) => {
      const env = readEnvFile({
        path: envPath,
        environment: around.env,
        isBundled: originOfImage(image) === 'bundled',
        userKeys: loaded.config.env.keys,
        provider: loaded.config.env.provider,
        keep: (key, value) => keepSetting(key, value, isSecretKey(key)),
      });
      warnOnce(env.looseMode);
      return env;
    },
    engine: () => {
      connected ??= connectEngine();
      return connected;
    },
    close: async () => {
      const engine = await connected?.catch(() => null);
      await engine?.close();
    },
  };
}

/**
 * Asks before data is destroyed, and only then. --yes answers; without a terminal the error names the flag.
 * @throws CONFIRMATION_NEEDED
 */
export async function confirmLoss(context: Context, what: string, flag: string): Promise<void> {
  if (context.yes || (await isNamed(context, what))) return;
  throw notConfirmed(context, `${what} Nothing was changed, because this was not confirmed.`, [
    `gameops ${context.verb} ${flag} --yes`,
  ]);
}

/**
 * Asks before reverting migrations destroys values. A --yes in a script was written without knowing of them: only a
 * person, or a flag of its own, which the caller has looked for already, accepts that.
 * @param next names that flag. @throws CONFIRMATION_NEEDED
 */
export async function confirmWayBack(
  context: Context,
  what: string,
  next: [string, ...string[]],
): Promise<void> {
  if (await isNamed(context, what)) return;
  const why = context.yes ? '--yes does not accept this loss' : 'the loss was not accepted';
  throw notConfirmed(context, `${what} Nothing was changed, because ${why}.`, next);
}

/** Whether somebody at the terminal typed the project's name. */
async function isNamed(context: Context, what: string): Promise<boolean> {
  if (!context.isInteractive) return false;
  const prompt = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const question = `${what} Type the name of the project (${context.project}) to continue: `;
    const answer = await prompt.question(question, { signal: context.signal });
    return answer.trim() === context.project;
  } finally {
    prompt.close();
  }
}

function notConfirmed({ project }: Context, message: string, next: [string, ...string[]]): OpsError {
  return new OpsError('CONFIRMATION_NEEDED', { message, next, facts: { project } });
}

async function connectEngine(): Promise<Engine> {
  const { dockerEngine } = await import('../engine/docker/engine.ts');
  return dockerEngine();
}

function load(
  path: string,
  isAsked: boolean,
  tolerates: boolean,
): { config: Config; problem: OpsError | null } {
  try {
    return { config: loadConfig(path, { mustExist: isAsked }), problem: null };
  } catch (error) {
    if (!tolerates || !isOpsError(error)) throw error;
    return { config: defaultConfig(), problem: error };
  }
}

function projectOf(asked: string | undefined, cwd: string): string {
  const name = asked ?? nameFromFolder(cwd);
  if (projectName.safeParse(name).success) return name;
  throw new OpsError('CONFIG_INVALID', {
    message: `"${name}" can't be the name of a project. A name has 2 to 32 lower-case letters, digits and dashes, and starts with a letter.`,
    next: ['gameops --project <name> …', 'write `project: <name>` into gameops.yaml'],
    facts: { project: name, source: asked === undefined ? 'name of the folder' : 'option or gameops.yaml' },
  });
}

/** "My Arena (copy)" → "my-arena-copy" */
function nameFromFolder(cwd: string): string {
  const words =
    basename(cwd)
      .toLowerCase()
      .match(/[a-z0-9]+/g) ?? [];
  return words.join('-').slice(0, 32).replace(/-+$/, '');
}

function stateDirOf(project: string, env: Surroundings['env']): string {
  const base = env.XDG_STATE_HOME || join(env.HOME || homedir(), '.local', 'state');
  const folder = join(base, 'gameops', project);
  try {
    makeFolder(folder);
  } catch {
    // Verbs that only read work without it; the journal warns when it can't write.
  }
  return folder;
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    // A uid without an entry in the user database, ordinary in containers.
    return process.env.USER ?? `uid-${process.getuid?.() ?? 'unknown'}`;
  }
}
