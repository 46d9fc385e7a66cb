/**
 * gameops db verify: runs every migration up, down and up again on a throw-away server. The project's database is asked for
 * its version only.
 */
import { roundTrip } from '../../database/migrate/round-trip.ts';
import { OpsError } from '../../errors.ts';
import type { Context, Outcome } from '../../operations/context.ts';
import { readMigrations } from '../../operations/database/database.ts';
import { onThrowAway } from '../../operations/database/throw-away.ts';

export async function run(context: Context): Promise<Outcome> {
  const { dir, files } = await readMigrations(context);
  const { emit, signal } = context;
  const seen = await onThrowAway(context, (endpoint) => roundTrip(endpoint, dir, files, { emit, signal }));
  const { proven, oneWay, findings } = seen;
  const result = { applied: [], reverted: [], pending: [], proven, oneWay, findings };
  const errors = findings.map(({ file, message }) => `${file}: ${message}`);
  if (errors.length > 0) {
    throw new OpsError('MIGRATION_NOT_PROVEN', {
      message: `${errors.length} finding${errors.length === 1 ? '' : 's'} while running up, down and up again; the project's database was not touched.\n${errors.join('\n')}`,
      next: ['correct the migrations that are named, then run gameops db verify again'],
      facts: { files: [...new Set(findings.map(({ file }) => file))], proven: proven.length },
      result,
    });
  }
  const rest = oneWay.length > 0 ? `; ${oneWay.length} are declared irreversible: ${oneWay.join(', ')}` : '';
  return {
    ok: true,
    result,
    text: () =>
      `proven: ${proven.length} migrations lead to the same schema after up, down and up again${rest}`,
  };
}
