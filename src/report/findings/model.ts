/**
 * What a check has found: one model for every check and every format. Nothing of it holds the value of a setting, so it
 * may go into public logs.
 */

import { counted } from '../../units.ts';

export type Format = 'pretty' | 'json' | 'github' | 'sarif';

export type Severity = 'error' | 'warning' | 'info';

export interface Finding {
  /** "set-not-null" */
  rule: string;
  severity: Severity;
  /** As shown; '' when the finding is about no file. */
  file: string;
  /** The setting, table or other object that the finding is about. */
  key?: string | null;
  /** From 1; null when the finding is about no line. */
  line: number | null;
  /** From 1, in characters of JavaScript. */
  column: number | null;
  /** What is wrong; without `rewrite` also what to do about it. */
  message: string;
  /** What goes wrong, and for whom. */
  why?: string;
  /** The safe way to do the same; may be several lines. */
  rewrite?: string;
}

/** A rule as it stands in a list of rules, whether it found something or not. */
export interface RuleText {
  id: string;
  severity: Severity;
  title: string;
  help: string;
  /** The rule is off unless somebody turns it on. */
  isOff?: true;
}

export interface Counts {
  errors: number;
  warnings: number;
}

export interface Report extends Counts {
  /** "gameops env check" */
  tool: string;
  /** The file or folder that was checked, as shown. */
  subject: string;
  findings: readonly Finding[];
  /** Page that explains every rule under its id; none if each finding explains itself. */
  page?: string;
  /** Something else that a person has to know; shown in the last line. */
  remark?: string;
}

/** "migrations/2_guilds.sql:3:1" */
export function placeText({ file, line, column }: Finding): string {
  return file === '' || line === null ? file : `${file}:${line}:${column ?? 1}`;
}

/** All that a finding says, for formats that have one text for it. */
export function wholeText({ message, why, rewrite }: Finding, link = ''): string {
  const safeWay = rewrite === undefined ? [] : ['Safe way:', rewrite];
  return [`${message}${link}`, ...(why === undefined ? [] : [why]), ...safeWay].join('\n');
}

export function countsOf(findings: readonly Finding[]): Counts {
  const count = (severity: Severity) => findings.filter((one) => one.severity === severity).length;
  return { errors: count('error'), warnings: count('warning') };
}

/** Why a check fails, in words; null when it does not. */
export function failureText({ errors, warnings }: Counts, isStrict: boolean): string | null {
  if (errors === 0 && !(isStrict && warnings > 0)) return null;
  const strictly = errors === 0 ? ', and --strict takes no warnings' : '';
  return `${counted(errors, 'error')} and ${counted(warnings, 'warning')}${strictly}`;
}

/** Of a verb that checks something. */
export interface FindingsOptions {
  format?: Format;
  /** Warnings fail, too. */
  strict?: boolean;
}
