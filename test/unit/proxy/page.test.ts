/** A page is a release's own, and there when it is whole. */
import { describe, expect, it } from 'vitest';
import { namesOf } from '../../../src/contract.ts';
import { isPublished, publishPage } from '../../../src/proxy/page.ts';
import { memoryEngine } from '../../support/memory/memory-engine.ts';

const project = 'arena';
const { web } = namesOf(project).volume;
const files = ['index.html', 'assets/main-1f.js'].map((path) => ({ path, content: Buffer.from(path) }));

async function engineWithWeb() {
  const { engine } = memoryEngine({ images: {} });
  await engine.ensureVolume(project, web, 'data');
  return engine;
}

describe('a page', () => {
  it('counts as published for its own release once it was written to the end', async () => {
    const engine = await engineWithWeb();
    await publishPage(engine, project, { id: 4, page: 'abc' }, files);
    expect(await isPublished(engine, project, { id: 4, page: 'abc' })).toBe(true);
    expect(await isPublished(engine, project, { id: 5, page: 'abc' })).toBe(false);
  });

  it('does not count as published when its writer died meanwhile, or when a lost record left another page under its number', async () => {
    const engine = await engineWithWeb();
    await engine.putFiles(project, web, [{ path: 'r-4/index.html', content: 'torn' }]);
    expect(await isPublished(engine, project, { id: 4, page: 'abc' })).toBe(false);
    await publishPage(engine, project, { id: 4, page: 'former' }, files);
    expect(await isPublished(engine, project, { id: 4, page: 'abc' })).toBe(false);
  });

  it('is marked as complete by the last file that is written', async () => {
    const engine = await engineWithWeb();
    const written: string[] = [];
    const putFiles: typeof engine.putFiles = async (_project, _volume, entries) => {
      written.push(...entries.map(({ path }) => path));
    };
    await publishPage({ ...engine, putFiles }, project, { id: 4, page: 'abc' }, files);
    expect(written).toEqual(['r-4/index.html', 'assets/main-1f.js', 'published/4']);
  });
});
