/**
 * Findings as SARIF 2.1.0, for code scanning. https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
 */
import { createHash } from 'node:crypto';
import { type Finding, type Report, type RuleText, wholeText } from './model.ts';

const levels = { error: 'error', warning: 'warning', info: 'note' } as const;

export function sarifDocument({ tool, findings }: Report, rules: readonly RuleText[]): string {
  const indexes = new Map(rules.map(({ id }, at) => [id, at]));
  return JSON.stringify(
    {
      $schema: 'https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json',
      version: '2.1.0',
      runs: [
        {
          tool: { driver: { name: tool, rules: rules.map(descriptorOf) } },
          columnKind: 'utf16CodeUnits',
          results: findings.map((finding) => resultOf(finding, indexes)),
        },
      ],
    },
    null,
    2,
  );
}

function descriptorOf({ id, title, help, severity, isOff }: RuleText): object {
  return {
    id,
    shortDescription: { text: title },
    help: { text: help },
    defaultConfiguration: { level: levels[severity], enabled: isOff !== true },
  };
}

function resultOf(finding: Finding, indexes: ReadonlyMap<string, number>): object {
  const { rule, severity, file, line, column } = finding;
  const region = line === null ? {} : { region: { startLine: line, startColumn: column ?? 1 } };
  const place = { physicalLocation: { artifactLocation: { uri: uriOf(file) }, ...region } };
  return {
    ruleId: rule,
    ruleIndex: indexes.get(rule) ?? -1,
    level: levels[severity],
    message: { text: wholeText(finding) },
    locations: file === '' ? [] : [place],
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
