/**
 * gameops db rollback: reverts migrations, newest first. Promises to show what would be lost, to ask before that, and to
 * save the rows that can be counted.
 */
import { existsSync } from 'node:fs';
import {
  type BackPlan,
  type BackResult,
  type Choice,
  isLossy,
  lossText,
  migrateBack,
  planBack,
  refuseIrreversible,
  waysToAccept,
} from '../../database/migrate/back.ts';
import { readLedger } from '../../database/migrate/ledger.ts';
import { type Context, confirmWayBack, type Outcome } from '../../operations/context.ts';
import { look, migrationsFolder, openEndpoint } from '../../operations/database/database.ts';
import { fleetsNow, refuseTakingAway } from '../../operations/database/stranding.ts';
import { withProjectLock } from '../../operations/project.ts';
import { columns } from '../../report/table.ts';
import { formatMs } from '../../units.ts';

export interface DbRollbackOptions {
  count?: number;
  /** Name of the migration that stays the newest. */
  to?: string;
  plan?: boolean;
  acceptLoss?: boolean;
}

export async function run(context: Context, options: DbRollbackOptions): Promise<Outcome> {
  const folder = migrationsFolder(context);
  // Without a folder the text in the ledger is used.
  const dir = existsSync(folder) ? folder : null;
  const choice: Choice = options.to === undefined ? { count: options.count ?? 1 } : { to: options.to };
  const lookBack = async () => {
    const endpoint = await openEndpoint(context);
    return look(endpoint, async (client) => {
      const { applied, floor } = await readLedger(client);
      const plan = await planBack(client, dir, choice);
      return { endpoint, plan, applied: applied.map(({ name }) => name), floor };
    });
  };
  if (options.plan) return planOutcome((await lookBack()).plan);
  return withProjectLock(context, async (engine, signal) => {
    const { endpoint, plan, applied, floor } = await lookBack();
    if (plan.steps.length + plan.refusals.length === 0) return outcome({ reverted: [], rescued: [] });
    refuseIrreversible(plan);
    const goes = new Set(plan.steps.map(({ name }) => name));
    const after = { applied: new Set(applied.filter((name) => !goes.has(name))), floor };
    for (const { id, migrations } of refuseTakingAway(after, await fleetsNow(context, engine))) {
      const message = `no rollback to the kept release ${id} will be possible without ${migrations?.needs}`;
      context.emit({ type: 'note', level: 'warning', message });
    }
    const loses = isLossy(plan);
    if (loses && !options.acceptLoss) {
      const next = waysToAccept(plan.uncounted, `gameops db rollback${asAsked(options)} --accept-loss`);
      await confirmWayBack(
        context,
        `Reverting these migrations loses data of players. ${lossText(plan)}`,
        next,
      );
    }
    const names = plan.steps.map(({ name }) => name);
    const { emit } = context;
    return outcome(await migrateBack(endpoint, dir, { names }, { emit, signal, acceptLoss: loses }));
  });
}

const asAsked = ({ to, count }: DbRollbackOptions): string => {
  if (to !== undefined) return ` --to ${to}`;
  return count === undefined ? '' : ` --count ${count}`;
};

function planOutcome(plan: BackPlan): Outcome {
  const { steps, refusals, losses, uncounted } = plan;
  const planned = steps.map(({ name, source }) => ({ name, source }));
  const result = {
    applied: [],
    reverted: [],
    pending: [],
    planned,
    refusals,
    losses,
    uncounted: [...new Set(uncounted.map(({ migration }) => migration))],
    unsaved: uncounted,
    findings: [],
  };
  return { ok: true, result, text: () => planText(plan) };
}

function planText({ steps, refusals, losses, uncounted }: BackPlan): string {
  if (steps.length + refusals.length === 0) return 'no migration is applied that could be reverted';
  const rows = [
    ...steps.map(({ name, source }) => [
      name,
      source === 'file' ? 'with the text of its file' : 'with the text in the ledger',
    ]),
    ...refusals.map(({ name, reason }) => [name, `refused: ${reason}`]),
  ];
  const lost = isLossy({ losses, uncounted })
    ? ['this would lose data of players:', lossText({ losses, uncounted })]
    : [];
  return ['would revert, newest first:', ...columns(rows, { indent: '  ' }), ...lost].join('\n');
}

function outcome({ reverted, rescued }: BackResult): Outcome {
  const result = { applied: [], reverted, rescued, pending: reverted.map(({ name }) => name), findings: [] };
  const text = () => {
    if (reverted.length === 0) return 'nothing to do: the migrations to revert are not applied';
    const lines = reverted.map(({ name, ms }) => `  ${name}  ${formatMs(ms)}`);
    const saved = rescued.map(
      ({ table, columns: lost, rows, savedAs }) =>
        `saved ${rows} rows of ${table}${lost.length > 0 ? ` (${lost.join(', ')})` : ''} as ${savedAs}`,
    );
    return [`reverted ${reverted.length}:`, ...lines, ...saved].join('\n');
  };
  return { ok: true, result, text };
}
