/** gameops db lint: finds statements that would stall players, break the running release, or lose data. Reads only. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { lintFolder, ruleTexts, type Sizes, sizesOf } from '../../database/lint/lint.ts';
import { readLedger } from '../../database/migrate/ledger.ts';
import { isOpsError, OpsError } from '../../errors.ts';
import type { Context, Outcome } from '../../operations/context.ts';
import {
  look,
  migrationsFolder,
  openEndpoint,
  readFolder,
  shownPath,
} from '../../operations/database/database.ts';
import type { FindingsOptions } from '../../report/findings/model.ts';
import { countsOf, type Finding, failureText, type Report } from '../../report/findings/model.ts';
import { written } from '../../report/findings/written.ts';

/** @throws NO_MIGRATIONS; what is found comes as the outcome's refusal, MIGRATION_UNSAFE */
export async function run(context: Context, { format, strict }: FindingsOptions): Promise<Outcome> {
  const dir = migrationsFolder(context);
  readFolder(context);
  const live = await askDatabase(context);
  const shownDir = shownPath(context, dir);
  const findings = await lintFolder({
    dir,
    shownDir,
    applied: live?.applied ?? new Set(),
    sizes: live?.sizes ?? null,
  });
  const skipped = live?.applied.size ?? 0;
  const folder = shownDir === '' ? '.' : shownDir;
  const result = { folder, findings, ...countsOf(findings), skipped, sized: live !== null };
  const report: Report = {
    tool: 'gameops db lint',
    subject: folder,
    findings,
    ...countsOf(findings),
    ...(skipped > 0 && { remark: `${skipped} applied migrations were not checked` }),
  };
  const refusal = refusalOf(report, strict === true);
  return {
    ok: true,
    result,
    ...(await written(report, format, {
      result,
      rules: ruleTexts,
      excerpts: () => excerptsIn(context.cwd),
      summaryPath: context.environment.GITHUB_STEP_SUMMARY,
    })),
    ...(refusal && { refusal }),
  };
}

/** Without the database, whatever the reason, lint only knows less. */
async function askDatabase(context: Context): Promise<{ applied: Set<string>; sizes: Sizes } | null> {
  try {
    const endpoint = await openEndpoint(context);
    return await look(
      endpoint,
      async (client) => {
        const { applied } = await readLedger(client);
        return { applied: new Set(applied.map(({ name }) => name)), sizes: await sizesOf(client) };
      },
      { connectMs: 2_000 },
    );
  } catch (error) {
    if (!isOpsError(error)) throw error;
    const message = `the database was not asked (${error.code}), so every migration is checked and every table counts as large`;
    context.emit({ type: 'note', level: 'info', message });
    return null;
  }
}

/** Findings come file by file, so that one file at a time is enough. */
function excerptsIn(cwd: string): (finding: Finding) => string | null {
  let last: { file: string; lines: readonly string[] } = { file: '', lines: [] };
  return ({ file, line }) => {
    if (file !== last.file) last = { file, lines: readFileSync(resolve(cwd, file), 'utf8').split('\n') };
    return line === null ? null : (last.lines[line - 1] ?? null);
  };
}

function refusalOf(report: Report, isStrict: boolean): OpsError | undefined {
  const { findings, errors, warnings, subject } = report;
  const failure = failureText(report, isStrict);
  if (failure === null) return undefined;
  const grave = findings.filter(({ severity }) => severity === (errors > 0 ? 'error' : 'warning'));
  return new OpsError('MIGRATION_UNSAFE', {
    message: `${subject} has ${failure}. Nothing was run.`,
    next: ['rewrite them as shown', 'or allow it, at the top of the file: -- gameops: allow=<rule>'],
    facts: { errors, warnings, rules: [...new Set(grave.map(({ rule }) => rule))] },
  });
}
