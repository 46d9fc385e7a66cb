/**
 * `env fix`: repairs mechanical mistakes and lists each repair. Promises that values stay as they are and are not shown.
 */
import { fixEnv } from '../../env/file/fix.ts';
import { replaceFile } from '../../env/file/write.ts';
import { OpsError } from '../../errors.ts';
import { type EnvContext, textOfEnv } from '../../operations/env-context.ts';
import type { Outcome } from '../../report/outcome.ts';

export interface FixOptions {
  dryRun?: boolean;
}

/** @throws USAGE (stdin), ENV_MISSING, ENV_UNREADABLE */
export async function run(context: EnvContext, { dryRun = false }: FixOptions): Promise<Outcome> {
  const { envFilePath, envName } = context;
  if (envFilePath === null) {
    throw new OpsError('USAGE', {
      message: 'env fix can repair a file, but not stdin. Nothing was changed.',
      next: ['gameops env fix --env-file <path>', 'gameops env check --env-file -'],
    });
  }
  const before = textOfEnv(context);
  if (before === null) {
    throw new OpsError('ENV_MISSING', {
      message: `There is no ${envName}. Nothing was changed.`,
      next: ['gameops init', 'gameops env fix --env-file <path>'],
      facts: { file: envName },
    });
  }
  const { text, repairs } = fixEnv(before);
  const isChanged = text !== before;
  if (isChanged && !dryRun) write(envFilePath, text);
  const done = dryRun
    ? 'would be made; nothing was changed'
    : 'made; values, comments and order are unchanged';
  return {
    ok: true,
    result: { file: envName, repairs, written: isChanged && !dryRun },
    text: (style) =>
      [
        ...repairs.map(({ line, rule, message }) => `${envName}:${line} ${style.bold(rule)} ${message}`),
        repairs.length === 0
          ? `${style.green('✓')} ${envName}: nothing to repair`
          : `${style.green('✓')} ${envName}: ${repairs.length} repairs ${done}`,
        `Next: ${style.cyan('gameops env check')}`,
      ].join('\n'),
  };
}

function write(path: string, text: string): void {
  try {
    replaceFile(path, text);
  } catch (error) {
    const reason = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
    throw new OpsError('ENV_UNREADABLE', {
      message: `${path} can't be written (${reason}). It is unchanged.`,
      next: [`make ${path} and its folder writable for this user`],
      facts: { file: path, reason },
    });
  }
}
