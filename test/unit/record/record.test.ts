/** The record survives what may happen to its slots; what it can't survive is said, and nothing is deployed over it. */
import { describe, expect, it } from 'vitest';
import { namesOf } from '../../../src/contract.ts';
import { newRecord, readRecord, writeRecord } from '../../../src/record/record.ts';
import { memoryEngine } from '../../support/memory/memory-engine.ts';
import { project, simulation } from '../../support/memory/simulation.ts';

const volume = namesOf(project).volume.record;

async function withRevisions(count: number) {
  const { engine } = memoryEngine({ images: {} });
  await engine.ensureVolume(project, volume, 'record');
  let record = newRecord(project);
  for (let n = 0; n < count; n++) record = await writeRecord(engine, record, {});
  const damage = (revision: number, content: string) =>
    engine.putFiles(project, volume, [{ path: `record-${revision % 8}.json`, content }]);
  return { engine, damage };
}

describe('the record', () => {
  it('is read from the revision before when the newest one is torn or garbage', async () => {
    for (const content of ['', '{"sha256":"', '\u0000\u0001garbage']) {
      const { engine, damage } = await withRevisions(11);
      await damage(11, content);
      expect((await readRecord(engine, project))?.revision).toBe(10);
    }
  });

  it('is read although an older revision is damaged or a foreign file lies beside it', async () => {
    const { engine, damage } = await withRevisions(11);
    await damage(5, 'torn');
    await engine.putFiles(project, volume, [{ path: 'notes.txt', content: 'hello' }]);
    expect((await readRecord(engine, project))?.revision).toBe(11);
  });

  it('is refused when no revision can be read, and the error says what to do', async () => {
    const { engine, damage } = await withRevisions(3);
    for (const revision of [1, 2, 3]) await damage(revision, 'x');
    await expect(readRecord(engine, project)).rejects.toMatchObject({
      code: 'RECORD_UNREADABLE',
      next: [expect.stringContaining(volume), expect.stringContaining('gameops down')],
    });
  });

  it('counts as absent after a first write that was torn, because nothing was deployed yet', async () => {
    const { engine, damage } = await withRevisions(1);
    await damage(1, '{"sha');
    expect(await readRecord(engine, project)).toBeNull();
  });

  it('counts as lost, not as absent, when containers of the project exist without it', async () => {
    const { engine } = await simulation();
    await engine.removeVolume(project, volume);
    await expect(readRecord(engine, project)).rejects.toMatchObject({ code: 'RECORD_UNREADABLE' });
  });
});
