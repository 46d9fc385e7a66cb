/** The real program as a child process, in an empty folder, with an environment that holds only what it needs. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(new URL('../../bin/gameops.js', import.meta.url));

export interface Folder {
  path: string;
  write(name: string, text: string, mode?: number): string;
  remove(): void;
}

export function emptyFolder(): Folder {
  const path = mkdtempSync(join(tmpdir(), 'gameops-test-'));
  return {
    path,
    write(name, text, mode = 0o600) {
      writeFileSync(join(path, name), text, { mode });
      return join(path, name);
    },
    remove: () => rmSync(path, { recursive: true, force: true }),
  };
}

export interface Run {
  code: number | null;
  signal: NodeJS.Signals | null;
  out: string;
  err: string;
}

export interface RunOptions {
  cwd: string;
  env?: Record<string, string>;
  /** Options of Node itself. */
  node?: readonly string[];
  stdin?: string;
  /** A command that starts gameops, such as a shell that sets a limit first. It gets the program and its arguments. */
  through?: readonly string[];
}

/** No engine, unless `env` names one. */
export function gameops(args: readonly string[], options: RunOptions): Promise<Run> {
  return start(args, options).ended;
}

export function start(
  args: readonly string[],
  { cwd, env = {}, node = [], through = [], stdin }: RunOptions,
): { child: ChildProcess; seen: Pick<Run, 'out' | 'err'>; ended: Promise<Run> } {
  const [command = '', ...rest] = [...through, process.execPath, ...node, '--', program, ...args];
  const child = spawn(command, rest, {
    cwd,
    env: {
      PATH: process.env.PATH ?? '',
      HOME: cwd,
      XDG_STATE_HOME: join(cwd, '.state'),
      DOCKER_HOST: `unix://${join(cwd, 'no-engine.sock')}`,
      ...env,
    },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  // A program that ends without reading its input does not fail the test.
  child.stdin.on('error', () => undefined).end(stdin);
  const seen = { out: '', err: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    seen.out += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    seen.err += text;
  });
  const ended = new Promise<Run>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, ...seen }));
  });
  return { child, seen, ended };
}

/** An engine that misbehaves in a way that no real engine does on request. */
export async function brokenEngine(
  cwd: string,
  answer: RequestListener,
): Promise<{ host: string; close(): void }> {
  const path = join(cwd, 'broken-engine.sock');
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return {
    host: `unix://${path}`,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
