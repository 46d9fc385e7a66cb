/**
 * Findings as annotations of GitHub Actions: escaped, errors first. The service shows ten errors and ten warnings of a
 * step; when there are more, all of them go into the step's summary.
 * https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
 */
import { appendFileSync } from 'node:fs';
import type { EnvReport, Finding } from './findings.ts';
import { rulesPage } from './rules.ts';

export const annotationsMax = 10;
/** Of the service: 1 MiB of summary for each step. */
const summaryLinesMax = 2_000;

export function githubAnnotations({ file, findings }: EnvReport): string {
  return findings.map((finding) => annotation(file, finding)).join('\n');
}

function annotation(file: string, { severity, rule, line, column, message }: Finding): string {
  const place = line === null ? [] : [`line=${line}`, `col=${column ?? 1}`];
  const properties = [`file=${property(file)}`, ...place, `title=${property(rule)}`];
  return `::${severity} ${properties.join(',')}::${data(`${message} (${rulesPage}#${rule})`)}`;
}

function data(text: string): string {
  return text.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A');
}

function property(text: string): string {
  return data(text).replaceAll(':', '%3A').replaceAll(',', '%2C');
}

/** @param path of GITHUB_STEP_SUMMARY; without it, or where it can't be written, there is none */
export function writeStepSummary(report: EnvReport, path: string | undefined): void {
  if (!path || (report.errors <= annotationsMax && report.warnings <= annotationsMax)) return;
  try {
    appendFileSync(path, stepSummary(report));
  } catch {
    // The annotations are there, and so is the exit code: a summary is a convenience.
  }
}

export function stepSummary({ file, findings, errors, warnings }: EnvReport): string {
  const rows = findings
    .slice(0, summaryLinesMax)
    .map(
      ({ severity, rule, line, column, message }) =>
        `| ${severity} | ${rule} | ${line === null ? '' : `${line}:${column ?? 1}`} | ${cell(message)} |`,
    );
  const rest = findings.length - rows.length;
  return [
    `### ${cell(file)}: ${errors} errors, ${warnings} warnings`,
    '',
    '| | rule | place | |',
    '|---|---|---|---|',
    ...rows,
    ...(rest > 0 ? [`| | | | and ${rest} more |`] : []),
    '',
  ].join('\n');
}

function cell(text: string): string {
  return text.replace(/[\r\n]+/g, ' ').replace(/[\\|<>`*_[\]]/g, '\\$&');
}
