/** gameops db baseline: records migrations as applied in an existing database, after proving that they lead to its schema. */

import { unknownMigration } from '../../database/migrate/back.ts';
import { adopt, compareWith, schemaOfFiles } from '../../database/migrate/baseline.ts';
import { differs } from '../../database/migrate/round-trip.ts';
import { OpsError } from '../../errors.ts';
import type { Context, Outcome } from '../../operations/context.ts';
import { openEndpoint, readMigrations } from '../../operations/database/database.ts';
import { onThrowAway } from '../../operations/database/throw-away.ts';

export interface DbBaselineOptions {
  /** Name of a migration. */
  to?: string;
  plan?: boolean;
}

export async function run(context: Context, { to, plan }: DbBaselineOptions): Promise<Outcome> {
  const { dir, files } = await readMigrations(context);
  const last = to === undefined ? files.length - 1 : files.findIndex(({ name }) => name === to);
  if (last < 0)
    throw unknownMigration(
      to ?? '',
      files.map(({ name }) => name),
    );
  const endpoint = await openEndpoint(context);
  const chosen = files.slice(0, last + 1);
  const names = chosen.map(({ name }) => name);
  const { emit, signal } = context;
  const added = await onThrowAway(context, async (empty) => {
    const expected = await schemaOfFiles(empty, dir, names, { emit, signal });
    const findings = differs('baseline', '', 'in this database', await compareWith(endpoint, expected));
    if (findings.length > 0) {
      throw new OpsError('BASELINE_DIFFERS', {
        message: `The migrations up to ${names.at(-1)} do not lead to the schema of ${endpoint.database}. Nothing was written.\n${findings.map(({ message }) => message).join('\n')}`,
        next: [
          'write what the database has in addition into a migration: gameops db create <name>',
          'gameops db baseline --to <the last migration it has>',
        ],
        facts: { to: names.at(-1) ?? '', differences: findings.length },
        result: { applied: [], reverted: [], pending: [], findings },
      });
    }
    return plan ? [] : adopt(endpoint, dir, chosen, { emit, signal });
  });
  const pending = files.slice(last + 1).map(({ name }) => name);
  const result = {
    applied: added.map((name) => ({ name, ms: 0 })),
    reverted: [],
    pending,
    proven: names,
    findings: [],
  };
  const text = () =>
    `proven: ${names.length} migrations lead to exactly this schema; ${plan ? 'nothing was written' : `${added.length} of them were added to the ledger`}`;
  return { ok: true, result, text };
}
