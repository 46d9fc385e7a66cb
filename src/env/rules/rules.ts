/**
 * The rules: each has a stable id, a severity and a title. docs/env-rules.md explains every rule under its id, and the
 * tests hold a bad and a good sample for each.
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
  syntax: error('A line is not KEY=value'),
  'unclosed-quote': error('A quote does not end where the value does'),
  'cut-value': error('A "#" ends the value for some readers and not for others'),
  'duplicate-key': error('The file has a key twice'),
  'key-name': warning('Some readers do not accept the name of a key'),
  whitespace: warning('Some readers refuse or keep white space'),
  'byte-order-mark': warning('The file begins with a byte order mark'),
  'windows-line-ends': warning('The file has Windows line ends'),
  'key-order': { ...warning('Keys are not in alphabetical order'), isOff: true },
  'not-portable': warning('Node, dotenv, docker and Compose do not read the same value'),

  'missing-key': error('A required setting is missing'),
  'missing-from-example': warning('A key of the example has no value'),
  'unknown-key': warning('gameops does not know this setting'),
  'wrong-value': error('The setting does not accept this value'),
  'bad-url': error("A URL can't be read, or its password needs percent-encoding"),
  'database-url-differs': error('DATABASE_URL and DB_* name different databases'),
  'debug-in-production': warning('Debug logs are on in production'),
  'loopback-in-production': error('A host is loopback, which in a container is the container itself'),
  'unreadable-source': error('A file or a command that should give a value fails'),

  'placeholder-secret': error('A secret is a placeholder'),
  'example-secret': error('A secret is the same as in the example'),
  'short-secret': warning('A secret is short'),
  'weak-secret': warning('A secret is easy to guess'),
  'weak-jwt-secret': error('JWT_SECRET has fewer than 256 bits'),
  'reused-secret': warning('Two settings have the same secret'),

  'file-mode': warning('Other users of this machine can read or write the file'),
  'file-owner': warning('The file belongs to another user'),
  'file-symlink': warning('The file is a symbolic link'),
  'tracked-by-git': error('The file is in the git repository'),
  'not-ignored-by-git': warning('The next `git add` would add the file'),
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

/** As gameops.yaml sets it, else as the rule itself has it. */
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
