/**
 * Nginx for the in-memory engine: as much of it as the switch talks to. Loads what the pointer names at its start and at
 * HUP, and keeps what it has when the pointer is torn, as the real one does.
 */
import { namesOf, path } from '../../../src/contract.ts';
import type { ExecResult } from '../../../src/engine/port.ts';
import type { Answer } from '../../../src/proxy/door.ts';
import { type Generation, generationOf, readGeneration } from '../../../src/proxy/generation.ts';
import type { MemoryState, Program, Self } from './memory-engine.ts';
import { nextSerial } from './memory-world.ts';

const done: ExecResult = { exitCode: 0, stdout: '', stderr: '' };
const failed = (stderr: string): ExecResult => ({ exitCode: 1, stdout: '', stderr });

export interface MemoryNginxOptions {
  /** Configurations that `nginx -t` refuses. */
  rejects?: (config: string) => boolean;
  /** A HUP that changes nothing, as after a port conflict. */
  ignoresHup?: (config: string) => boolean;
  /** How long the former workers accept connections beside those of a new configuration. */
  acceptsForMs?: (config: string) => number;
  /** Whether the engine lists processes; default: it does. */
  isListed?: boolean;
}

export function memoryNginx(options: MemoryNginxOptions = {}): Program {
  return {
    onStart(self) {
      if (!load(self)) self.exit(1);
    },
    onSignal(self, signal) {
      if (signal !== 'SIGHUP') self.exit(0);
      else if (!options.ignoresHup?.(configAt(self, `${path.nginxConfig}/nginx.conf`))) {
        const former = workersOf(self);
        const ms = options.acceptsForMs?.(configAt(self, `${path.nginxConfig}/nginx.conf`)) ?? 100;
        if (load(self)) self.after(ms, `leave ${former.join(' ')}`);
      }
    },
    onTimer(self, name) {
      const leaving = name.split(' ').slice(1).map(Number);
      self.container.memory.workers = workersOf(self).filter((pid) => !leaving.includes(pid));
    },
    processes(self) {
      if (options.isListed === false) return null;
      const workers = workersOf(self).map((pid) => ({ pid, command: 'nginx: worker process' }));
      return [{ pid: 1, command: 'nginx: master process nginx' }, ...workers];
    },
    onExec(self, command) {
      const [program, ...rest] = command;
      if (program === 'nginx' && rest.includes('-v'))
        return { ...done, stderr: 'nginx version: nginx/1.30.6\n' };
      if (program === 'nginx') return test(self, rest.at(-1) ?? '', options);
      if (program === 'mv') return move(self, rest.at(-2) ?? '', rest.at(-1) ?? '');
      if (program === 'rm') return remove(self, rest.slice(1));
      return { exitCode: 127, stdout: '', stderr: `${program}: not found` };
    },
  };
}

/** What the running Nginx answers on its private side; null when nobody answers. */
export function servedBy(state: MemoryState, project: string): Generation | null {
  const container = state.containers.get(namesOf(project).proxy);
  return container?.state === 'running'
    ? ((container.memory.served as Generation | undefined) ?? null)
    : null;
}

/** `Door.ask` of the private side. */
export function askMemoryNginx(state: MemoryState, project: string, asked: string): Answer {
  const served = servedBy(state, project);
  if (!served) return { ok: false, reason: 'ECONNREFUSED' };
  const isKnown = asked === '/generation';
  const body = isKnown
    ? JSON.stringify({ generation: served.generation, nginx: '1.30.6', routes: served.routes })
    : '';
  return { ok: true, answer: { status: isKnown ? 200 : 404, body, servedBy: '' } };
}

const configAt = (self: Self, file: string) => Buffer.from(self.read(file) ?? []).toString('utf8');

function load(self: Self): boolean {
  const number = generationOf(configAt(self, `${path.nginxConfig}/nginx.conf`));
  const folder = `${path.nginxConfig}/`;
  const files = new Map(
    self.list(path.nginxConfig).map((name) => [name, self.read(folder + name) ?? new Uint8Array()]),
  );
  const generation = number === null ? null : readGeneration(files, number);
  if (generation === null) return false;
  self.container.memory.served = generation;
  self.container.memory.workers = [...workersOf(self), nextSerial(self.state)];
  return true;
}

/** Process ids of the workers that accept connections. */
const workersOf = (self: Self) => (self.container.memory.workers as number[] | undefined) ?? [];

function test(self: Self, file: string, options: MemoryNginxOptions): ExecResult {
  const config = configAt(self, file);
  const isWrong = generationOf(config) === null || options.rejects?.(config);
  return isWrong ? failed(`nginx: [emerg] rejected in ${file}:1`) : done;
}

const volumeOf = (self: Self) =>
  self.state.volumes.get(namesOf(self.container.spec.project).volume.nginx)?.files ?? new Map();
const inVolume = (file: string) => file.slice(path.nginxConfig.length + 1);

function move(self: Self, from: string, to: string): ExecResult {
  const files = volumeOf(self);
  const file = files.get(inVolume(from));
  if (!file) return failed(`mv: cannot stat '${from}': No such file or directory`);
  files.set(inVolume(to), file);
  files.delete(inVolume(from));
  return done;
}

function remove(self: Self, names: readonly string[]): ExecResult {
  const files = volumeOf(self);
  for (const name of names.map(inVolume)) {
    for (const file of [...files.keys()])
      if (file === name || file.startsWith(`${name}/`)) files.delete(file);
  }
  return done;
}
