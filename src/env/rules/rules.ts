/**
 * The rules: a stable id each, how grave it is, and what it is for. docs/env-rules.md explains every one under its id,
 * and the tests hold a bad and a good sample for each.
 */
import type { RuleText } from '../../report/findings/model.ts';
import type { EnvSeverity } from './findings.ts';

export interface Rule {
  severity: EnvSeverity;
  title: string;
  /** Found only where gameops.yaml turns it on. */
  isOff?: true;
}

export const rules = {
  syntax: error('A line is no KEY=value'),
  'unclosed-quote': error('A quote does not end where the value does'),
  'cut-value': error('A "#" ends the value for some readers and not for others'),
  'duplicate-key': error('A key stands in the file twice'),
  'key-name': warning('A key is no name that every reader takes'),
  whitespace: warning('White space that some readers refuse or keep'),
  'byte-order-mark': warning('The file begins with a byte order mark'),
  'windows-line-ends': warning('Lines end as on Windows'),
  'key-order': { ...warning('Keys are not in alphabetical order'), isOff: true },
  'not-portable': warning('Node, dotenv, docker and Compose do not read the same value'),

  'missing-key': error('A setting that is needed is nowhere'),
  'missing-from-example': warning('A key of the example is nowhere'),
  'unknown-key': warning('Nobody asked for this key'),
  'wrong-value': error('A value is not what the key takes'),
  'bad-url': error('A URL can not be read, or its password needs percent-encoding'),
  'database-url-differs': error('DATABASE_URL and DB_* name different things'),
  'debug-in-production': warning('Debug logs in production'),
  'loopback-in-production': error("A container's loopback is the container itself"),
  'unreadable-source': error('A file or command that should give a value does not'),

  'placeholder-secret': error('A secret is a placeholder'),
  'example-secret': error("A secret is the example's own"),
  'short-secret': warning('A secret is short'),
  'weak-secret': warning('A secret is easily guessed'),
  'weak-jwt-secret': error('JWT_SECRET has fewer than 256 bits'),
  'reused-secret': warning('One secret is used for two things'),

  'file-mode': warning('Others on this machine can read or write the file'),
  'file-owner': warning('The file belongs to somebody else'),
  'file-symlink': warning('The file is a symbolic link'),
  'tracked-by-git': error('The file is in the git repository'),
  'not-ignored-by-git': warning('Git would take the file at the next `git add`'),
} as const satisfies Record<string, Rule>;

export type RuleId = keyof typeof rules;

export type RuleLevel = 'off' | EnvSeverity;

export function isRuleId(id: string): id is RuleId {
  return Object.hasOwn(rules, id);
}

export const rulesPage = 'docs/env-rules.md';

export function ruleTexts(): RuleText[] {
  return Object.entries<Rule>(rules).map(([id, rule]) => ({ id, ...rule, help: `See ${rulesPage}#${id}` }));
}

/** What gameops.yaml says of a rule, else the rule itself. */
export function levelOf(id: RuleId, asked: Readonly<Record<string, RuleLevel>>): RuleLevel {
  const rule: Rule = rules[id];
  return (Object.hasOwn(asked, id) ? asked[id] : undefined) ?? (rule.isOff ? 'off' : rule.severity);
}

function error(title: string): Rule {
  return { severity: 'error', title };
}

function warning(title: string): Rule {
  return { severity: 'warning', title };
}
