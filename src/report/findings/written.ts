/** Findings in the requested format. A format is loaded only when it is requested. */
import type { Outcome } from '../outcome.ts';
import type { Finding, Format, Report, RuleText } from './model.ts';

/** What only some formats need. */
export interface Sources {
  /** For `--format json`: the result as the envelope would hold it. */
  result: object;
  rules(): readonly RuleText[];
  /** The line that a finding is about, as it may be shown, with its columns unchanged; null when there is none. */
  excerpts(): (finding: Finding) => string | null;
  /** Path in GITHUB_STEP_SUMMARY. */
  summaryPath: string | undefined;
}

export async function written(
  report: Report,
  format: Format | undefined,
  { result, rules, excerpts, summaryPath }: Sources,
): Promise<Pick<Outcome, 'text' | 'document'>> {
  switch (format) {
    case 'json':
      return { document: JSON.stringify(result, null, 2) };
    case 'sarif': {
      const { sarifDocument } = await import('./sarif.ts');
      return { document: sarifDocument(report, rules()) };
    }
    case 'github': {
      const { githubAnnotations, writeStepSummary } = await import('./github.ts');
      writeStepSummary(report, summaryPath);
      return { document: githubAnnotations(report) };
    }
    default: {
      const { prettyText } = await import('./pretty.ts');
      return { text: (style) => prettyText(report, excerpts(), style) };
    }
  }
}
