/**
 * Proves on a throw-away database that migrations can be reverted: each is applied, reverted and applied again, and the
 * schema is compared each time. Never touches a database that matters.
 */
import { isOpsError } from '../../errors.ts';
import type { Finding } from '../../report/findings/model.ts';
import { catalogueOf, type Difference, differenceOf } from '../server/catalogue.ts';
import { type DatabaseEndpoint, withClient } from '../server/connection.ts';
import { migrateBack } from './back.ts';
import type { Migration } from './files.ts';
import { migrateForward } from './forward.ts';
import type { RunOptions } from './run.ts';

export interface RoundTrip {
  /** Migrations whose up, down and second up led to the expected schemas. */
  proven: string[];
  /** Migrations that are marked as irreversible. */
  oneWay: string[];
  findings: Finding[];
}

export async function roundTrip(
  endpoint: DatabaseEndpoint,
  dir: string,
  files: readonly Migration[],
  options: RunOptions,
): Promise<RoundTrip> {
  const seen: RoundTrip = { proven: [], oneWay: [], findings: [] };
  const schema = async () => (await withClient(endpoint, catalogueOf)).lines;
  const quiet = { ...options, emit: () => undefined };
  for (const [at, { name, file, reversible }] of files.entries()) {
    options.signal?.throwIfAborted();
    options.emit({ type: 'progress', label: 'migrations', done: at, total: files.length, unit: '' });
    const before = await schema();
    const up = () => migrateForward(endpoint, dir, { ...quiet, names: [name] });
    const failed = await failureOf('up-fails', file, up);
    if (failed) return { ...seen, findings: [...seen.findings, failed] };
    if (reversible === 'no') {
      seen.oneWay.push(name);
      continue;
    }
    const after = await schema();
    const back = () => migrateBack(endpoint, dir, { names: [name] }, { ...quiet, isRehearsal: true });
    const stuck = await failureOf('down-fails', file, back);
    if (stuck) {
      seen.findings.push(stuck);
      continue;
    }
    const gone = differs('down-differs', file, 'after reverting it', differenceOf(before, await schema()));
    const again = await failureOf('up-again-fails', file, up);
    if (again) return { ...seen, findings: [...seen.findings, ...gone, again] };
    const other = differs('up-again-differs', file, 'the second time', differenceOf(after, await schema()));
    seen.findings.push(...gone, ...other);
    if (gone.length + other.length === 0) seen.proven.push(name);
  }
  return seen;
}

async function failureOf(rule: string, file: string, run: () => Promise<unknown>): Promise<Finding | null> {
  try {
    await run();
    return null;
  } catch (error) {
    if (!isOpsError(error) || error.code === 'DATABASE_UNREACHABLE') throw error;
    return { rule, severity: 'error', file, line: 1, column: 1, message: error.message };
  }
}

export function differs(rule: string, file: string, when: string, { missing, extra }: Difference): Finding[] {
  const place = { rule, severity: 'error' as const, file, line: 1, column: 1 };
  return [
    ...missing.map((line) => ({ ...place, message: `${when}, this is missing: ${line}` })),
    ...extra.map((line) => ({ ...place, message: `${when}, this should not be there: ${line}` })),
  ];
}
