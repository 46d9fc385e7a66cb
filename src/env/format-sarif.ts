/**
 * Findings as SARIF 2.1.0, for code scanning. https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
 */
import { createHash } from 'node:crypto';
import type { EnvReport, Finding } from './findings.ts';
import { type Rule, type RuleId, rules, rulesPage } from './rules.ts';

export function sarifDocument(report: EnvReport): string {
  const ids = Object.keys(rules) as RuleId[];
  return JSON.stringify(
    {
      $schema: 'https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json',
      version: '2.1.0',
      runs: [
        {
          tool: { driver: { name: 'gameops env check', rules: ids.map(ruleOf) } },
          columnKind: 'utf16CodeUnits',
          results: report.findings.map((finding) => resultOf(finding, report.file, ids)),
        },
      ],
    },
    null,
    2,
  );
}

function ruleOf(id: RuleId): object {
  const rule: Rule = rules[id];
  return {
    id,
    shortDescription: { text: rule.title },
    help: { text: `See ${rulesPage}#${id}` },
    defaultConfiguration: { level: rule.severity, enabled: rule.isOff !== true },
  };
}

function resultOf(finding: Finding, file: string, ids: readonly RuleId[]): object {
  const { rule, severity, line, column, message } = finding;
  const region = line === null ? {} : { region: { startLine: line, startColumn: column ?? 1 } };
  return {
    ruleId: rule,
    ruleIndex: ids.indexOf(rule as RuleId),
    level: severity,
    message: { text: message },
    locations: [{ physicalLocation: { artifactLocation: { uri: uriOf(file) }, ...region } }],
    // A finding stays the same one when lines move.
    partialFingerprints: { 'ruleAndKey/v1': fingerprint(finding) },
  };
}

/** Of names alone. */
function fingerprint({ rule, key, message }: Finding): string {
  return createHash('sha256')
    .update(`${rule}\n${key ?? message}`)
    .digest('hex')
    .slice(0, 32);
}

function uriOf(file: string): string {
  return file.split(/[\\/]/).map(encodeURIComponent).join('/');
}
