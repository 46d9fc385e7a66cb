/**
 * gameops init: writes .env and gameops.yaml where they do not exist. Promises never to overwrite a file, and never to
 * write a secret that other users of this machine or a git repository could read.
 */
import { appendFileSync, existsSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { execa } from 'execa';
import { generateEnv } from '../env/generate.ts';
import { OpsError } from '../errors.ts';
import { firstFreePort } from '../host/ports.ts';
import type { Context, Outcome } from '../operations/context.ts';
import { yamlTemplate } from './init-template.ts';

interface WrittenFile {
  path: string;
  written: boolean;
}

/** @throws CONFIG_INVALID when a file can't be written */
export async function run(context: Context): Promise<Outcome> {
  const files: WrittenFile[] = [writeNew(context.envPath, generateEnv(context.project), 0o600)];
  if (!existsSync(context.configPath)) {
    const port = await firstFreePort(8080);
    const tlsPort = await firstFreePort(8443, [port]);
    files.push(
      writeNew(context.configPath, yamlTemplate({ project: context.project, port, tlsPort }), 0o644),
    );
  } else {
    files.push({ path: context.configPath, written: false });
  }
  const ignored = await ignoreInGit(context.envPath);
  return {
    ok: true,
    result: { files, ignored },
    text: (style) =>
      [
        ...files.map(({ path, written }) =>
          written ? `${style.green('✓')} wrote ${path}` : `  kept ${path} as it is`,
        ),
        ...(ignored === null ? [] : [`${style.green('✓')} added ${basename(context.envPath)} to ${ignored}`]),
        `Next: ${style.cyan('gameops deploy')}`,
      ].join('\n'),
  };
}

/** Creates exclusively: a file that appears at the last moment is kept, too. */
function writeNew(path: string, text: string, mode: number): WrittenFile {
  try {
    writeFileSync(path, text, { flag: 'wx', mode });
    return { path, written: true };
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null;
    if (code === 'EEXIST') return { path, written: false };
    throw new OpsError('CONFIG_INVALID', {
      message: `${path} can't be written (${String(code)}). Nothing was deployed or changed.`,
      next: [`make ${dirname(path)} writable for this user`],
      facts: { path, reason: String(code) },
      cause: error,
    });
  }
}

/** @returns the .gitignore that was extended; null when that was not needed */
async function ignoreInGit(envPath: string): Promise<string | null> {
  const folder = dirname(envPath);
  const answers = async (...args: string[]) => {
    const { failed } = await execa('git', ['-C', folder, ...args], { reject: false });
    return !failed;
  };
  if (!(await answers('rev-parse', '--is-inside-work-tree'))) return null;
  if (await answers('check-ignore', '-q', '--', envPath)) return null;
  const ignoreFile = join(folder, '.gitignore');
  appendFileSync(ignoreFile, `\n# Secrets, written by gameops init.\n/${basename(envPath)}\n`);
  return ignoreFile;
}
