/** gameops history: who did what, from which machine, and how it ended. Newest first. */

import type { Context, Outcome } from '../operations/context.ts';
import { readProject } from '../operations/project.ts';
import type { HistoryEntry } from '../record/record.ts';
import { columns } from '../report/table.ts';
import { formatMs } from '../units.ts';

export async function run(context: Context): Promise<Outcome> {
  const { record } = await readProject(context);
  const entries: HistoryEntry[] = [...(record?.history ?? [])].reverse();
  return { ok: true, result: { entries }, text: () => historyText(entries) };
}

function historyText(entries: readonly HistoryEntry[]): string {
  if (entries.length === 0) return 'no history yet';
  const rows = entries.map((entry) => [
    entry.at.replace('T', ' ').slice(0, 19),
    `${entry.verb} ${entry.release}`,
    entry.previous === null ? 'first' : `from ${entry.previous}`,
    entry.strategy,
    entry.outcome,
    formatMs(entry.ms),
    entry.by,
    entry.reason ?? '',
  ]);
  return columns(rows).join('\n');
}
