/**
 * Applies every rule to one .env, with the severities that gameops.yaml sets. Pure.
 */
import type { FileFacts } from '../file/facts.ts';
import { fileFindings } from '../file/facts.ts';
import type { EnvFinding, EnvReport } from './findings.ts';
import { reportOf } from './findings.ts';
import type { Found } from './found.ts';
import { levelOf, type RuleLevel } from './rules.ts';
import { secretFindings } from './secrets.ts';
import { structureFindings } from './structure.ts';
import type { Subject } from './subject.ts';
import { valueFindings } from './values.ts';

export interface CheckRequest extends Subject {
  /** As the report shows it. */
  file: string;
  facts: FileFacts | null;
  /** Rule → its level in gameops.yaml. */
  levels: Readonly<Record<string, RuleLevel>>;
}

export function checkEnv(request: CheckRequest): EnvReport {
  const { file } = request;
  const all: Found[] = [
    ...structureFindings(request.text),
    ...valueFindings(request),
    ...secretFindings(request),
    ...fileFindings(request.facts, file),
  ];
  const findings = all.flatMap(({ rule, key, line, column, message }): EnvFinding[] => {
    const level = levelOf(rule, request.levels);
    return level === 'off' ? [] : [{ rule, severity: level, file, key, line, column, message }];
  });
  return reportOf(file, findings);
}
