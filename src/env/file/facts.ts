/**
 * What the file system and git know of a .env: who may read it, and whether it can get into a repository. Changes
 * nothing. Without git, or outside of a repository, git has no findings.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, lstatSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { type Found, found } from '../rules/found.ts';

export interface FileFacts {
  /** Permission bits. */
  mode: number;
  isOwn: boolean;
  isLink: boolean;
  /** "open": git would add it. */
  git: 'tracked' | 'open' | 'ignored';
}

/** Null where there is no such file. */
export function factsOf(path: string): FileFacts | null {
  const link = lstatSync(path, { throwIfNoEntry: false });
  const file = link && statSync(path, { throwIfNoEntry: false });
  if (!link || !file?.isFile()) return null;
  const uid = process.getuid?.();
  return {
    // Windows does not use these permission bits.
    mode: process.platform === 'win32' ? 0o600 : file.mode & 0o777,
    isOwn: uid === undefined || uid === file.uid,
    isLink: link.isSymbolicLink(),
    git: askGit(path),
  };
}

function askGit(path: string): FileFacts['git'] {
  const folder = dirname(resolve(path));
  if (!isInRepository(folder)) return 'ignored';
  const { status, stdout } = spawnSync(
    'git',
    ['ls-files', '-t', '--cached', '--others', '--exclude-standard', '--', basename(path)],
    { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], timeout: 10_000 },
  );
  if (status !== 0 || stdout === '') return 'ignored';
  return stdout.startsWith('?') ? 'open' : 'tracked';
}

/** Without starting git. */
function isInRepository(folder: string): boolean {
  for (let at = folder; ; at = dirname(at)) {
    if (existsSync(join(at, '.git'))) return true;
    if (at === dirname(at)) return false;
  }
}

export function fileFindings(facts: FileFacts | null, name: string): Found[] {
  if (facts === null) return [];
  const at = { line: 1, column: 1 };
  const octal = facts.mode.toString(8).padStart(4, '0');
  const all: [boolean, Found][] = [
    [
      (facts.mode & 0o077) !== 0,
      found(
        'file-mode',
        at,
        `the file has mode ${octal}, so other users can read or change its secrets; chmod 600 ${name}`,
      ),
    ],
    [
      !facts.isOwn,
      found('file-owner', at, 'the file belongs to another user, who can change it at any time'),
    ],
    [
      facts.isLink,
      found(
        'file-symlink',
        at,
        'the file is a symbolic link: its mode and git say nothing about the file it points to',
      ),
    ],
    [
      facts.git === 'tracked',
      found(
        'tracked-by-git',
        at,
        `the file and all its secrets are in the git repository; git rm --cached ${name}, then make new secrets`,
      ),
    ],
    [
      facts.git === 'open',
      found('not-ignored-by-git', at, `the next \`git add\` would add the file; put ${name} into .gitignore`),
    ],
  ];
  return all.flatMap(([holds, finding]) => (holds ? [finding] : []));
}
