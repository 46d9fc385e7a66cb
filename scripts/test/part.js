/**
 * One part of `npm test` as a child process. Parts run side by side, so what a part prints is passed on in whole lines, or,
 * when another part has the terminal meanwhile, all at once at its end.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const isColoured = process.stdout.isTTY && !('NO_COLOR' in process.env);
const running = new Set();

for (const signal of ['SIGINT', 'SIGTERM'])
  process.once(signal, () => {
    for (const child of running) child.kill(signal);
    process.exit(signal === 'SIGINT' ? 130 : 143);
  });

/** @returns {Promise<{ name: string, seconds: number, failure: string | null, output: string }>} */
export function runPart({ name, command: [program, ...rest], env = {} }, { isHeldBack = false } = {}) {
  const began = Date.now();
  const head = `\n== ${name}: ${[program, ...rest].join(' ')}\n`;
  let output = '';
  let shown = 0;
  const show = (end) => {
    process.stdout.write(output.slice(shown, end));
    shown = end;
  };
  const say = (text) => {
    output += text;
    if (!isHeldBack) show(output.lastIndexOf('\n') + 1);
  };
  say(head);
  return new Promise((resolve) => {
    const child = spawn(program, rest, {
      cwd: root,
      env: { ...process.env, ...(isColoured ? { FORCE_COLOR: '1' } : {}), ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.add(child);
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', say);
    let error = null;
    child.on('error', (thrown) => {
      error = thrown;
    });
    child.on('close', (status, signal) => {
      running.delete(child);
      const failure = status === 0 ? null : (error?.message ?? signal ?? `exit ${status}`);
      const seconds = (Date.now() - began) / 1_000;
      say(failure === null ? `== ${name}: ${seconds.toFixed(1)} s\n` : `== ${name}: FAILED, ${failure}\n`);
      show(output.length);
      resolve({ name, seconds, failure, output });
    });
  });
}
