/**
 * `env check`: applies every rule to .env. Changes nothing but the step summary that GitHub asks for. Promises never to show
 * a value, in no format and after no failure.
 */
import { dirname } from 'node:path';
import { factsOf } from '../../env/file/facts.ts';
import { type EnvText, readTokens } from '../../env/file/tokens.ts';
import { exampleOf, gatherFor } from '../../env/read.ts';
import { checkEnv } from '../../env/rules/check.ts';
import { excerptsOf } from '../../env/rules/excerpts.ts';
import type { EnvReport } from '../../env/rules/findings.ts';
import { rulesPage, ruleTexts } from '../../env/rules/rules.ts';
import { winnersBeside } from '../../env/sources.ts';
import { OpsError } from '../../errors.ts';
import { type EnvContext, textOfEnv } from '../../operations/env-context.ts';
import { type FindingsOptions, failureText } from '../../report/findings/model.ts';
import { written } from '../../report/findings/written.ts';
import type { Outcome } from '../../report/outcome.ts';

export interface CheckOptions extends FindingsOptions {
  example?: string;
}

/** @throws ENV_UNREADABLE, ENV_MISSING; what is found comes as the outcome's refusal, ENV_INVALID */
export async function run(context: EnvContext, options: CheckOptions): Promise<Outcome> {
  const text = textOfEnv(context);
  const tokens = readTokens(text ?? '');
  const report = look(context, options, text, tokens);
  const refusal = refusalOf(report, context, options.strict === true);
  const subject = text === null ? `the environment (there is no ${report.file})` : report.file;
  const told = { ...report, tool: 'gameops env check', subject, page: rulesPage };
  return {
    ok: true,
    result: report,
    ...(await written(told, options.format, {
      result: report,
      rules: ruleTexts,
      excerpts: () => excerptsOf(tokens),
      summaryPath: context.environment.GITHUB_STEP_SUMMARY,
    })),
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

function refusalOf(report: EnvReport, { envName }: EnvContext, isStrict: boolean): OpsError | undefined {
  const { errors, warnings } = report;
  const failure = failureText(report, isStrict);
  if (failure === null) return undefined;
  return new OpsError('ENV_INVALID', {
    message: `${envName} has ${failure}. Nothing was changed.`,
    next: ['correct the lines that are named', commandFor(envName)],
    facts: { file: envName, errors, warnings },
  });
}

/** The check of the same file again. */
function commandFor(envName: string): string {
  if (envName === '.env') return 'gameops env check';
  return `gameops env check --env-file ${envName === 'stdin' ? '-' : envName}`;
}

function missing({ envName }: EnvContext): OpsError {
  return new OpsError('ENV_MISSING', {
    message: `There is no ${envName}, and the environment has none of the settings either. Nothing was changed.`,
    next: ['gameops init', 'gameops env check --env-file <path>'],
    facts: { file: envName },
  });
}
