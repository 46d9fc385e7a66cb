import { describe, expect, it } from 'vitest';
import { namesOf } from '../../src/contract.ts';
import type { ContainerSpec, Engine } from '../../src/engine/port.ts';
import { engineContract } from '../support/engine-contract.ts';
import { memoryEngine, ProcessDied, type Program } from '../support/memory/memory-engine.ts';

/** The few programs that the suite runs. */
function coreutils(spec: ContainerSpec): Program {
  const line = [...(spec.entrypoint ?? []), ...(spec.command ?? [])];
  return {
    onStart(self) {
      for (const [, word = ''] of (line[2] ?? '').matchAll(/echo (\w+);/g)) self.log(word);
    },
    onExec(self, [program, word = ''], input) {
      if (program === 'cat' && word === '')
        return { exitCode: 0, stdout: Buffer.from(input ?? []).toString(), stderr: '' };
      if (program === 'echo') return { exitCode: 0, stdout: `${word}\n`, stderr: '' };
      if (program === 'false') return { exitCode: 1, stdout: '', stderr: '' };
      if (program === 'printenv')
        return { exitCode: 0, stdout: `${self.container.spec.env?.[word]}\n`, stderr: '' };
      const read = program === 'cat' ? self.read(word) : null;
      return read
        ? { exitCode: 0, stdout: Buffer.from(read).toString(), stderr: '' }
        : { exitCode: 127, stdout: '', stderr: 'not found' };
    },
    onRun: () => {
      if (line[0] === 'echo') return { exitCode: 0, stdout: `${line[1]}\n`, stderr: '' };
      return line[0] === 'sleep' ? 'hangs' : { exitCode: 1, stdout: '', stderr: '' };
    },
  };
}

const open = () => memoryEngine({ programs: coreutils, images: { 'image:1': {} } });

const idle = (project: string): ContainerSpec => ({
  project,
  name: namesOf(project).proxy,
  role: 'proxy',
  image: 'image:1',
  network: 'none',
  memoryBytes: 1,
  readOnlyRoot: true,
  restart: 'always',
});

describe('the in-memory engine', () => {
  engineContract(async () => {
    const memory = open();
    return {
      engine: memory.engine,
      other: memory.process().engine,
      image: 'image:1',
      foreignContainer: async (name) => {
        const { engine } = memory;
        await engine.ensureContainer({ ...idle('somebody-else'), name });
      },
      pass: async (ms) => memory.advance(ms),
      close: async () => undefined,
    };
  });

  it('keeps the earlier effects of a process that dies, and frees its lock', async () => {
    const memory = open();
    const { engine } = memory.process((effect) => {
      if (effect.startsWith('start ')) throw new ProcessDied('killed');
    });
    const someone = { holder: 'ada', host: 'desk', verb: 'deploy', since: '' };
    await engine.lock('arena', 'image:1', someone);
    await expect(engine.ensureContainer(idle('arena'))).rejects.toThrow(ProcessDied);
    await expect(engine.removeContainer('arena', 'arena-nginx')).rejects.toThrow(ProcessDied);
    expect((await memory.engine.observe('arena')).map(({ name, state }) => [name, state])).toEqual([
      ['arena-nginx', 'created'],
    ]);
    expect(await memory.engine.lockHolder('arena')).toBeNull();
  });

  it('continues from a restored snapshot as it did the first time', async () => {
    const memory = open();
    await memory.engine.ensureContainer(idle('arena'));
    memory.crash('arena-nginx');
    const snapshot = memory.snapshot();
    const goOn = async (engine: Engine) => {
      await memory.clock.sleep(1000);
      return engine.observe('arena');
    };
    const first = await goOn(memory.engine);
    memory.restore(snapshot);
    expect(await goOn(memory.engine)).toEqual(first);
    expect(first[0]).toMatchObject({ state: 'running', restartCount: 1 });
  });

  it('fails with ENGINE_UNREACHABLE in every call while it does not answer', async () => {
    const memory = open();
    memory.state.isReachable = false;
    await expect(memory.engine.observe('arena')).rejects.toMatchObject({ code: 'ENGINE_UNREACHABLE' });
  });
});
