/** Every case of .env through the real `docker create --env-file`: what it makes of it is what we say it makes of it. */
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readAs } from '../../../src/env/file/dialects.ts';
import { readTokens } from '../../../src/env/file/tokens.ts';
import { checkEnv } from '../../../src/env/rules/check.ts';
import { envCases } from '../../support/env-cases.ts';
import { emptyFolder } from '../../support/program.ts';

const run = promisify(execFile);
const folder = emptyFolder();
/** An image without anything in it, and so without an environment of its own. */
const image = `gameops-env-test:${randomUUID().slice(0, 8)}`;
/** What docker sets by itself. */
const always = new Set(['PATH', 'HOSTNAME']);

beforeAll(async () => {
  await run('sh', ['-c', `tar -c -T /dev/null | docker import - ${image}`]);
});
afterAll(async () => {
  await run('docker', ['image', 'rm', '-f', image]);
  folder.remove();
});

async function readByDocker(text: string): Promise<Record<string, string> | 'refused'> {
  const file = folder.write(`${randomUUID()}.env`, text);
  let id: string;
  try {
    // A name alone is looked up in the caller's environment, which holds none of ours.
    const created = await run('docker', ['create', '--env-file', file, image, 'none'], {
      env: {
        PATH: process.env.PATH ?? '',
        HOME: join(folder.path),
        DOCKER_HOST: process.env.DOCKER_HOST ?? '',
      },
    });
    id = created.stdout.trim();
  } catch (error) {
    const { stderr = '' } = error as { stderr?: string };
    if (/env file|variable name|env-file/.test(stderr)) return 'refused';
    throw error;
  }
  try {
    const { stdout } = await run('docker', ['inspect', '--format', '{{json .Config.Env}}', id]);
    const pairs = (JSON.parse(stdout) as string[] | null) ?? [];
    return Object.fromEntries(
      pairs
        .map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)] as const)
        .filter(([key]) => !always.has(key)),
    );
  } finally {
    await run('docker', ['rm', id]);
  }
}

function told(text: string): Record<string, string> | 'refused' {
  const reading = readAs('docker', text);
  // What depends on the caller is absent here.
  return reading === 'refused'
    ? reading
    : Object.fromEntries([...reading].filter(([, value]) => !value.startsWith('\0')));
}

describe('docker --env-file', () => {
  it('is tested with at least 60 cases', () => {
    expect(envCases.length).toBeGreaterThanOrEqual(60);
  });

  it.each(envCases)('reads what gameops says it reads: %s', async (_, text) => {
    expect(told(text)).toEqual(await readByDocker(text));
  });

  it('differs from gameops only in files for which env check has a finding', async () => {
    for (const [name, text] of envCases) {
      const tokens = readTokens(text);
      const ours = Object.fromEntries(
        tokens.pieces.flatMap((piece) => (piece.kind === 'setting' ? [[piece.key, piece.value]] : [])),
      );
      const isAlike = JSON.stringify(await readByDocker(text)) === JSON.stringify(ours);
      const report = checkEnv({
        ...{ file: '.env', text: tokens, hasFile: true, values: new Map(), problems: [], isBundled: false },
        ...{ userKeys: {}, example: null, facts: null, levels: {} },
      });
      if (!isAlike) expect([name, report.findings]).not.toEqual([name, []]);
    }
  });
});
