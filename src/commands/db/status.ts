/** gameops db status: what is applied, what is pending, and what is wrong. Reads only. */
import { listMigrations } from '../../database/migrate/files.ts';
import { type SchemaStatus, statusOf } from '../../database/migrate/status.ts';
import type { Context, Outcome, Style } from '../../operations/context.ts';
import { look, migrationsFolder, openEndpoint } from '../../operations/database/database.ts';
import { findingLines } from '../../report/findings/pretty.ts';
import { columns } from '../../report/table.ts';

export async function run(context: Context): Promise<Outcome> {
  const [endpoint, files] = await Promise.all([
    openEndpoint(context),
    listMigrations(migrationsFolder(context)),
  ]);
  const state = await look(endpoint, (client) => statusOf(client, files));
  const result = { ...state, reverted: [] };
  return { ok: true, result, text: (style) => stateText(style, endpoint.database, state) };
}

const shownMax = 12;

function stateText(style: Style, database: string, state: SchemaStatus): string {
  const { applied, pending, findings } = state;
  const counts = `${applied.length} applied, ${pending.length} pending`;
  const lines = [`${style.bold(database)}  ${counts}  schema ${state.fingerprint.slice(0, 12)}`];
  const older = applied.length - shownMax;
  const rows = [
    ...applied
      .slice(-shownMax)
      .map(({ name, appliedAt, release, phase }) => [
        style.green('applied'),
        name,
        phase ?? '',
        appliedAt.slice(0, 16).replace('T', ' '),
        release === null ? '' : `release ${release}`,
      ]),
    ...pending.map(({ name, phase }) => [style.yellow('pending'), name, phase]),
  ];
  if (older > 0) lines.push(style.dim(`  … ${older} older`));
  lines.push(...columns(rows, { indent: '  ' }));
  if (state.floor) lines.push(`floor  ${state.floor}: images that do not know this migration are too old`);
  const told = findings.filter(({ severity }) => severity !== 'info');
  if (told.length > 0) lines.push('', ...told.flatMap((one) => findingLines(one, null, style)));
  if (pending.some(({ phase }) => phase === 'expand'))
    lines.push('  next: gameops db migrate, or gameops deploy');
  else if (pending.length > 0)
    lines.push('  next: gameops db migrate --contract, once earlier releases are gone');
  return lines.join('\n');
}
