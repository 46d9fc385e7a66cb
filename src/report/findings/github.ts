/**
 * Findings as annotations of GitHub Actions: escaped, errors first. The service shows ten of a kind for each step; when
 * there are more, all of them go into the step's summary.
 * https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
 */
import { appendFileSync } from 'node:fs';
import { counted } from '../../units.ts';
import { type Finding, placeText, type Report, type Severity, wholeText } from './model.ts';

const annotationsMax = 10;
/** Of the service: 1 MB of summary for each step. */
const summaryLinesMax = 2_000;

const commands = { error: 'error', warning: 'warning', info: 'notice' } as const;
const severities = Object.keys(commands) as Severity[];

export function githubAnnotations({ findings, page }: Report): string {
  return gravestFirst(findings)
    .map((finding) => annotation(finding, page))
    .join('\n');
}

/** Those of a kind stay in their order. */
function gravestFirst(findings: readonly Finding[]): Finding[] {
  return severities.flatMap((severity) => findings.filter((one) => one.severity === severity));
}

function annotation(finding: Finding, page: string | undefined): string {
  const { severity, rule, file, line, column } = finding;
  const place = line === null ? [] : [`line=${line}`, `col=${column ?? 1}`];
  const properties = [
    ...(file === '' ? [] : [`file=${property(file)}`, ...place]),
    `title=${property(rule)}`,
  ];
  const link = page === undefined ? '' : ` (${page}#${rule})`;
  return `::${commands[severity]} ${properties.join(',')}::${data(wholeText(finding, link))}`;
}

function data(text: string): string {
  return text.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A');
}

function property(text: string): string {
  return data(text).replaceAll(':', '%3A').replaceAll(',', '%2C');
}

/** @param path of GITHUB_STEP_SUMMARY; without it, or where it can't be written, there is none */
export function writeStepSummary(report: Report, path: string | undefined): void {
  const isShownWhole = severities.every(
    (severity) => report.findings.filter((one) => one.severity === severity).length <= annotationsMax,
  );
  if (!path || isShownWhole) return;
  try {
    appendFileSync(path, stepSummary(report));
  } catch {
    // The annotations are there, and so is the exit code: a summary is a convenience.
  }
}

function stepSummary({ subject, findings, errors, warnings }: Report): string {
  const rows = gravestFirst(findings)
    .slice(0, summaryLinesMax)
    .map((finding) => {
      const { severity, rule, message, why = '' } = finding;
      return `| ${severity} | ${rule} | ${cell(placeText(finding))} | ${cell(`${message} ${why}`.trim())} |`;
    });
  const rest = findings.length - rows.length;
  return [
    `### ${cell(subject)}: ${counted(errors, 'error')}, ${counted(warnings, 'warning')}`,
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
