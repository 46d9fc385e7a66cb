/** What SARIF's own schema, and readers of it, have to say about a document. */
import { readFileSync } from 'node:fs';
import draft04 from 'ajv-draft-04';
import formats from 'ajv-formats';

const path = '../../node_modules/@microsoft/jest-sarif/lib/schemas/sarif-2.1.0-rtm.5.json';
const schema = JSON.parse(readFileSync(new URL(path, import.meta.url), 'utf8'));
const ajv = new draft04.default({ strict: false, allErrors: true, unicodeRegExp: false });
formats.default(ajv);
const validate = ajv.compile(schema);

interface Log {
  version: string;
  runs: {
    tool: { driver: { rules: { id: string }[] } };
    results: { ruleId: string; ruleIndex: number }[];
  }[];
}

export function sarifMistakes(document: Log): unknown[] {
  if (!validate(document)) return validate.errors ?? ['not valid'];
  if (document.version !== '2.1.0') return [document.version];
  // The schema does not see whether an index leads to the rule of that name.
  return document.runs.flatMap(({ tool, results }) =>
    results.filter(({ ruleId, ruleIndex }) => tool.driver.rules[ruleIndex]?.id !== ruleId),
  );
}
