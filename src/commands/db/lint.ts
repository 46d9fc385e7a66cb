/** gameops db lint: what in the migrations would stall players, break the release that runs, or lose data. Reads only. */
import type { Finding } from '../../database/finding.ts';
import { readLedger } from '../../database/ledger.ts';
import { lintFolder, type Sizes, sizesOf } from '../../database/lint/lint.ts';
import { isOpsError, OpsError } from '../../errors.ts';
import type { Context, Outcome, Style } from '../context.ts';
import { findingLines } from './findings.ts';
import { look, migrationsFolder, openEndpoint, readFolder, shownPath } from './open.ts';

export async function run(context: Context): Promise<Outcome> {
  const dir = migrationsFolder(context);
  readFolder(context);
  const live = await askDatabase(context);
  const findings = await lintFolder({
    dir,
    shownDir: shownPath(context, dir),
    applied: live?.applied ?? new Set(),
    sizes: live?.sizes ?? null,
  });
  const count = (severity: Finding['severity']) => findings.filter((one) => one.severity === severity).length;
  const result = {
    findings,
    errors: count('error'),
    warnings: count('warning'),
    skipped: live?.applied.size ?? 0,
    sized: live !== null,
  };
  if (result.errors > 0) throw unsafe(findings, result);
  return { ok: true, result, text: (style) => lintText(style, findings, result.skipped) };
}

/** Everything that keeps it away only makes lint know less. */
async function askDatabase(context: Context): Promise<{ applied: Set<string>; sizes: Sizes } | null> {
  try {
    const endpoint = await openEndpoint(context);
    return await look(
      endpoint,
      async (client) => {
        const { applied } = await readLedger(client);
        return { applied: new Set(applied.map(({ name }) => name)), sizes: await sizesOf(client) };
      },
      { connectMs: 2_000 },
    );
  } catch (error) {
    if (!isOpsError(error)) throw error;
    const message = `no database to ask (${error.code}): every file is read, and tables count as large`;
    context.emit({ type: 'note', level: 'info', message });
    return null;
  }
}

function lintText(style: Style, findings: readonly Finding[], skipped: number): string {
  const rest = skipped > 0 ? `; ${skipped} applied ones were not looked at` : '';
  if (findings.length === 0) return `nothing to say about the migrations${rest}`;
  return [...findingLines(style, findings), `no error${rest}`].join('\n');
}

function unsafe(findings: readonly Finding[], result: object): OpsError {
  const errors = findings.filter(({ severity }) => severity === 'error');
  const shown = errors.map(({ file, line, column, rule, message, why, rewrite }) =>
    [
      `${file}:${line}:${column} ${rule}: ${message}`,
      ...(why ? [`  ${why}`] : []),
      ...(rewrite ?? '')
        .split('\n')
        .filter(Boolean)
        .map((text) => `    ${text}`),
    ].join('\n'),
  );
  return new OpsError('MIGRATION_UNSAFE', {
    message: `${errors.length} finding${errors.length === 1 ? '' : 's'} in the migrations; nothing was run.\n${shown.join('\n')}`,
    next: ['rewrite them as shown', 'or say that you mean it, on top of the file: -- gameops: allow=<rule>'],
    facts: { errors: errors.length, rules: [...new Set(errors.map(({ rule }) => rule))] },
    result,
  });
}
