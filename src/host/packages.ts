/**
 * Programs and packages of this machine: is it there, and, on Debian and Ubuntu as root, install it.
 * Argument arrays only, bounded in time. Adds no package source and removes nothing.
 */
import { access, constants } from 'node:fs/promises';
import { join } from 'node:path';
import { ExecaError, execa } from 'execa';
import { OpsError } from '../errors.ts';

/** A shell of an unprivileged user often has no sbin folders in PATH. */
export function searchPath(env: NodeJS.ProcessEnv = process.env): string {
  return [env.PATH, '/usr/local/sbin', '/usr/sbin', '/sbin'].filter(Boolean).join(':');
}

export async function isProgram(name: string, env: NodeJS.ProcessEnv = process.env): Promise<boolean> {
  for (const folder of searchPath(env).split(':')) {
    const found = await access(join(folder, name), constants.X_OK).then(
      () => true,
      () => false,
    );
    if (found) return true;
  }
  return false;
}

/** @throws ENGINE_NOT_INSTALLABLE or IMAGE_BUILD_FAILED with apt's own last words */
export async function installPackages(
  packages: readonly string[],
  need: { why: string; code: 'ENGINE_NOT_INSTALLABLE' | 'IMAGE_BUILD_FAILED' },
): Promise<void> {
  // Somebody else's unattended upgrade may hold dpkg's lock for a minute.
  const options = ['-q', '-y', '-o', 'DPkg::Lock::Timeout=120'];
  const environment = {
    env: { PATH: searchPath(), DEBIAN_FRONTEND: 'noninteractive', NEEDRESTART_SUSPEND: '1' },
    timeout: 600_000,
    all: true,
    stdin: 'ignore',
  } as const;
  try {
    // One broken source among many fails `update`; what matters is whether the packages can be had.
    await execa('apt-get', [...options, 'update'], { ...environment, reject: false });
    await execa('apt-get', [...options, 'install', '--no-install-recommends', ...packages], environment);
  } catch (error) {
    const words =
      error instanceof ExecaError ? lastWords(String(error.all ?? error.shortMessage)) : String(error);
    throw new OpsError(need.code, {
      message: `apt-get could not install ${packages.join(' and ')}, needed for ${need.why}: ${words}`,
      next: [`apt-get update && apt-get install ${packages.join(' ')}`],
      cause: error,
    });
  }
}

/** The last few non-empty lines of a program's output, in one. */
export function lastWords(output: string, count = 3): string {
  return output
    .split('\n')
    .map((line) => line.trim())
    .filter(Boolean)
    .slice(-count)
    .join(' | ');
}
