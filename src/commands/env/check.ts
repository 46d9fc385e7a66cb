/**
 * `env check`: every rule over .env. Reads, and changes nothing but the step summary that GitHub asks for. No value
 * leaves, in no format and on no failure.
 */
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { checkEnv } from '../../env/check.ts';
import { factsOf } from '../../env/file-facts.ts';
import type { EnvReport } from '../../env/findings.ts';
import { gatherFor, readText, unreadable } from '../../env/read.ts';
import { winnersBeside } from '../../env/sources.ts';
import { type EnvText, readTokens } from '../../env/tokens.ts';
import { OpsError } from '../../errors.ts';
import type { Outcome } from '../../report/outcome.ts';
import { type EnvContext, textOfEnv } from './context.ts';

export interface CheckOptions {
  format?: 'pretty' | 'json' | 'github' | 'sarif';
  strict?: boolean;
  example?: string;
}

/** @throws ENV_UNREADABLE, ENV_MISSING; what is found comes as the outcome's refusal, ENV_INVALID */
export async function run(context: EnvContext, options: CheckOptions): Promise<Outcome> {
  const text = textOfEnv(context);
  const tokens = readTokens(text ?? '');
  const report = look(context, options, text, tokens);
  const refusal = refusalOf(report, context, options.strict === true);
  return {
    ok: true,
    result: report,
    ...(await written(report, tokens, context, options.format)),
    ...(refusal && { refusal }),
  };
}

function look(context: EnvContext, options: CheckOptions, text: string | null, tokens: EnvText): EnvReport {
  const { asked, envFilePath, environment, cwd } = context;
  const folder = envFilePath === null ? cwd : dirname(envFilePath);
  const gathered = gatherFor(tokens, { ...asked, folder, environment });
  const values = winnersBeside(gathered, asked.serverEnv);
  const isNothingThere = text === null && values.size === 0 && gathered.problems.length === 0;
  if (isNothingThere && asked.isBundled) throw missing(context);
  return checkEnv({
    file: context.envName,
    text: tokens,
    hasFile: text !== null,
    values,
    problems: gathered.problems,
    isBundled: asked.isBundled,
    userKeys: asked.userKeys,
    example: exampleOf(cwd, options.example, folder),
    facts: envFilePath === null || text === null ? null : factsOf(envFilePath),
    levels: asked.levels,
  });
}

/** Of the file's folder, unless another one was named. @throws ENV_UNREADABLE */
export function exampleOf(cwd: string, named: string | undefined, folder: string): EnvText | null {
  const path = named === undefined ? join(folder, '.env.example') : resolve(cwd, named);
  if (named === undefined && !existsSync(path)) return null;
  const text = readText(path);
  if (text === null) throw unreadable(path, 'ENOENT');
  return readTokens(text);
}

type Written = Pick<Outcome, 'text' | 'document'>;

async function written(
  report: EnvReport,
  tokens: EnvText,
  { environment }: EnvContext,
  format: CheckOptions['format'],
): Promise<Written> {
  switch (format) {
    case 'json':
      return { document: JSON.stringify(report, null, 2) };
    case 'sarif': {
      const { sarifDocument } = await import('../../env/format-sarif.ts');
      return { document: sarifDocument(report) };
    }
    case 'github': {
      const { githubAnnotations, writeStepSummary } = await import('../../env/format-github.ts');
      writeStepSummary(report, environment.GITHUB_STEP_SUMMARY);
      return { document: githubAnnotations(report) };
    }
    default: {
      const { prettyText } = await import('../../env/format-pretty.ts');
      const text: NonNullable<Outcome['text']> = (style) => prettyText(report, tokens, style);
      return { text };
    }
  }
}

function refusalOf(report: EnvReport, { envName }: EnvContext, isStrict: boolean): OpsError | undefined {
  const { errors, warnings } = report;
  if (errors === 0 && !(isStrict && warnings > 0)) return undefined;
  const strictly = errors === 0 ? ', and --strict takes no warnings' : '';
  return new OpsError('ENV_INVALID', {
    message: `${envName} has ${counted(errors, 'error')} and ${counted(warnings, 'warning')}${strictly}. Nothing was changed.`,
    next: ['correct the places named', 'gameops env check'],
    facts: { file: envName, errors, warnings },
  });
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}

function missing({ envName }: EnvContext): OpsError {
  return new OpsError('ENV_MISSING', {
    message: `There is no ${envName}, and the environment holds none of the settings either. Nothing was changed.`,
    next: ['gameops init', 'gameops env check --env-file <path>'],
    facts: { file: envName },
  });
}
